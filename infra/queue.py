"""A queue as every stage has one: with a dead-letter queue, and both of them watched."""

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
"""How many function time-outs a message stays hidden. Source: AWS Lambda, "Using Lambda with Amazon SQS"."""

MAX_RECEIVES = 5
"""How often a message is tried before it goes to the dead-letter queue. Source: the same page: at least 5, as a
throttled attempt counts as one."""

MANY_FAILURES = 5
"""Failed messages within five minutes that raise an alarm, long before they are dead letters: some fail once."""

SOURCE = "countermark"
"""What the events of ours name as their source."""

RETENTION = Duration.days(14)
"""How long a message is kept: the longest that SQS takes, so that a holiday loses nothing."""


class WatchedQueue(Construct):
    """An encrypted queue, reached over TLS only, and its dead-letter queue, each with an alarm.

    The dead-letter queue takes what its function failed at, and what a rule or a schedule could not deliver to the
    queue: both are whole messages, so one redrive brings either back.
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
        """Make both queues; `oldest_message` is the age of a waiting message that raises the alarm.

        `stage` names the function that counts the messages that fail; None where a batch fails as one, and the
        function with it, or where another queue of the stage raises that alarm.
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
            because=f"{id}: messages failed for good. Look into the stage's log, mend the cause, start a redrive.",
        )
        watch.alarm(
            self,
            "OldestMessageAlarm",
            metric=self.queue.metric_approximate_age_of_oldest_message(
                period=MINUTES_5, statistic=cloudwatch.Stats.MAXIMUM
            ),
            threshold=oldest_message.to_seconds(),
            because=f"{id}: a message waits for {oldest_message.to_human_string()}. The stage fails, or is too slow.",
        )

        if stage is not None:
            watch.alarm(
                self,
                "FailedMessagesAlarm",
                metric=watch.metric("MessagesFailed", stage=stage, statistic=cloudwatch.Stats.SUM, period=MINUTES_5),
                threshold=MANY_FAILURES,
                because=f"{id}: messages fail, and come again. Those that fail to the end become dead letters.",
            )

    def feed(
        self,
        function: lambda_.Function,
        *,
        batch_size: int,
        max_concurrency: int,
        window: Duration | None = None,
    ) -> None:
        """Have a function take batches from the queue; only the messages that it names as failed come again."""
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
        # Lambda checks at creation that the function may receive.
        granted.apply_before(feed)

    def subscribe(
        self,
        id: str,
        pattern: events.EventPattern,
        *,
        description: str,
        bus: events.IEventBus | None = None,
    ) -> None:
        """Have the events of a pattern sent to the queue; None is the account's own bus, where AWS's events come."""
        events.Rule(
            self,
            id,
            description=description,
            event_bus=bus,
            event_pattern=pattern,
            targets=[targets.SqsQueue(self.queue, dead_letter_queue=self.dead_letters)],
        )
