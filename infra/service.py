"""The service stack: functions, queues, schedules, alarms and the HTTP API. It uses the storage stack's resources."""

from collections.abc import Mapping

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from constructs import Construct

from countermark.aws.settings import Settings
from infra.api import Api
from infra.deployment import Deployment
from infra.function import ARCHITECTURE, ROOT, RUNTIME, Layers, SharedResources
from infra.stages.authorize import AuthorizeStage
from infra.stages.curate import CurateStage
from infra.stages.fetch import FetchStage
from infra.stages.forward import ForwardStage
from infra.stages.hash import HashStage
from infra.stages.index import IndexStage
from infra.stages.match import MatchStage
from infra.storage import StorageStack
from infra.watch import Watch

LAYERS = ROOT / "build" / "layers"


class ServiceStack(Stack):
    """The resources of a deployment that can be deleted and created again without loss of data."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        storage: StorageStack,
        deployment: Deployment,
    ) -> None:
        """Create the stack. `storage` is the storage stack of the same deployment."""
        super().__init__(scope, id, description="countermark: functions, queues, schedules, alarms and the HTTP API.")
        bus = events.EventBus(self, "Bus", description="ContentHashed, MatchFound, BankChanged and OpinionGiven.")
        # countermark's own extensions are in the layer `countermark`. Other modules need the layer `extensions`.
        has_other_modules = any(not module.startswith("countermark.") for module in deployment.extensions)
        shared = SharedResources(
            layers=_layers(self, has_extensions=has_other_modules),
            environment=_environment(storage, bus, deployment),
            log_retention=logs.RetentionDays.THREE_MONTHS,
            watch=Watch(deployment=deployment.name, topic=_topic(self, deployment.alarm_topic_arn)),
        )
        fetch = FetchStage(
            self,
            "Fetch",
            shared=shared,
            banks=storage.banks,
            exchanges=storage.exchanges,
            credentials=storage.credentials,
            content_buckets=[
                s3.Bucket.from_bucket_name(self, f"Content{number}", name)
                for number, name in enumerate(deployment.content_buckets)
            ],
            bus=bus,
            every=deployment.fetch_every,
            oldest_fetch=deployment.oldest_fetch,
        )
        IndexStage(
            self,
            "Index",
            shared=shared,
            banks=storage.banks,
            index=storage.index,
            bus=bus,
            every=deployment.index_every,
            repair_every=deployment.repair_every,
            memory_mb=deployment.index_memory_mb,
            shards=deployment.shards,
        )
        hash_stage = HashStage(
            self,
            "Hash",
            shared=shared,
            uploads=storage.uploads,
            banks=storage.banks,
            access=storage.access,
            bus=bus,
            concurrency=deployment.hash_concurrency,
            left_out_percent=deployment.left_out_percent,
        )
        match_stage = MatchStage(
            self,
            "Match",
            shared=shared,
            banks=storage.banks,
            access=storage.access,
            index=storage.index,
            uploads=storage.uploads,
            bus=bus,
            deployment=deployment,
        )
        curate = CurateStage(
            self,
            "Curate",
            shared=shared,
            banks=storage.banks,
            exchanges=storage.exchanges,
            access=storage.access,
            credentials=storage.credentials,
            index=storage.index,
            fetch_queue=fetch.queue.queue,
            bus=bus,
        )
        forward = ForwardStage(
            self,
            "Forward",
            shared=shared,
            functions={
                "hash": hash_stage.function,
                "match": match_stage.function,
                "status": match_stage.function,
                "curate": curate.function,
            },
        )
        authorize = AuthorizeStage(self, "Authorize", shared=shared, access=storage.access)
        api = Api(
            self,
            "Api",
            name=deployment.name,
            authorize=authorize.function,
            hash=hash_stage.function,
            match=match_stage.function,
            curate=curate.function,
            forward=forward.function,
            cors_origins=deployment.cors_origins,
            requests_per_second=deployment.requests_per_second,
            burst_requests=deployment.burst_requests,
            log_retention=shared.log_retention,
            watch=shared.watch,
        )
        CfnOutput(self, "ApiUrl", value=api.url, description="The base URL of the HTTP API.")
        CfnOutput(self, "BusName", value=bus.event_bus_name, description="The event bus: subscribe to MatchFound.")


def _layers(scope: Construct, *, has_extensions: bool) -> Layers:
    """Return the layers that `layers/build.py` built.

    Raises:
        ValueError: The deployment has extensions that need a layer, and that layer was not built.
    """
    if has_extensions and not (LAYERS / "extensions").is_dir():
        raise ValueError(
            "countermark:extensions names modules, but layers/extensions contains none: see docs/extensions.md"
        )

    def layer(name: str, description: str) -> lambda_.LayerVersion:
        return lambda_.LayerVersion(
            scope,
            f"{name.capitalize()}Layer",
            code=lambda_.Code.from_asset(str(LAYERS / name)),
            compatible_runtimes=[RUNTIME],
            compatible_architectures=[ARCHITECTURE],
            description=description,
        )

    return Layers(
        light=layer("light", "Packages that every function needs."),
        heavy=layer("heavy", "Packages for functions that hash or search."),
        countermark=layer("countermark", "The package countermark."),
        extensions=layer("extensions", "Extensions and the packages that they need.") if has_extensions else None,
    )


def _environment(storage: StorageStack, bus: events.IEventBus, deployment: Deployment) -> Mapping[str, str]:
    return Settings(
        banks_table=storage.banks.table_name,
        exchanges_table=storage.exchanges.table_name,
        access_table=storage.access.table_name,
        index_bucket=storage.index.bucket_name,
        upload_bucket=storage.uploads.bucket_name,
        event_bus=bus.event_bus_name,
        credentials_secret=storage.credentials.secret_arn,
        deployment=deployment.name,
        content_buckets=deployment.content_buckets,
        extensions=deployment.extensions,
    ).to_environ()


def _topic(scope: Construct, arn: str | None) -> sns.ITopic | None:
    return None if arn is None else sns.Topic.from_topic_arn(scope, "AlarmTopic", arn)
