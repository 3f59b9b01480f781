"""The index stage's infrastructure: nudges and schedules come by a queue to the function that builds the index."""

from aws_cdk import Duration
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from constructs import Construct

from countermark.aws.names import BANK_INDEX, BUILDS, FEED_INDEX, STORE
from countermark.aws.settings import search_environ
from infra.function import Surroundings, stage_function
from infra.grants import READ_ITEMS, allow_items, allow_objects
from infra.queue import SOURCE, WatchedQueue
from infra.schedule import send_regularly

STAGE = "index"

TIMEOUT = Duration.minutes(15)
"""The longest that Lambda gives: there is time for many steps of a repair, which goes on in the next invocation."""

OLDEST_MESSAGE = Duration.minutes(30)

WINDOW = Duration.seconds(2)
"""How long nudges are gathered into one build.

A new content matches within ten seconds: an event takes half a second, this is two, a cold function three, a small
build one, and whoever searches looks for a newer index every other second.
"""

NUDGES_PER_BUILD = 1_000
"""The most nudges that one build answers; the window is up long before."""

BUILDERS = 2
"""Builds at once. One would do, but two is the least that a queue's concurrency can be limited to. The manifest's
conditional write makes one of two builds win; the other starts again.

The queue alone limits them: the function reserves no concurrency. A new account has 10 concurrent executions, all of
which Lambda keeps unreserved, so it refuses any reservation. And a limit below the queue's would let the queue drop
nudges that the function throttles.
Sources: AWS Lambda, "Lambda quotas", "Configuring reserved concurrency for a function", and "Configuring maximum
concurrency for Amazon SQS event sources"."""


class IndexStage(Construct):
    """Builds and publishes the index whenever a bank has changed, and regularly.

    May read banks, contents and their feed of changes; sign its builds in their table; and read, write and remove
    objects of the index bucket.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        surroundings: Surroundings,
        banks: dynamodb.ITable,
        index: s3.Bucket,
        bus: events.IEventBus,
        every: Duration,
        repair_every: Duration,
        memory_mb: int,
        shards: int,
    ) -> None:
        """Make the stage; `every` bounds how long a lost nudge delays, `repair_every` how long a damage lasts."""
        super().__init__(scope, id)
        queue = WatchedQueue(
            self,
            "Nudges",
            stage=STAGE,
            function_timeout=TIMEOUT,
            oldest_message=OLDEST_MESSAGE,
            watch=surroundings.watch,
        )
        function = stage_function(
            self,
            STAGE,
            surroundings=surroundings,
            description="Builds and publishes the index.",
            memory_mb=memory_mb,
            timeout=TIMEOUT,
            is_heavy=True,
            environment=search_environ(index_shards=shards),
        )
        allow_items(function, *READ_ITEMS, table=banks, indexes=[FEED_INDEX.name, BANK_INDEX.name])
        # Which store the index is of, and the marks of builds: see the key table.
        allow_items(function, "dynamodb:PutItem", table=banks, partitions=[STORE, BUILDS])
        allow_objects(function, "s3:DeleteObject", "s3:GetObject", "s3:PutObject", bucket=index)
        queue.feed(function, batch_size=NUDGES_PER_BUILD, max_concurrency=BUILDERS, window=WINDOW)
        queue.subscribe(
            "ChangedRule",
            events.EventPattern(source=[SOURCE], detail_type=["BankChanged"]),
            bus=bus,
            description="Nudges the index whenever a bank has changed.",
        )
        send_regularly(
            self,
            "Schedule",
            every=every,
            message={"full": False},
            to=queue,
            description="Brings the index up to date, should a nudge be lost.",
        )
        send_regularly(
            self,
            "RepairSchedule",
            every=repair_every,
            message={"full": True},
            to=queue,
            description="Builds the whole index anew from the banks.",
        )
