"""The hash stage's infrastructure: uploads come from S3 by a rule and a queue to the function that hashes them."""

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from constructs import Construct

from countermark.aws.names import EVENTS, RATIOS
from infra.function import Surroundings, stage_function
from infra.grants import READ_ITEMS, allow, allow_items, allow_objects
from infra.queue import WatchedQueue
from infra.watch import HOUR, Watch

STAGE = "hash"

TIMEOUT = Duration.minutes(3)
"""A video of 5 GB, the most that S3 takes in one put, is read in half of it."""

OLDEST_MESSAGE = Duration.minutes(15)

FEWEST_LEFT_OUT = 5
"""How many uploads of an hour have something left out before the alarm rises: of few uploads, one is a large share."""


class HashStage(Construct):
    """Hashes uploads, and content that is posted to the API.

    May read objects of the upload bucket; read the enabled ratios of signal types; remember uploads that were
    dealt with; and tell of hashed content.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        surroundings: Surroundings,
        uploads: s3.Bucket,
        banks: dynamodb.ITable,
        access: dynamodb.ITable,
        bus: events.IEventBus,
        concurrency: int,
        left_out_percent: int,
    ) -> None:
        """Make the stage.

        `concurrency` is how many uploads are hashed at once; `left_out_percent` is the share of uploads with
        something left out that raises the alarm.
        """
        super().__init__(scope, id)
        queue = WatchedQueue(
            self,
            "Uploads",
            stage=STAGE,
            function_timeout=TIMEOUT,
            oldest_message=OLDEST_MESSAGE,
            watch=surroundings.watch,
        )
        self.function = stage_function(
            self,
            STAGE,
            surroundings=surroundings,
            description="Hashes uploads and what is posted to /h.",
            memory_mb=1769,
            timeout=TIMEOUT,
            is_heavy=True,
        )
        allow_objects(self.function, "s3:GetObject", "s3:GetObjectVersion", bucket=uploads)
        allow_items(self.function, *READ_ITEMS, table=banks, partitions=[RATIOS])
        allow_items(self.function, "dynamodb:GetItem", "dynamodb:PutItem", table=access, partitions=[f"{EVENTS}*"])
        allow(self.function, "events:PutEvents", on=[bus.event_bus_arn])
        # One upload at a time: one that ends the process, or its time, takes no other along.
        queue.feed(self.function, batch_size=1, max_concurrency=concurrency)
        # S3 tells the account's default bus.
        queue.subscribe(
            "UploadRule",
            events.EventPattern(
                source=["aws.s3"],
                detail_type=["Object Created"],
                detail={"bucket": {"name": [uploads.bucket_name]}},
            ),
            description="Sends every new object of the upload bucket to be hashed.",
        )
        surroundings.watch.alarm(
            self,
            "LeftOutAlarm",
            metric=_share_left_out(surroundings.watch),
            threshold=left_out_percent,
            because=(
                "Uploads were hashed in part, or not at all, so what is banked may have passed. The function's log "
                "says what was left out and why, the metrics UploadPartly, UploadUnhashable and UploadUnknown how "
                "often: install what is missing, say what uploads are by their keys, or raise left_out_percent."
            ),
        )


def _share_left_out(watch: Watch) -> cloudwatch.MathExpression:
    """Return in how many of a hundred uploads of an hour something was left out; 0 where it was in a few alone."""

    def metric(statistic: str) -> cloudwatch.Metric:
        return watch.metric("UploadLeftOut", stage=STAGE, statistic=statistic, period=HOUR)

    return cloudwatch.MathExpression(
        expression=f"IF(number >= {FEWEST_LEFT_OUT}, 100 * share, 0)",
        using_metrics={"number": metric(cloudwatch.Stats.SUM), "share": metric(cloudwatch.Stats.AVERAGE)},
        label="Uploads with something left out, in percent",
        period=HOUR,
    )
