"""The hash stage's infrastructure. A rule and a queue deliver uploads from S3 to the function that hashes them."""

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_s3 as s3
from constructs import Construct

from countermark.aws.names import EVENTS, RATIOS
from infra.function import SharedResources, stage_function
from infra.grants import READ_ITEMS, allow, allow_items, allow_objects
from infra.queue import WatchedQueue
from infra.watch import HOUR, Watch

STAGE = "hash"

TIMEOUT = Duration.minutes(3)
"""Twice the time to read a video of 5 GB, the most that S3 accepts in one upload."""

OLDEST_MESSAGE = Duration.minutes(15)

MIN_LEFT_OUT = 5
"""The smallest number of incompletely hashed uploads within an hour that can raise the alarm.

If an hour has only a few uploads, one of them is already a large share.
"""


class HashStage(Construct):
    """Hashes uploads, and content that is posted to the API.

    The function is allowed to read objects of the upload bucket and the enabled ratios of signal types. It may record
    which uploads were processed, and publish hashed content.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        shared: SharedResources,
        uploads: s3.Bucket,
        banks: dynamodb.ITable,
        access: dynamodb.ITable,
        bus: events.IEventBus,
        concurrency: int,
        left_out_percent: int,
    ) -> None:
        """Create the stage.

        `concurrency` is how many uploads are hashed at once. If `left_out_percent` of the uploads or more were not
        hashed completely, an alarm is raised.
        """
        super().__init__(scope, id)
        queue = WatchedQueue(
            self,
            "Uploads",
            stage=STAGE,
            function_timeout=TIMEOUT,
            oldest_message=OLDEST_MESSAGE,
            watch=shared.watch,
        )
        self.function = stage_function(
            self,
            STAGE,
            shared=shared,
            description="Hashes uploads and content that is posted to /h.",
            memory_mb=1769,
            timeout=TIMEOUT,
            is_heavy=True,
        )
        allow_objects(self.function, "s3:GetObject", "s3:GetObjectVersion", bucket=uploads)
        allow_items(self.function, *READ_ITEMS, table=banks, partitions=[RATIOS])
        allow_items(self.function, "dynamodb:GetItem", "dynamodb:PutItem", table=access, partitions=[f"{EVENTS}*"])
        allow(self.function, "events:PutEvents", on=[bus.event_bus_arn])
        # One upload per batch: if an upload crashes the function, or takes too long, no other upload is affected.
        queue.feed(self.function, batch_size=1, max_concurrency=concurrency)
        # S3 publishes its events on the account's default bus.
        queue.subscribe(
            "UploadRule",
            events.EventPattern(
                source=["aws.s3"],
                detail_type=["Object Created"],
                detail={"bucket": {"name": [uploads.bucket_name]}},
            ),
            description="Sends every new object of the upload bucket to be hashed.",
        )
        shared.watch.alarm(
            self,
            "LeftOutAlarm",
            metric=_share_left_out(shared.watch),
            threshold=left_out_percent,
            because=(
                "Some uploads were hashed in part, or not at all, so banked content may have been missed. The "
                "function's log says what was left out and why. The metrics UploadPartly, UploadUnhashable and "
                "UploadUnknown count them. Install missing packages, give uploads keys that state their type, or raise "
                "left_out_percent."
            ),
        )


def _share_left_out(watch: Watch) -> cloudwatch.MathExpression:
    """Return the percentage of uploads within an hour that were not hashed completely; 0 if they are only a few."""

    def metric(statistic: str) -> cloudwatch.Metric:
        return watch.metric("UploadLeftOut", stage=STAGE, statistic=statistic, period=HOUR)

    return cloudwatch.MathExpression(
        expression=f"IF(number >= {MIN_LEFT_OUT}, 100 * share, 0)",
        using_metrics={"number": metric(cloudwatch.Stats.SUM), "share": metric(cloudwatch.Stats.AVERAGE)},
        label="Uploads with something left out, in percent",
        period=HOUR,
    )
