"""The match stage's infrastructure: hashed content comes by a rule and a queue to the function that matches it."""

from aws_cdk import Duration
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.function import Surroundings, stage_function
from infra.grants import READ_ITEMS, allow, allow_items, allow_objects
from infra.queue import SOURCE, WatchedQueue

STAGE = "match"

TIMEOUT = Duration.seconds(30)
"""What the HTTP API waits for; a batch takes a second, once the index is loaded."""

OLDEST_MESSAGE = Duration.minutes(15)


class MatchStage(Construct):
    """Matches hashed content and what the API is asked, on the published index and the banks as they are now.

    May read the index, banks and contents; remember content that was dealt with; and tell of matches.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        surroundings: Surroundings,
        banks: dynamodb.ITable,
        access: dynamodb.ITable,
        index: s3.Bucket,
        bus: events.IEventBus,
        concurrency: int,
        memory_mb: int,
    ) -> None:
        """Make the stage; `memory_mb` has to hold the index, `concurrency` limits those that match events."""
        super().__init__(scope, id)
        queue = WatchedQueue(
            self,
            "Hashed",
            stage=STAGE,
            function_timeout=TIMEOUT,
            oldest_message=OLDEST_MESSAGE,
            watch=surroundings.watch,
        )
        self.function = stage_function(
            self,
            STAGE,
            surroundings=surroundings,
            description="Matches hashed content and what /m is asked.",
            memory_mb=memory_mb,
            timeout=TIMEOUT,
            is_heavy=True,
        )
        allow_objects(self.function, "s3:GetObject", bucket=index)
        allow_items(self.function, *READ_ITEMS, table=banks)
        allow_items(self.function, "dynamodb:GetItem", "dynamodb:PutItem", table=access, partitions=["event#*"])
        allow(self.function, "events:PutEvents", on=[bus.event_bus_arn])
        queue.feed(self.function, batch_size=10, max_concurrency=concurrency)
        queue.subscribe(
            "HashedRule",
            events.EventPattern(source=[SOURCE], detail_type=["ContentHashed"]),
            bus=bus,
            description="Sends all hashed content to be matched.",
        )
