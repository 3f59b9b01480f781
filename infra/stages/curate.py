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
"""The function's time-out. Purges and slow exchanges need this long; the HTTP API waits only 30 seconds."""

OLDEST_MESSAGE = Duration.hours(24)
"""An alarm is raised if a message of a purge waits longer. That happens only if purges fail, because each message
removes a part and sends the next message."""

RESUME_EVERY = Duration.hours(1)
"""The interval of searches for unfinished purges, whose message was lost or became a dead letter."""

PURGES = 2
"""How many purges run at once. Deleted content no longer matches, so purges are not urgent."""

OPINION_SENDERS = 2
"""How many opinions are sent at once. Exchanges do not want more concurrent requests from one caller."""

OLDEST_OPINION = Duration.hours(2)
"""An alarm is raised if an opinion waits longer. An opinion is tried five times, half an hour apart. Then it becomes a
dead letter, and an operator sends it again."""


class CurateStage(Construct):
    """Changes banks, contents and collaborations for the API, purges deleted ones, and sends opinions to exchanges.

    The function is allowed to read and write banks, contents, collaborations and records, and to read and set the
    exchanges' credentials. It is also allowed to read the index, to report the state of the index; to start
    fetches; to publish opinions and changes of banks; to number opinions and record which opinions were processed; and
    to send messages to its queue of purges.
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
            # A purge sends the next message only if it removed something, so the chain ends when everything is removed.
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
        # The queue of purges already has the stage's alarm on failed messages.
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
