"""The defaults of a Lambda function: runtime, role, log and tracing. Each stage sets the properties that differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aws_cdk import Acknowledgment, Duration, IgnoreMode, RemovalPolicy, Validations
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.grants import allow
from infra.watch import METRICS_NAMESPACE, MINUTES_5, Watch

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = lambda_.Runtime.PYTHON_3_13
ARCHITECTURE = lambda_.Architecture.X86_64
EXCLUDED_FILES = ("/*", "!/lambdas", "__pycache__")
"""The files to exclude from the functions' code. Only the package `lambdas` remains, under the same name."""


MANY_ERRORS = 5
"""The number of failed invocations within five minutes that raises an alarm. Fewer usually succeed when retried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The built layers. Only a function that hashes, searches or builds needs the heavy layer.

    `extensions` is set if the deployment has extensions with a layer. Extensions may need any package. So a function
    with the layer of extensions also has the heavy layer.
    """

    light: lambda_.ILayerVersion
    heavy: lambda_.ILayerVersion
    countermark: lambda_.ILayerVersion
    extensions: lambda_.ILayerVersion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedResources:
    """The layers, environment, log retention and alarms that all functions of a deployment share.

    `environment` has the names of resources, in the variables that `countermark.aws.settings` reads.
    """

    layers: Layers
    environment: Mapping[str, str]
    log_retention: logs.RetentionDays
    watch: Watch


def stage_function(
    scope: Construct,
    stage: str,
    *,
    shared: SharedResources,
    description: str,
    memory_mb: int,
    timeout: Duration,
    is_heavy: bool = False,
    uses_signal_types: bool = True,
    entry: str = "handler",
    environment: Mapping[str, str] | None = None,
    reserved_concurrency: int | None = None,
    may_loop: bool = False,
) -> lambda_.Function:
    """Create a function of a stage from `lambdas/<stage>/<entry>.py`. It is only allowed to write its log and traces.

    Lambda's processing power is proportional to the memory: a whole core at 1,769 MB. A function that
    `uses_signal_types` gets the layer of extensions, if the deployment has one.

    Set `may_loop` for a function that sends its remaining work to its own queue. Without it, Lambda stops the loop
    after about 16 such messages, and the next message becomes a dead letter. `may_loop` turns this protection off. So
    each message must make progress, or send no further message.
    Source: AWS Lambda, "Use Lambda recursive loop detection to prevent infinite loops".
    """
    layers = shared.layers
    extensions = [layers.extensions] if layers.extensions is not None and uses_signal_types else []
    heavy = [layers.heavy] if is_heavy or extensions else []
    log_group = logs.LogGroup(scope, "Log", retention=shared.log_retention, removal_policy=RemovalPolicy.DESTROY)
    function = lambda_.Function(
        scope,
        "Function",
        description=description,
        code=lambda_.Code.from_asset(str(ROOT), exclude=list(EXCLUDED_FILES), ignore_mode=IgnoreMode.GIT),
        handler=f"lambdas.{stage}.{entry}.handler",
        runtime=RUNTIME,
        architecture=ARCHITECTURE,
        layers=[layers.light, *heavy, *extensions, layers.countermark],
        memory_size=memory_mb,
        timeout=timeout,
        reserved_concurrent_executions=reserved_concurrency,
        recursive_loop=lambda_.RecursiveLoop.ALLOW if may_loop else None,
        role=iam.Role(scope, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")),
        log_group=log_group,
        logging_format=lambda_.LoggingFormat.JSON,
        tracing=lambda_.Tracing.ACTIVE,
        environment={
            **shared.environment,
            **(environment or {}),
            "POWERTOOLS_SERVICE_NAME": stage,
            "POWERTOOLS_METRICS_NAMESPACE": METRICS_NAMESPACE,
            "POWERTOOLS_LOG_LEVEL": "INFO",
        },
    )
    # CDK's ARN of the log group ends in ":*". This allows the streams of this group only.
    allow(function, "logs:CreateLogStream", "logs:PutLogEvents", on=[log_group.log_group_arn])
    _acknowledge(function)
    name = f"The {stage} function" if entry == "handler" else f"A function of the {stage} stage ({entry})"
    shared.watch.alarm(
        scope,
        "ErrorsAlarm",
        metric=function.metric_errors(period=MINUTES_5, statistic=cloudwatch.Stats.SUM),
        threshold=MANY_ERRORS,
        because=f"{name} fails repeatedly. Its log contains the errors.",
    )
    return function


def _acknowledge(function: lambda_.Function) -> None:
    Validations.of(function).acknowledge(
        Acknowledgment(
            id="AwsSolutions-L1",
            reason="The layers contain code compiled for CPython 3.13, so a newer runtime needs new layers.",
        )
    )
    if function.role is not None:
        Validations.of(function.role).acknowledge(
            Acknowledgment(
                id="AwsSolutions-IAM5[Resource::*]",
                reason="X-Ray's PutTraceSegments and PutTelemetryRecords do not support resources other than *.",
            )
        )
