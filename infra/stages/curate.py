"""The curate stage's infrastructure: the function that answers /c, and its queues of what to purge and to tell."""

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from countermark.aws.names import BANK_INDEX, COUNTERS, OPINIONS
from countermark.aws.settings import FETCH_QUEUE_URL, PURGE_QUEUE_URL
from infra.function import Surroundings, stage_function
from infra.grants import READ_ITEMS, WRITE_ITEMS, allow, allow_items, allow_objects
from infra.queue import SOURCE, WatchedQueue
from infra.schedule import send_regularly
from infra.watch import HOUR

STAGE = "curate"

TIMEOUT = Duration.minutes(5)
"""For purges, and for exchanges that are slow; the HTTP API waits for 30 seconds."""

OLDEST_MESSAGE = Duration.hours(24)
"""A purge sends itself again until nothing is left, so a message waits for long only where purges fail."""

RESUME_EVERY = Duration.hours(1)
"""How often what is left to purge is derived from the stores, should a message be lost, or end as a dead letter."""

PURGES = 2
"""Purges at once: what they remove matches no more, so they need not hurry."""

TELLERS = 2
"""Opinions told at once, and no more than exchanges like of one caller."""

OLDEST_OPINION = Duration.hours(2)
"""An opinion is tried five times, half an hour apart: later it is a dead letter, and to be sent again by hand."""


class CurateStage(Construct):
    """Answers those who change banks, contents and collaborations, purges deleted ones, and tells opinions.

    May read and write banks, contents, collaborations and records; read and set the exchanges' credentials; read
    the index, to tell of its state; start a fetch; tell of changed banks and of opinions; number opinions and
    remember those that were dealt with; and send to its own queue of purges.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        surroundings: Surroundings,
        banks: dynamodb.ITable,
        exchanges: dynamodb.ITable,
        access: dynamodb.ITable,
        credentials: secretsmanager.ISecret,
        index: s3.Bucket,
        fetch_queue: sqs.IQueue,
        bus: events.IEventBus,
    ) -> None:
        """Make the stage."""
        super().__init__(scope, id)
        queue = WatchedQueue(
            self,
            "Purges",
            stage=STAGE,
            function_timeout=TIMEOUT,
            oldest_message=OLDEST_MESSAGE,
            watch=surroundings.watch,
        )
        self.function = stage_function(
            self,
            STAGE,
            surroundings=surroundings,
            description="Answers /c, purges what is left of deleted banks, and tells exchanges of opinions.",
            memory_mb=1769,
            timeout=TIMEOUT,
            is_heavy=True,
            environment={
                FETCH_QUEUE_URL: fetch_queue.queue_url,
                PURGE_QUEUE_URL: queue.queue.queue_url,
            },
            # A purge sends itself again only where it removed something, so the chain ends with what is to be removed.
            may_loop=True,
        )
        allow_items(self.function, *READ_ITEMS, *WRITE_ITEMS, table=banks, indexes=[BANK_INDEX.name])
        allow_items(self.function, *READ_ITEMS, *WRITE_ITEMS, table=exchanges)
        allow_items(
            self.function,
            "dynamodb:GetItem",
            "dynamodb:UpdateItem",
            table=access,
            partitions=[COUNTERS, f"{OPINIONS}*"],
        )
        allow(
            self.function,
            "secretsmanager:GetSecretValue",
            "secretsmanager:PutSecretValue",
            "secretsmanager:UpdateSecretVersionStage",
            on=[credentials.secret_arn],
        )
        allow_objects(self.function, "s3:GetObject", bucket=index)
        allow(self.function, "events:PutEvents", on=[bus.event_bus_arn])
        allow(self.function, "sqs:SendMessage", on=[fetch_queue.queue_arn, queue.queue.queue_arn])
        queue.feed(self.function, batch_size=1, max_concurrency=PURGES)
        queue.subscribe(
            "DeletedRule",
            events.EventPattern(source=[SOURCE], detail_type=["BankChanged"], detail={"reason": ["bank_deleted"]}),
            bus=bus,
            description="Has what is left of deleted banks and collaborations purged.",
        )
        send_regularly(
            self,
            "ResumeSchedule",
            every=RESUME_EVERY,
            message={"resume_purges": True},
            to=queue,
            description="Resumes purges that stopped before all was removed.",
        )
        self._tell_opinions(surroundings, bus)

    def _tell_opinions(self, surroundings: Surroundings, bus: events.IEventBus) -> None:
        """Have opinions sent to the function, and its operator told where an exchange refuses one."""
        # The alarm on messages that fail is the stage's, and made with the other queue.
        queue = WatchedQueue(
            self,
            "Opinions",
            function_timeout=TIMEOUT,
            oldest_message=OLDEST_OPINION,
            watch=surroundings.watch,
        )
        queue.feed(self.function, batch_size=1, max_concurrency=TELLERS)
        queue.subscribe(
            "OpinionRule",
            events.EventPattern(source=[SOURCE], detail_type=["OpinionGiven"]),
            bus=bus,
            description="Has exchanges told what curators think.",
        )
        surroundings.watch.alarm(
            self,
            "RefusedOpinionsAlarm",
            metric=surroundings.watch.metric(
                "OpinionsRefused", stage=STAGE, statistic=cloudwatch.Stats.SUM, period=HOUR
            ),
            threshold=1,
            because="An exchange refused an opinion for good. The stage's log says which and why; then give it again.",
        )
