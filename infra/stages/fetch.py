"""The fetch stage's infrastructure: a schedule, a queue of collaborations, and the function that fetches them."""

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from countermark.aws.settings import FETCH_QUEUE_URL
from infra.function import SharedResources, stage_function
from infra.grants import READ_ITEMS, WRITE_ITEMS, allow, allow_items, allow_objects
from infra.queue import WatchedQueue
from infra.schedule import send_regularly
from infra.watch import HOUR, Watch

STAGE = "fetch"

TIMEOUT = Duration.minutes(15)
"""The function's time-out, which is Lambda's maximum. A run stops earlier, and sends a message to continue."""

CONCURRENCY = 5
"""How many collaborations are fetched at once.

The number is low, because exchanges limit their callers, and each run writes thousands of items per second.
"""

OLDEST_MESSAGE = Duration.hours(2)

MANY_FAILURES = 3
"""An alarm is raised at this number of failed fetches within an hour. A short outage of an exchange causes fewer."""


class FetchStage(Construct):
    """Fetches the records of exchanges. One message fetches one collaboration.

    The function is allowed to read and write banks, contents, collaborations and records. It is also
    allowed to read the exchanges' credentials and the objects of `local_file` collaborations, to publish changes of
    banks, and to send messages to its own queue.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        shared: SharedResources,
        banks: dynamodb.ITable,
        exchanges: dynamodb.ITable,
        credentials: secretsmanager.ISecret,
        content_buckets: Sequence[s3.IBucket],
        bus: events.IEventBus,
        every: Duration,
        oldest_fetch: Duration,
    ) -> None:
        """Create the stage.

        `every` is the interval of fetches. An alarm is raised if a collaboration's last complete fetch is older than
        `oldest_fetch`.
        """
        super().__init__(scope, id)
        self.queue = WatchedQueue(
            self,
            "Collaborations",
            stage=STAGE,
            function_timeout=TIMEOUT,
            oldest_message=OLDEST_MESSAGE,
            watch=shared.watch,
        )
        function = stage_function(
            self,
            STAGE,
            shared=shared,
            description="Fetches the records of exchanges into banks.",
            memory_mb=1024,
            timeout=TIMEOUT,
            environment={FETCH_QUEUE_URL: self.queue.queue.queue_url},
            # A run fetches at least one delta before it sends the next message, so the chain ends when all is fetched.
            may_loop=True,
        )
        allow_items(function, *READ_ITEMS, *WRITE_ITEMS, table=banks)
        allow_items(function, *READ_ITEMS, *WRITE_ITEMS, table=exchanges)
        allow(function, "secretsmanager:GetSecretValue", on=[credentials.secret_arn])
        for bucket in content_buckets:
            allow_objects(function, "s3:GetObject", bucket=bucket)
        allow(function, "events:PutEvents", on=[bus.event_bus_arn])
        allow(function, "sqs:SendMessage", on=[self.queue.queue.queue_arn])
        self.queue.feed(function, batch_size=1, max_concurrency=CONCURRENCY)
        send_regularly(
            self,
            "Schedule",
            every=every,
            message={"dispatch": True},
            to=self.queue,
            description="Starts a fetch of every enabled collaboration.",
        )
        self._raise_alarms(shared.watch, oldest_fetch)

    def _raise_alarms(self, watch: Watch, oldest_fetch: Duration) -> None:
        watch.alarm(
            self,
            "FailuresAlarm",
            metric=watch.metric("FetchFailed", stage=STAGE, statistic=cloudwatch.Stats.SUM, period=HOUR),
            threshold=MANY_FAILURES,
            because="Fetches fail repeatedly. GET /c/exchange/NAME/status and the stage's log say which and why.",
        )
        watch.alarm(
            self,
            "OldestFetchAlarm",
            metric=watch.metric("OldestFetchAge", stage=STAGE, statistic=cloudwatch.Stats.MAXIMUM, period=HOUR),
            threshold=oldest_fetch.to_seconds(),
            because="A collaboration was not fetched completely for too long, or the schedule does not run at all.",
            alarm_if_missing=True,
        )
        watch.alarm(
            self,
            "UnreadableAlarm",
            metric=watch.metric("RecordsUnreadable", stage=STAGE, statistic=cloudwatch.Stats.SUM, period=HOUR),
            threshold=1,
            because="An exchange sent a damaged page, so records on it are missing. The stage's log names the "
            "collaboration. Report the damage to the exchange, and fetch from the start once it is repaired.",
        )
