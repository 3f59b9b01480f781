"""Compare a deployment with the limits of its account, before any resource is created.

The command reads quotas and counts, and changes nothing. For each resource that the account would refuse, it names the
knob that requests the resource, and says what to do. It also reports resources that are close to their limit, and
limits that it could not read.

Usage: python -m infra.preflight [--context countermark:KNOB=VALUE]... [--memory-mb MB]

Exit code: 0 if the account accepts the deployment, 1 if it does not, 2 if the command cannot decide.

Sources: AWS Lambda, "Lambda quotas", "Configuring reserved concurrency for a function" and GetAccountSettings; AWS CDK,
"AWS CDK bootstrapping"; Service Quotas, GetServiceQuota.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.deployment import PREFIX, Deployment
from infra.stages import curate, fetch, index

CDK_JSON: Final = Path(__file__).resolve().parent.parent / "cdk.json"

USUAL_CONCURRENCY: Final = 1_000
"""The number of concurrent executions in a usual account. An account with fewer also has a reduced memory quota."""

MIN_UNRESERVED: Final = 100
"""The concurrent executions that Lambda keeps for functions without a reservation. An account with fewer
than this number can reserve none."""

NEW_MEMORY_MB: Final = 3_008
"""The maximum memory of a function in a new account, in MB. No API reports this quota."""

LARGEST_MEMORY_MB: Final = 10_240
"""The maximum memory of a function in any account, in MB."""

BOOTSTRAP_PARAMETER: Final = "/cdk-bootstrap/hnb659fds/version"
MIN_BOOTSTRAP: Final = 6
"""The oldest bootstrap version that the templates accept. Their rule `CheckBootstrapVersion` checks it."""

STORAGE_NEEDS: Final[Mapping[str, int]] = {"S3 buckets": 3, "DynamoDB tables": 3}
"""The number of resources that the storage stack creates, by kind. Only kinds with a limit per account are listed."""

STACKS: Final = ("storage", "service")

MAX_PAGES: Final = 200
"""The maximum number of pages that are read from a list. It is enough for ten thousand functions."""

Read = TypeVar("Read")


class Session(Protocol):
    """The part of boto3's session that this module uses."""

    def client(self, service_name: Any, *, region_name: str | None = None) -> Any:
        """Return the client for a service."""


class AccountUnreadable(Exception):
    """The account cannot be read. The text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The number of resources of a kind in an account, and the quota; None if the quota is not reported."""

    used: int
    quota: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The limits and resources of an account in a region.

    `own_reserved` is the concurrency that the deployment's existing functions reserve. `largest_function_mb` is the
    memory of the largest existing function; 0 if the account has no function. `bootstrap` is the version of the CDK's
    bootstrap; None if the account is not bootstrapped. `present` contains the deployment's existing stacks. `unread`
    has the reason for each limit that could not be read, by the limit's name.
    """

    id: str
    region: str
    concurrent_executions: int
    unreserved: int
    own_reserved: int = 0
    largest_function_mb: int = 0
    bootstrap: int | None = None
    present: frozenset[str] = frozenset()
    counts: Mapping[str, Count] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report. Only a finding of kind `refused` prevents the deployment; `tight` and `unread` do not."""

    kind: Literal["refused", "tight", "unread"]
    text: str


def queue_concurrency(deployment: Deployment) -> Mapping[str, int]:
    """Return the number of concurrent executions that each queue can use, by the knob or stage that sets the number."""
    return {
        f"{PREFIX}hash_concurrency": deployment.hash_concurrency,
        f"{PREFIX}match_concurrency": deployment.match_concurrency,
        "fetches": fetch.CONCURRENCY,
        "builds of the index": index.BUILDERS,
        "purges": curate.PURGES,
        "opinions": curate.OPINION_SENDERS,
    }


def compare(deployment: Deployment, account: Account, *, memory_mb: int | None = None) -> list[Finding]:
    """Return the findings in the order of their kinds: `refused`, `tight`, `unread`.

    `memory_mb` is the maximum memory of a function in the account; None means that it is inferred.
    """
    refused = [
        *_memory(deployment, account, memory_mb),
        *_reservations(deployment, account),
        *_bootstrap(account),
        *_counts(account),
    ]
    return [
        *(Finding(kind="refused", text=text) for text in refused),
        *(Finding(kind="tight", text=text) for text in _executions(deployment, account)),
        *(Finding(kind="unread", text=f"{what}: {why}") for what, why in account.unread.items()),
    ]


def _memory(deployment: Deployment, account: Account, memory_mb: int | None) -> Iterator[str]:
    is_new = account.concurrent_executions < USUAL_CONCURRENCY and account.largest_function_mb <= NEW_MEMORY_MB
    limit_mb = memory_mb or (NEW_MEMORY_MB if is_new else LARGEST_MEMORY_MB)
    knobs = ["index_memory_mb", "match_memory_mb", *(["shard_memory_mb"] if deployment.shard_functions else [])]
    for knob in knobs:
        requested_mb = getattr(deployment, knob)
        if requested_mb > limit_mb:
            inferred = (
                ""
                if memory_mb
                else f" (inferred from its {account.concurrent_executions} concurrent executions; "
                f"if AWS has raised it, pass the new limit with --memory-mb)"
            )
            yield (
                f"{PREFIX}{knob}={requested_mb}: functions of this account have at most {limit_mb} MB{inferred}. "
                f"Set {PREFIX}{knob}={limit_mb} or less, or ask AWS Support to raise the memory of functions"
            )


def _reservations(deployment: Deployment, account: Account) -> Iterator[str]:
    wanted = deployment.shard_functions * deployment.shard_concurrency
    kept = min(MIN_UNRESERVED, account.concurrent_executions)
    available = max(0, account.unreserved + account.own_reserved - kept)
    if wanted > available:
        each = available // deployment.shard_functions
        fewer = (
            f"set {PREFIX}shard_concurrency={each} or less"
            if each
            else f"set {PREFIX}shards_per_function={deployment.shards}, so that the match function holds all shards"
        )
        needed = account.concurrent_executions + wanted - available
        if account.concurrent_executions < MIN_UNRESERVED:
            needed = MIN_UNRESERVED + wanted
        yield (
            f"{PREFIX}shard_concurrency={deployment.shard_concurrency}: {deployment.shard_functions} functions of "
            f"shards reserve {wanted} executions, but this account allows {available} to be reserved. "
            f"{fewer.capitalize()}, "
            f"or request {needed} concurrent executions under Service Quotas, AWS Lambda (L-B99A9384)"
        )


def _executions(deployment: Deployment, account: Account) -> Iterator[str]:
    # A deployment releases its existing reservations before it makes new ones.
    free = max(0, account.unreserved + account.own_reserved - deployment.shard_functions * deployment.shard_concurrency)
    queues = queue_concurrency(deployment)
    for name, requested in queues.items():
        if requested > free:
            yield (
                f"{name}={requested}: {free} concurrent executions are not reserved in this account, so messages "
                f"beyond that are throttled and wait in the queue. Set it to {max(2, free // 3)}, or request more"
            )
    if (together := sum(queues.values())) >= free:
        yield (
            f"all queues together can use {together} executions at once, but {free} are not reserved, and the "
            f"API needs some, too: under load its requests are throttled. Lower "
            f"{PREFIX}hash_concurrency and {PREFIX}match_concurrency, or request more concurrent executions under "
            f"Service Quotas, AWS Lambda (L-B99A9384)"
        )


def _bootstrap(account: Account) -> Iterator[str]:
    how = f"run npx aws-cdk@2 bootstrap aws://{account.id}/{account.region}"
    if "the CDK's bootstrap" in account.unread:
        return
    if account.bootstrap is None:
        yield f"this account is not bootstrapped for the CDK in {account.region}: {how}"
    elif account.bootstrap < MIN_BOOTSTRAP:
        yield f"the CDK's bootstrap has version {account.bootstrap}, but at least {MIN_BOOTSTRAP} is needed: {how}"


def _counts(account: Account) -> Iterator[str]:
    needs = {
        **({} if "storage" in account.present else STORAGE_NEEDS),
        "CloudFormation stacks": len(set(STACKS) - account.present),
    }
    for name, needed in needs.items():
        count = account.counts.get(name)
        if count is not None and count.quota is not None and count.used + needed > count.quota:
            yield (
                f"{needed} more {name}: this account has {count.used} of {count.quota}. "
                f"Delete some, or request an increase under Service Quotas"
            )


def read_account(session: Session, deployment: Deployment) -> Account:
    """Return the limits and resources of the account of a session's credentials, in the session's region.

    Raises:
        AccountUnreadable: The session has no credentials or no region, or cannot read Lambda's account settings.
    """
    unread: dict[str, str] = {}

    def read(what: str, call: Callable[[], Read]) -> Read | None:
        """Return the result of a call. If it fails, store the reason in `unread` and return None."""
        try:
            return call()
        except (ClientError, BotoCoreError) as error:
            unread[what] = _reason(error)
            return None

    try:
        identity = session.client("sts").get_caller_identity()
        functions = session.client("lambda")
        settings = functions.get_account_settings()["AccountLimit"]
    except (ClientError, BotoCoreError) as error:
        raise AccountUnreadable(
            f"the account cannot be read: {_reason(error)}. Set AWS credentials and a region, with the rights "
            f"sts:GetCallerIdentity and lambda:GetAccountSettings"
        ) from error
    existing = read("functions", lambda: list(_pages(functions, "list_functions", "Functions"))) or []
    own = [each["FunctionName"] for each in existing if each["FunctionName"].startswith(f"{deployment.name}-service-")]
    reserved = read(
        "reserved concurrency",
        lambda: sum(
            functions.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions", 0) for name in own
        ),
    )

    def counted(what: str, used: Callable[[], int], service: str, code: str) -> Count | None:
        # Buckets are counted across all regions, and only us-east-1 reports their quota.
        quotas = session.client("service-quotas", region_name="us-east-1" if service == "s3" else None)
        return read(what, lambda: Count(used=used(), quota=_quota(quotas, service, code)))

    s3, tables, stacks = session.client("s3"), session.client("dynamodb"), session.client("cloudformation")
    counts = {
        "S3 buckets": counted("S3 buckets", lambda: len(s3.list_buckets()["Buckets"]), "s3", "L-DC2B2D3D"),
        "DynamoDB tables": counted(
            "DynamoDB tables",
            lambda: sum(1 for _ in _pages(tables, "list_tables", "TableNames")),
            "dynamodb",
            "L-F98FE922",
        ),
        "CloudFormation stacks": counted(
            "CloudFormation stacks",
            lambda: sum(1 for _ in _pages(stacks, "describe_stacks", "Stacks")),
            "cloudformation",
            "L-0485CB21",
        ),
    }
    return Account(
        id=str(identity["Account"]),
        region=str(functions.meta.region_name),
        concurrent_executions=int(settings["ConcurrentExecutions"]),
        unreserved=int(settings["UnreservedConcurrentExecutions"]),
        own_reserved=reserved or 0,
        largest_function_mb=max((int(each["MemorySize"]) for each in existing), default=0),
        bootstrap=read("the CDK's bootstrap", lambda: _bootstrap_version(session.client("ssm"))),
        present=frozenset(
            stack
            for stack in STACKS
            if read(f"the stack {deployment.name}-{stack}", lambda: _stack_exists(stacks, f"{deployment.name}-{stack}"))  # noqa: B023 - called immediately
        ),
        counts={name: count for name, count in counts.items() if count is not None},
        unread=unread,
    )


def _quota(quotas: Any, service: str, code: str) -> int | None:
    """Return a quota of the account, or AWS's default if the account's quota was never changed."""
    try:
        quota = quotas.get_service_quota(ServiceCode=service, QuotaCode=code)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchResourceException":
            raise
        quota = quotas.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)
    value = quota["Quota"].get("Value")
    return None if value is None else int(value)


def _pages(client: Any, operation: str, key: str) -> Iterator[Any]:
    for number, page in enumerate(client.get_paginator(operation).paginate()):
        if number >= MAX_PAGES:
            return
        yield from page[key]


def _bootstrap_version(ssm: Any) -> int | None:
    try:
        return int(ssm.get_parameter(Name=BOOTSTRAP_PARAMETER)["Parameter"]["Value"])
    except ClientError as error:
        if error.response["Error"]["Code"] == "ParameterNotFound":
            return None
        raise


def _stack_exists(cloudformation: Any, stack: str) -> bool:
    try:
        return bool(cloudformation.describe_stacks(StackName=stack)["Stacks"])
    except ClientError as error:
        # All wrong parameters have this error code. Only the text shows that the stack does not exist.
        if error.response["Error"]["Code"] == "ValidationError" and "does not exist" in str(error):
            return False
        raise


def _reason(error: ClientError | BotoCoreError) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "an error without a code"))
    return str(error)


def context_of(given: Iterable[str], environ: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the context that the CDK would use: cdk.json's, then `CDK_CONTEXT_JSON`, then the pairs `NAME=VALUE`.

    Raises:
        ValueError: An item of `given` is not of the form `NAME=VALUE`.
    """
    context: dict[str, Any] = dict(json.loads(CDK_JSON.read_text(encoding="utf-8"))["context"])
    context |= json.loads(environ.get("CDK_CONTEXT_JSON") or "{}")
    for pair in given:
        name, separator, value = pair.partition("=")
        if not separator:
            raise ValueError(f"--context needs NAME=VALUE, not {pair!r}")
        context[name] = value
    return context


def main(arguments: Sequence[str] | None = None, *, session: Session | None = None) -> int:
    """Compare the deployment with the account, print the findings, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.preflight", description="Compare a deployment with its account's quotas; changes nothing."
    )
    parser.add_argument("-c", "--context", action="append", default=[], metavar="countermark:KNOB=VALUE")
    parser.add_argument(
        "--memory-mb", type=int, help="the memory limit of functions in the account, in MB; inferred by default"
    )
    given = parser.parse_args(arguments)
    try:
        deployment = Deployment.from_context(context_of(given.context, os.environ))
        account = read_account(session or boto3.Session(), deployment)
    except (ValueError, AccountUnreadable, BotoCoreError) as error:
        sys.stderr.write(f"preflight: {error}\n")
        return 2
    findings = compare(deployment, account, memory_mb=given.memory_mb)
    for finding in findings:
        sys.stdout.write(f"{finding.kind}: {finding.text}.\n")
    is_refused = any(finding.kind == "refused" for finding in findings)
    verdict = "refuses" if is_refused else "accepts"
    sys.stdout.write(f"Account {account.id} {verdict} {deployment.name!r} in {account.region}.\n")
    return int(is_refused)


if __name__ == "__main__":
    sys.exit(main())
