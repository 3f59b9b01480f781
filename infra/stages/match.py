"""The match stage's infrastructure. A rule and a queue deliver hashed content to the function that matches it."""

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from constructs import Construct

from countermark.aws.names import EVENTS
from countermark.aws.settings import search_environ
from infra.deployment import Deployment
from infra.function import SharedResources, stage_function
from infra.grants import READ_ITEMS, allow, allow_items, allow_objects
from infra.queue import SOURCE, WatchedQueue
from infra.watch import HOUR, MINUTES_5

STAGE = "match"

TIMEOUT = Duration.seconds(30)
"""How long the HTTP API waits. Once the index is loaded, a batch takes a second."""

OLDEST_MESSAGE = Duration.minutes(15)

SHARDS_TIMEOUT = Duration.minutes(5)
"""The time-out of a function that holds shards. It loads its shards before it answers.

A shorter time-out could end the function while it loads, and the next invocation would load from the beginning. The
match function waits for an answer for a much shorter time.
"""

MANY_THROTTLES = 10
"""The number of throttled calls of a shards function within five minutes that raises an alarm.

For each throttled call, a lookup failed or was repeated.
"""

MANY_PARTLY_MATCHED = 5
"""The number of partly compared contents within an hour that raises an alarm.

A single text that someone wrote to make comparisons slow does not raise it.
"""


class MatchStage(Construct):
    """Matches hashed content, and answers lookups of the API, with the published index and the current banks.

    The function is allowed to read the index, banks and contents. It may read uploads, because a text can be too large
    for an event. It may call the shards functions, if there are any. It may record which content was processed, and
    publish matches.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        shared: SharedResources,
        banks: dynamodb.ITable,
        access: dynamodb.ITable,
        index: s3.Bucket,
        uploads: s3.Bucket,
        bus: events.IEventBus,
        deployment: Deployment,
    ) -> None:
        """Create the stage. The shards functions load the index or, without any, the match function."""
        super().__init__(scope, id)
        shard_functions = [
            ShardsFunction(
                self,
                f"Shards{number}",
                shared=shared,
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
            watch=shared.watch,
        )
        self.function = stage_function(
            self,
            STAGE,
            shared=shared,
            description="Matches hashed content and answers /m.",
            memory_mb=deployment.match_memory_mb,
            timeout=TIMEOUT,
            is_heavy=True,
            environment=search_environ(
                index_bands=deployment.index_bands,
                shard_functions=[function.function_name for function in shard_functions],
            ),
        )
        shared.watch.alarm(
            self,
            "IndexLoadFailedAlarm",
            metric=shared.watch.metric(
                "IndexLoadFailed", stage=STAGE, statistic=cloudwatch.Stats.SUM, period=MINUTES_5
            ),
            threshold=1,
            because="A function cannot load the newest index and answers from an older one. The stage's log says why "
            '(index_load_failed). If a segment is damaged, send {"full": true} to the queue of nudges to repair it.',
        )
        shared.watch.alarm(
            self,
            "PartlyMatchedAlarm",
            metric=shared.watch.metric(
                "ContentPartlyMatched", stage=STAGE, statistic=cloudwatch.Stats.SUM, period=HOUR
            ),
            threshold=MANY_PARTLY_MATCHED,
            because="Some uploads were not compared with all banked signals, so a match may be missing. "
            "The stage's log names them (content_matched_in_part).",
        )
        if shard_functions:
            allow(self.function, "lambda:InvokeFunction", on=[each.function_arn for each in shard_functions])
        allow_objects(self.function, "s3:GetObject", bucket=index)
        # Texts that are too large for an event are read from the upload bucket.
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
    """A function that loads a group of the index's shards and searches them. It is only allowed to read the index."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        shared: SharedResources,
        index: s3.Bucket,
        group: int,
        deployment: Deployment,
    ) -> None:
        """Create the function for one group of shards. Groups are numbered from 0. Its concurrency is reserved."""
        super().__init__(scope, id)
        groups = deployment.shard_functions
        self.function = stage_function(
            self,
            STAGE,
            shared=shared,
            entry="shards",
            description=f"Searches shards of the index: group {group} of {groups}.",
            memory_mb=deployment.shard_memory_mb,
            timeout=SHARDS_TIMEOUT,
            is_heavy=True,
            environment=search_environ(index_bands=deployment.index_bands, shard_group=(group, groups)),
            reserved_concurrency=deployment.shard_concurrency,
        )
        allow_objects(self.function, "s3:GetObject", bucket=index)
        shared.watch.alarm(
            self,
            "ThrottlesAlarm",
            metric=self.function.metric_throttles(period=MINUTES_5, statistic=cloudwatch.Stats.SUM),
            threshold=MANY_THROTTLES,
            because="Calls of a shards function are throttled. Raise countermark:shard_concurrency, "
            "or send fewer lookups.",
        )
