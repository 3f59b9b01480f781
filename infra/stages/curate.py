"""The curate stage's infrastructure: the function that answers /c, and the queue of what is left to purge."""

from aws_cdk import Duration
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from countermark.aws.settings import FETCH_QUEUE_URL, PURGE_QUEUE_URL
from infra.function import Surroundings, stage_function
from infra.grants import READ_ITEMS, WRITE_ITEMS, allow, allow_items, allow_objects
from infra.queue import SOURCE, WatchedQueue
from infra.storage import BY_BANK_INDEX

STAGE = "curate"

TIMEOUT = Duration.minutes(5)
"""For purges; the HTTP API waits for 30 seconds."""

OLDEST_MESSAGE = Duration.hours(24)
"""A purge sends itself again until nothing is left, so a message waits for long only where purges fail."""

PURGES = 2
"""Purges at once: what they remove matches no more, so they need not hurry."""


class CurateStage(Construct):
    """Answers those who change banks, contents and collaborations, and purges what is left of deleted ones.

    May read and write banks, contents, collaborations and records; read and set the exchanges' credentials; read
    the index, to tell of its state; start a fetch; tell of changed banks; and send to its own queue.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002 - what the CDK calls it
        *,
        surroundings: Surroundings,
        banks: dynamodb.ITable,
        exchanges: dynamodb.ITable,
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
            description="Answers /c, and purges what is left of deleted banks and collaborations.",
            memory_mb=1769,
            timeout=TIMEOUT,
            is_heavy=True,
            environment={
                FETCH_QUEUE_URL: fetch_queue.queue_url,
                PURGE_QUEUE_URL: queue.queue.queue_url,
            },
        )
        allow_items(self.function, *READ_ITEMS, *WRITE_ITEMS, table=banks, indexes=[BY_BANK_INDEX])
        allow_items(self.function, *READ_ITEMS, *WRITE_ITEMS, table=exchanges)
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
