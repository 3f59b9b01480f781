"""The kind of queue that every stage has: with a dead-letter queue, and alarms on both."""

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
"""How long a received message stays hidden, in time-outs of the function.

Source: AWS Lambda, "Using Lambda with Amazon SQS".
"""

MAX_RECEIVES = 5
"""How often a message is tried before it goes to the dead-letter queue. At least 5, because throttled attempts count.

Source: the same page.
"""

MANY_FAILURES = 5
"""The number of failed messages within five minutes that raises an alarm, long before they become dead letters.

It is above 1, because some messages fail once.
"""

SOURCE = "countermark"
"""The source of the events that countermark publishes."""

RETENTION = Duration.days(14)
"""How long a message is stored. This is the maximum of SQS, so that no message is lost during a holiday."""


class WatchedQueue(Construct):
    """An encrypted queue that accepts TLS only, and its dead-letter queue, each with alarms.

    The dead-letter queue receives the messages on which the function failed, and the messages that a rule or a schedule
    could not deliver to the queue. Both are complete messages, so one redrive sends all of them to the queue again.
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
        """Create both queues. `oldest_message` is the age of a waiting message that raises an alarm.

        `stage` is the stage whose function counts failed messages, for an alarm on them. It is None if a failed batch
        fails the whole invocation, or if another queue of the stage has that alarm.
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
        # Lambda checks at creation that the function is allowed to receive messages.
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
