"""The fetch stage's infrastructure: a schedule, a queue of collaborations, the function that fetches them."""

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from countermark.aws.settings import FETCH_QUEUE_URL
from infra.function import Surroundings, stage_function
from infra.grants import READ_ITEMS, WRITE_ITEMS, allow, allow_items, allow_objects
from infra.queue import WatchedQueue
from infra.schedule import send_regularly
from infra.watch import HOUR, Watch

STAGE = "fetch"

TIMEOUT = Duration.minutes(15)
"""The longest that Lambda gives: a run stops before it, and sends itself again."""

CONCURRENCY = 5
"""Collaborations fetched at once: exchanges limit their callers, and each run writes thousands of items a second."""

OLDEST_MESSAGE = Duration.hours(2)

MANY_FAILURES = 3
"""Failed fetches within an hour that raise an alarm: an exchange that is down for a moment is fetched again."""


class FetchStage(Construct):
    """Fetches what exchanges share, one message a collaboration.

    May read and write banks, contents, collaborations and records; read the exchanges' credentials and the
    objects that collaborations are read from; tell of changed banks; and send to its own queue.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        surroundings: Surroundings,
        banks: dynamodb.ITable,
        exchanges: dynamodb.ITable,
        credentials: secretsmanager.ISecret,
        content_buckets: Sequence[s3.IBucket],
        bus: events.IEventBus,
        every: Duration,
        oldest_fetch: Duration,
    ) -> None:
        """Make the stage: `every` is the schedule's, `oldest_fetch` the age at which an alarm is raised."""
        super().__init__(scope, id)
        self.queue = WatchedQueue(
            self,
            "Collaborations",
            stage=STAGE,
            function_timeout=TIMEOUT,
            oldest_message=OLDEST_MESSAGE,
            watch=surroundings.watch,
        )
        function = stage_function(
            self,
            STAGE,
            surroundings=surroundings,
            description="Fetches what exchanges share into banks.",
            memory_mb=1024,
            timeout=TIMEOUT,
            environment={FETCH_QUEUE_URL: self.queue.queue.queue_url},
            # A run takes at least one delta before it sends itself again, so the chain ends with what is to be fetched.
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
            description="Has every enabled collaboration fetched.",
        )
        self._raise_alarms(surroundings.watch, oldest_fetch)

    def _raise_alarms(self, watch: Watch, oldest_fetch: Duration) -> None:
        watch.alarm(
            self,
            "FailuresAlarm",
            metric=watch.metric("FetchFailed", stage=STAGE, statistic=cloudwatch.Stats.SUM, period=HOUR),
            threshold=MANY_FAILURES,
            because="Fetches fail again and again. GET /c/exchange/NAME/status and the stage's log say which and why.",
        )
        watch.alarm(
            self,
            "OldestFetchAlarm",
            metric=watch.metric("OldestFetchAge", stage=STAGE, statistic=cloudwatch.Stats.MAXIMUM, period=HOUR),
            threshold=oldest_fetch.to_seconds(),
            because="A collaboration was not fetched completely for too long, or the schedule does not run at all.",
            silence_is_bad=True,
        )
        watch.alarm(
            self,
            "UnreadableAlarm",
            metric=watch.metric("RecordsUnreadable", stage=STAGE, statistic=cloudwatch.Stats.SUM, period=HOUR),
            threshold=1,
            because="An exchange sent a damaged page, and records on it are missing. The stage's log says of which "
            "collaboration; report it to the exchange, and fetch from the start once it is repaired.",
        )
