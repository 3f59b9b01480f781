"""The index stage's infrastructure. A queue delivers nudges and scheduled messages to the building function.

A nudge is a message that asks for a build after a bank has changed.
"""

from aws_cdk import Duration
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from constructs import Construct

from countermark.aws.names import BANK_INDEX, BUILDS, FEED_INDEX, STORE
from countermark.aws.settings import search_environ
from infra.function import SharedResources, stage_function
from infra.grants import READ_ITEMS, allow_items, allow_objects
from infra.queue import SOURCE, WatchedQueue
from infra.schedule import send_regularly

STAGE = "index"

TIMEOUT = Duration.minutes(15)
"""The function's time-out, which is Lambda's maximum. A run does many steps of a repair; the next continues it."""

OLDEST_MESSAGE = Duration.minutes(30)

WINDOW = Duration.seconds(2)
"""How long nudges are collected into one build.

New content matches within ten seconds. The event takes half a second, this window two seconds, the start of a cold
function three seconds, and a small build one second. Readers check for a newer index every two seconds.
"""

NUDGES_PER_BUILD = 1_000
"""The maximum number of nudges that one build answers. Usually the window ends long before so many arrive."""

BUILDERS = 2
"""How many builds run at once. One would be enough, but the lowest concurrency that a queue allows is two. If two
builds run, the conditional write of the manifest lets one succeed; the other starts again.

Only the queue limits builds; the function reserves no concurrency. A new account has 10 concurrent executions. Lambda
keeps all of them unreserved, so it refuses any reservation. Besides, if the function's limit were below the queue's,
the function would throttle nudges, and the queue would drop them.
Sources: AWS Lambda, "Lambda quotas", "Configuring reserved concurrency for a function", and "Configuring maximum
concurrency for Amazon SQS event sources"."""


class IndexStage(Construct):
    """Builds and publishes the index after each change of a bank, and at regular intervals.

    The function is allowed to read banks, contents and the feed of changes, and to record its builds in the banks'
    table. It is also allowed to read, write and delete objects in the index bucket.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        shared: SharedResources,
        banks: dynamodb.ITable,
        index: s3.Bucket,
        bus: events.IEventBus,
        every: Duration,
        repair_every: Duration,
        memory_mb: int,
        shards: int,
    ) -> None:
        """Create the stage.

        `every` is the interval of scheduled builds, and so the longest delay that a lost nudge causes. `repair_every`
        is the interval of repairs, and so the longest time for which damage of the index lasts.
        """
        super().__init__(scope, id)
        queue = WatchedQueue(
            self,
            "Nudges",
            stage=STAGE,
            function_timeout=TIMEOUT,
            oldest_message=OLDEST_MESSAGE,
            watch=shared.watch,
        )
        function = stage_function(
            self,
            STAGE,
            shared=shared,
            description="Builds and publishes the index.",
            memory_mb=memory_mb,
            timeout=TIMEOUT,
            is_heavy=True,
            environment=search_environ(index_shards=shards),
        )
        allow_items(function, *READ_ITEMS, table=banks, indexes=[FEED_INDEX.name, BANK_INDEX.name])
        # The function stores the id of the store that the index belongs to, and marks of builds. See the key table in
        # `aws.names`.
        allow_items(function, "dynamodb:PutItem", table=banks, partitions=[STORE, BUILDS])
        allow_objects(function, "s3:DeleteObject", "s3:GetObject", "s3:PutObject", bucket=index)
        queue.feed(function, batch_size=NUDGES_PER_BUILD, max_concurrency=BUILDERS, window=WINDOW)
        queue.subscribe(
            "ChangedRule",
            events.EventPattern(source=[SOURCE], detail_type=["BankChanged"]),
            bus=bus,
            description="Requests a build after each change of a bank.",
        )
        send_regularly(
            self,
            "Schedule",
            every=every,
            message={"full": False},
            to=queue,
            description="Builds the index regularly, in case a nudge was lost.",
        )
        send_regularly(
            self,
            "RepairSchedule",
            every=repair_every,
            message={"full": True},
            to=queue,
            description="Builds the whole index again from the banks.",
        )
