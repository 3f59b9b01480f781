"""The queue of a stage, its dead-letter queue, and the alarms on both."""

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.grants import allow
from infra.watch import MINUTES_5, Watch

VISIBILITY_TIMEOUTS = 6
"""How long a received message stays hidden, as a multiple of the function's time-out.

Source: AWS Lambda, "Using Lambda with Amazon SQS".
"""

MAX_RECEIVES = 5
"""How often a message is received before it moves to the dead-letter queue.

It is at least 5, because attempts that Lambda throttled also count. Source: the same page.
"""

MANY_FAILURES = 5
"""An alarm is raised at this number of failed messages within five minutes, long before they become dead letters.

The number is above 1, because a message can fail once and then succeed.
"""

SOURCE = "countermark"
"""The source of the events that countermark publishes."""

RETENTION = Duration.days(14)
"""How long a message is stored. This is the maximum of SQS, so that no message is lost during a holiday."""


class WatchedQueue(Construct):
    """An encrypted queue and its dead-letter queue, with alarms on both. Both queues accept only TLS connections.

    The dead-letter queue receives messages that the function could not process, and messages that a rule or a schedule
    could not deliver. All of them are complete, so one redrive sends all of them to the queue again.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        function_timeout: Duration,
        oldest_message: Duration,
        watch: Watch,
        stage: str | None = None,
    ) -> None:
        """Create both queues. If a message waits longer than `oldest_message`, an alarm is raised.

        `stage` adds an alarm on the failed messages that the stage's function counts. It is None if the function fails
        on whole batches instead, or if another queue of the stage has this alarm.
        """
        super().__init__(scope, id)
        self.dead_letters = sqs.Queue(
            self,
            "DeadLetters",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=RETENTION,
        )
        self.queue = sqs.Queue(
            self,
            "Queue",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=RETENTION,
            visibility_timeout=Duration.seconds(function_timeout.to_seconds() * VISIBILITY_TIMEOUTS),
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead_letters, max_receive_count=MAX_RECEIVES),
        )
        watch.alarm(
            self,
            "DeadLettersAlarm",
            metric=self.dead_letters.metric_approximate_number_of_messages_visible(
                period=MINUTES_5, statistic=cloudwatch.Stats.MAXIMUM
            ),
            threshold=1,
            because=f"{id}: messages failed permanently. Find the cause in the stage's log, fix it, start a redrive.",
        )
        watch.alarm(
            self,
            "OldestMessageAlarm",
            metric=self.queue.metric_approximate_age_of_oldest_message(
                period=MINUTES_5, statistic=cloudwatch.Stats.MAXIMUM
            ),
            threshold=oldest_message.to_seconds(),
            because=f"{id}: a message waits for {oldest_message.to_human_string()}. The stage fails or is too slow.",
        )

        if stage is not None:
            watch.alarm(
                self,
                "FailedMessagesAlarm",
                metric=watch.metric("MessagesFailed", stage=stage, statistic=cloudwatch.Stats.SUM, period=MINUTES_5),
                threshold=MANY_FAILURES,
                because=f"{id}: messages fail and are tried again. Those that fail every time become dead letters.",
            )

    def feed(
        self,
        function: lambda_.Function,
        *,
        batch_size: int,
        max_concurrency: int,
        window: Duration | None = None,
    ) -> None:
        """Deliver batches from the queue to a function. Only messages that it reports as failed are delivered again."""
        granted = allow(
            function,
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:ReceiveMessage",
            on=[self.queue.queue_arn],
        )
        feed = lambda_.EventSourceMapping(
            self,
            "Feed",
            target=function,
            event_source_arn=self.queue.queue_arn,
            batch_size=batch_size,
            max_batching_window=window,
            max_concurrency=max_concurrency,
            report_batch_item_failures=True,
        )
        # When the mapping is created, Lambda checks that the function is allowed to receive messages.
        granted.apply_before(feed)

    def subscribe(
        self,
        id: str,
        pattern: events.EventPattern,
        *,
        description: str,
        bus: events.IEventBus | None = None,
    ) -> None:
        """Send the events that match a pattern to the queue.

        Without `bus`, the account's default bus is used, on which AWS services publish their events.
        """
        events.Rule(
            self,
            id,
            description=description,
            event_bus=bus,
            event_pattern=pattern,
            targets=[targets.SqsQueue(self.queue, dead_letter_queue=self.dead_letters)],
        )
