"""The curate stage's infrastructure: the function that answers /c, and its queues of purges and of opinions."""

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
from infra.function import SharedResources, stage_function
from infra.grants import READ_ITEMS, WRITE_ITEMS, allow, allow_items, allow_objects
from infra.queue import SOURCE, WatchedQueue
from infra.schedule import send_regularly
from infra.watch import HOUR

STAGE = "curate"

TIMEOUT = Duration.minutes(5)
"""Time for purges and for slow exchanges. The HTTP API waits only 30 seconds."""

OLDEST_MESSAGE = Duration.hours(24)
"""A purge sends itself again until everything is removed. So a message waits this long only if purges fail."""

RESUME_EVERY = Duration.hours(1)
"""How often unfinished purges are searched in the stores, in case a message was lost or became a dead letter."""

PURGES = 2
"""How many purges run at once. Deleted content no longer matches, so purges are not urgent."""

OPINION_SENDERS = 2
"""How many opinions are sent at once. Exchanges do not like more from one caller."""

OLDEST_OPINION = Duration.hours(2)
"""An opinion is tried five times, half an hour apart. Then it becomes a dead letter, and an operator sends it again."""


class CurateStage(Construct):
    """Changes banks, contents and collaborations for the API, purges deleted ones, and sends opinions to exchanges.

    The function is allowed to read and write banks, contents, collaborations and records, and to read and set the
    exchanges' credentials. It may read the index to report its state, start fetches, and publish changes of banks and
    opinions. It may number opinions, record which opinions were processed, and send to its queue of purges.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        shared: SharedResources,
        banks: dynamodb.ITable,
        exchanges: dynamodb.ITable,
        access: dynamodb.ITable,
        credentials: secretsmanager.ISecret,
        index: s3.Bucket,
        fetch_queue: sqs.IQueue,
        bus: events.IEventBus,
    ) -> None:
        """Create the stage."""
        super().__init__(scope, id)
        queue = WatchedQueue(
            self,
            "Purges",
            stage=STAGE,
            function_timeout=TIMEOUT,
            oldest_message=OLDEST_MESSAGE,
            watch=shared.watch,
        )
        self.function = stage_function(
            self,
            STAGE,
            shared=shared,
            description="Answers /c, purges deleted banks, and sends opinions to exchanges.",
            memory_mb=1769,
            timeout=TIMEOUT,
            is_heavy=True,
            environment={
                FETCH_QUEUE_URL: fetch_queue.queue_url,
                PURGE_QUEUE_URL: queue.queue.queue_url,
            },
            # A purge sends itself again only if it removed something, so the chain ends when all is removed.
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
            description="Sends deleted banks and collaborations to be purged.",
        )
        send_regularly(
            self,
            "ResumeSchedule",
            every=RESUME_EVERY,
            message={"resume_purges": True},
            to=queue,
            description="Resumes purges that stopped before everything was removed.",
        )
        self._deliver_opinions(shared, bus)

    def _deliver_opinions(self, shared: SharedResources, bus: events.IEventBus) -> None:
        """Deliver opinions to the function, and raise an alarm if an exchange refuses one."""
        # The stage's alarm on failing messages is created with the other queue.
        queue = WatchedQueue(
            self,
            "Opinions",
            function_timeout=TIMEOUT,
            oldest_message=OLDEST_OPINION,
            watch=shared.watch,
        )
        queue.feed(self.function, batch_size=1, max_concurrency=OPINION_SENDERS)
        queue.subscribe(
            "OpinionRule",
            events.EventPattern(source=[SOURCE], detail_type=["OpinionGiven"]),
            bus=bus,
            description="Sends the opinions of curators to exchanges.",
        )
        shared.watch.alarm(
            self,
            "RefusedOpinionsAlarm",
            metric=shared.watch.metric("OpinionsRefused", stage=STAGE, statistic=cloudwatch.Stats.SUM, period=HOUR),
            threshold=1,
            because="An exchange refused an opinion permanently. The stage's log says which and why. Correct the cause "
            "and give the opinion again.",
        )
