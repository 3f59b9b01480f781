"""The match stage's infrastructure: hashed content comes by a rule and a queue to the function that matches it."""

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from constructs import Construct

from countermark.aws.names import EVENTS
from countermark.aws.settings import search_environ
from infra.deployment import Deployment
from infra.function import Surroundings, stage_function
from infra.grants import READ_ITEMS, allow, allow_items, allow_objects
from infra.queue import SOURCE, WatchedQueue
from infra.watch import HOUR, MINUTES_5

STAGE = "match"

TIMEOUT = Duration.seconds(30)
"""What the HTTP API waits for; a batch takes a second, once the index is loaded."""

OLDEST_MESSAGE = Duration.minutes(15)

SHARDS_TIMEOUT = Duration.minutes(5)
"""A function that held its shards' answers back until all is loaded would be ended by less, and begin again: who asked
gave up long before."""

MANY_THROTTLES = 10
"""Questions within five minutes that found no room in a function of shards: each of them is a lookup that failed, or
was asked twice."""

MANY_PARTLY_MATCHED = 5
"""Contents within an hour that were compared in part before an alarm: a text that is made to be slow comes alone."""


class MatchStage(Construct):
    """Matches hashed content and what the API is asked, on the published index and the banks as they are now.

    May read the index, banks and contents; read uploads, whose text may be too large for an event; ask the functions
    that hold shards of the index, where there are some; remember content that was dealt with; and tell of matches.
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
        uploads: s3.Bucket,
        bus: events.IEventBus,
        deployment: Deployment,
    ) -> None:
        """Make the stage; the function holds the index, unless its shards lie in functions of their own."""
        super().__init__(scope, id)
        shard_functions = [
            ShardsFunction(
                self,
                f"Shards{number}",
                surroundings=surroundings,
                index=index,
                group=number,
                deployment=deployment,
            ).function
            for number in range(deployment.shard_functions)
        ]
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
            memory_mb=deployment.match_memory_mb,
            timeout=TIMEOUT,
            is_heavy=True,
            environment=search_environ(
                index_bands=deployment.index_bands,
                shard_functions=[function.function_name for function in shard_functions],
            ),
        )
        surroundings.watch.alarm(
            self,
            "IndexLoadFailedAlarm",
            metric=surroundings.watch.metric(
                "IndexLoadFailed", stage=STAGE, statistic=cloudwatch.Stats.SUM, period=MINUTES_5
            ),
            threshold=1,
            because="A function cannot load the newest index and answers from an older one. The stage's log says why "
            '(index_load_failed); where a segment is damaged, send {"full": true} to the queue of nudges.',
        )
        surroundings.watch.alarm(
            self,
            "PartlyMatchedAlarm",
            metric=surroundings.watch.metric(
                "ContentPartlyMatched", stage=STAGE, statistic=cloudwatch.Stats.SUM, period=HOUR
            ),
            threshold=MANY_PARTLY_MATCHED,
            because="Uploads were not compared with all that is banked, so no match does not mean that they are "
            "unknown. The stage's log names them (content_matched_in_part).",
        )
        if shard_functions:
            allow(self.function, "lambda:InvokeFunction", on=[each.function_arn for each in shard_functions])
        allow_objects(self.function, "s3:GetObject", bucket=index)
        # Texts that are too large for an event are read where they were uploaded.
        allow_objects(self.function, "s3:GetObject", "s3:GetObjectVersion", bucket=uploads)
        allow_items(self.function, *READ_ITEMS, table=banks)
        allow_items(self.function, "dynamodb:GetItem", "dynamodb:PutItem", table=access, partitions=[f"{EVENTS}*"])
        allow(self.function, "events:PutEvents", on=[bus.event_bus_arn])
        queue.feed(self.function, batch_size=10, max_concurrency=deployment.match_concurrency)
        queue.subscribe(
            "HashedRule",
            events.EventPattern(source=[SOURCE], detail_type=["ContentHashed"]),
            bus=bus,
            description="Sends all hashed content to be matched.",
        )


class ShardsFunction(Construct):
    """Holds a group of shards of the index, and answers what lies near signals in them. May read the index alone."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        surroundings: Surroundings,
        index: s3.Bucket,
        group: int,
        deployment: Deployment,
    ) -> None:
        """Make the function of the group of that number, from 0 on; its concurrency is reserved."""
        super().__init__(scope, id)
        groups = deployment.shard_functions
        self.function = stage_function(
            self,
            STAGE,
            surroundings=surroundings,
            entry="shards",
            description=f"Searches shards of the index: group {group} of {groups}.",
            memory_mb=deployment.shard_memory_mb,
            timeout=SHARDS_TIMEOUT,
            is_heavy=True,
            environment=search_environ(index_bands=deployment.index_bands, shard_group=(group, groups)),
            reserved_concurrency=deployment.shard_concurrency,
        )
        allow_objects(self.function, "s3:GetObject", bucket=index)
        surroundings.watch.alarm(
            self,
            "ThrottlesAlarm",
            metric=self.function.metric_throttles(period=MINUTES_5, statistic=cloudwatch.Stats.SUM),
            threshold=MANY_THROTTLES,
            because="Lookups find no room in a function of shards. Raise countermark:shard_concurrency, or ask less.",
        )
