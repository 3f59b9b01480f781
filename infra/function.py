"""The defaults of a Lambda function: runtime, role, log, tracing. What differs is its stage's to say."""

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
ALL_BUT_LAMBDAS = ("/*", "!/lambdas", "__pycache__")
"""What is left out of the functions' code: it is imported by the same names on Lambda as here."""


MANY_ERRORS = 5
"""Failed invocations within five minutes that raise an alarm: fewer are tried again, and pass by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The layers as built. Only a function that hashes, searches or builds needs the heavy one.

    `extensions` is there where the deployment names some: they may need anything, so it comes with the heavy one.
    """

    light: lambda_.ILayerVersion
    heavy: lambda_.ILayerVersion
    countermark: lambda_.ILayerVersion
    extensions: lambda_.ILayerVersion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all functions of a deployment share.

    `environment` names the resources, by the names that the package's settings read.
    """

    layers: Layers
    environment: Mapping[str, str]
    log_retention: logs.RetentionDays
    watch: Watch


def stage_function(
    scope: Construct,
    stage: str,
    *,
    surroundings: Surroundings,
    description: str,
    memory_mb: int,
    timeout: Duration,
    is_heavy: bool = False,
    knows_signals: bool = True,
    entry: str = "handler",
    environment: Mapping[str, str] | None = None,
    reserved_concurrency: int | None = None,
    may_loop: bool = False,
) -> lambda_.Function:
    """Make a function of a stage from `lambdas/<stage>/<entry>.py`; it may write its log and traces, no more.

    Lambda gives a function processing power by its memory: a whole core at 1,769 MB. One that `knows_signals` carries
    the extensions, where there are any.

    `may_loop` is for a function that sends what is left to do to a queue of its own. Without it, Lambda ends such a
    chain after about 16 messages, and the next one becomes a dead letter. It takes that guard away, so each message of
    the chain must get something done, or end the chain.
    Source: AWS Lambda, "Use Lambda recursive loop detection to prevent infinite loops".
    """
    layers = surroundings.layers
    extensions = [layers.extensions] if layers.extensions is not None and knows_signals else []
    heavy = [layers.heavy] if is_heavy or extensions else []
    log_group = logs.LogGroup(scope, "Log", retention=surroundings.log_retention, removal_policy=RemovalPolicy.DESTROY)
    function = lambda_.Function(
        scope,
        "Function",
        description=description,
        code=lambda_.Code.from_asset(str(ROOT), exclude=list(ALL_BUT_LAMBDAS), ignore_mode=IgnoreMode.GIT),
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
            **surroundings.environment,
            **(environment or {}),
            "POWERTOOLS_SERVICE_NAME": stage,
            "POWERTOOLS_METRICS_NAMESPACE": METRICS_NAMESPACE,
            "POWERTOOLS_LOG_LEVEL": "INFO",
        },
    )
    # The ARN that the template gives ends in ":*": the streams of this group, and no other.
    allow(function, "logs:CreateLogStream", "logs:PutLogEvents", on=[log_group.log_group_arn])
    _acknowledge(function)
    name = f"The {stage} function" if entry == "handler" else f"A function of the {stage} stage ({entry})"
    surroundings.watch.alarm(
        scope,
        "ErrorsAlarm",
        metric=function.metric_errors(period=MINUTES_5, statistic=cloudwatch.Stats.SUM),
        threshold=MANY_ERRORS,
        because=f"{name} fails again and again. Its log says why.",
    )
    return function


def _acknowledge(function: lambda_.Function) -> None:
    Validations.of(function).acknowledge(
        Acknowledgment(
            id="AwsSolutions-L1",
            reason="The layers hold compiled code for CPython 3.13: the runtime moves when they do.",
        )
    )
    if function.role is not None:
        Validations.of(function.role).acknowledge(
            Acknowledgment(
                id="AwsSolutions-IAM5[Resource::*]",
                reason="X-Ray's PutTraceSegments and PutTelemetryRecords know no resources: they take * alone.",
            )
        )
