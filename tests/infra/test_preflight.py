"""The preflight: what a new account refuses is named by its knob before anything is made; moto is the account."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from moto import mock_aws

from infra import preflight
from infra.deployment import Deployment
from infra.preflight import Account, Count, compare, queue_concurrency
from tests.infra.template import named

REGION = "eu-west-1"
NEW = Account(id="123456789012", region=REGION, concurrent_executions=10, unreserved=10, bootstrap=30)
OLD = replace(NEW, concurrent_executions=1_000, unreserved=1_000)
SHARDS_CONTEXT = {"countermark:shards": 4, "countermark:shards_per_function": 2, "countermark:shard_memory_mb": 3_008}
SHARDS = Deployment.from_context(SHARDS_CONTEXT)


def refused(deployment: Deployment, account: Account, **given: Any) -> list[str]:
    return [each.text for each in compare(deployment, account, **given) if each.kind == "refused"]


def test_the_defaults_fit_a_new_account_and_one_is_told_that_it_is_tight() -> None:
    found = compare(Deployment(), NEW)
    assert {each.kind for each in found} == {"tight"}
    assert [each.text.partition("=")[0] for each in found][:2] == [
        "countermark:hash_concurrency",
        "countermark:match_concurrency",
    ]


def test_the_defaults_fit_an_old_account_without_a_word() -> None:
    assert compare(Deployment(), OLD) == []


@pytest.mark.parametrize("knob", ["index_memory_mb", "match_memory_mb", "shard_memory_mb"])
@pytest.mark.parametrize("memory_mb", [3_009, 4_096, 10_240])
def test_memory_that_a_new_account_refuses_is_named_by_its_knob(knob: str, memory_mb: int) -> None:
    asked = Deployment.from_context({**SHARDS_CONTEXT, f"countermark:{knob}": memory_mb})
    roomy = replace(NEW, concurrent_executions=999, unreserved=999)
    [text] = refused(asked, roomy)
    assert text.startswith(f"countermark:{knob}={memory_mb}: ")
    assert f"Set countermark:{knob}=3008" in text
    assert refused(asked, OLD) == []
    # Somebody knows better, or a function that is there shows it.
    assert refused(asked, roomy, memory_mb=10_240) == []
    assert refused(asked, replace(roomy, largest_function_mb=memory_mb)) == []


def test_memory_of_shards_counts_only_where_functions_hold_them() -> None:
    assert refused(Deployment(shard_memory_mb=10_240), NEW) == []


@pytest.mark.parametrize(
    ("concurrent", "unreserved", "own", "may"),
    [(10, 10, 0, 0), (99, 99, 0, 0), (100, 100, 0, 0), (139, 139, 0, 39), (140, 140, 0, 40), (1_000, 139, 0, 39)],
)
def test_reservations_that_do_not_fit_are_named(concurrent: int, unreserved: int, own: int, may: int) -> None:
    account = replace(NEW, concurrent_executions=concurrent, unreserved=unreserved, own_reserved=own)
    found = refused(SHARDS, account)
    assert bool(found) == (may < 40)
    if found:
        [text] = found
        assert text.startswith("countermark:shard_concurrency=20: 2 functions of shards reserve 40 executions")
        assert f"allows {may} to be reserved" in text
        assert "request" in text
        assert ("shard_concurrency=19" in text) == (may == 39)


def test_what_a_deployment_reserves_already_is_its_own_to_reserve_again() -> None:
    account = replace(NEW, concurrent_executions=140, unreserved=100, own_reserved=40)
    assert refused(SHARDS, account) == []
    assert refused(replace(SHARDS, shard_concurrency=21), account) != []


@pytest.mark.parametrize(("bootstrap", "word"), [(None, "not bootstrapped"), (5, "version 5"), (6, None)])
def test_an_account_without_a_recent_bootstrap_is_told_how_to_get_one(bootstrap: int | None, word: str | None) -> None:
    found = refused(Deployment(), replace(NEW, bootstrap=bootstrap))
    assert bool(found) == (word is not None)
    if word is not None:
        assert word in found[0]
        assert f"npx aws-cdk@2 bootstrap aws://123456789012/{REGION}" in found[0]


@pytest.mark.parametrize("what", ["S3 buckets", "DynamoDB tables", "CloudFormation stacks"])
def test_what_an_account_has_no_room_for_is_named_unless_it_is_there_already(what: str) -> None:
    needed = {"CloudFormation stacks": 2}.get(what, 3)
    full = replace(OLD, counts={what: Count(used=10, quota=9 + needed)})
    [text] = refused(Deployment(), full)
    assert text.startswith(f"{needed} more {what}: this account has 10 of {9 + needed}")
    assert refused(Deployment(), replace(full, present=frozenset({"storage", "service"}))) == []
    assert refused(Deployment(), replace(full, counts={what: Count(used=10, quota=10 + needed)})) == []
    assert refused(Deployment(), replace(full, counts={what: Count(used=10, quota=None)})) == []


def test_what_the_preflight_counts_is_what_the_templates_ask_for(templates: Mapping[str, Mapping[str, Any]]) -> None:
    feeds = [each for _, each in named(templates["service"], "AWS::Lambda::EventSourceMapping")]
    asked = sorted(each["ScalingConfig"]["MaximumConcurrency"] for each in feeds)
    assert asked == sorted(queue_concurrency(Deployment()).values())
    made = {
        "S3 buckets": len(list(named(templates["storage"], "AWS::S3::Bucket"))),
        "DynamoDB tables": len(list(named(templates["storage"], "AWS::DynamoDB::Table"))),
    }
    assert made == preflight.STORAGE_NEEDS
    assert templates.keys() == set(preflight.STACKS)
    [allowed] = templates["storage"]["Rules"]["CheckBootstrapVersion"]["Assertions"]
    too_old = allowed["Assert"]["Fn::Not"][0]["Fn::Contains"][0]
    assert max(map(int, too_old)) + 1 == preflight.MIN_BOOTSTRAP


class Answered:
    """A session of moto, which lacks two APIs: these are answered here, with the shapes that botocore checks."""

    def __init__(self, *, concurrent: int, unreserved: int | None = None) -> None:
        self._session = boto3.Session(region_name=REGION, aws_access_key_id="made-up", aws_secret_access_key="made-up")
        self._limits = {
            "ConcurrentExecutions": concurrent,
            "UnreservedConcurrentExecutions": concurrent if unreserved is None else unreserved,
        }

    def client(self, service_name: Any, *, region_name: str | None = None) -> Any:
        client = self._session.client(service_name, region_name=region_name)
        answers = {
            "lambda.GetAccountSettings": {"AccountLimit": self._limits, "AccountUsage": {}},
            "service-quotas.GetServiceQuota": {"Quota": {"Value": 2_500.0}},
        }
        for operation, answer in answers.items():
            client.meta.events.register_first(f"before-send.{operation}", _answer(answer))
        return client


def _answer(body: Any) -> Any:
    class Raw:
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield json.dumps(body).encode()

    def answer(request: Any, **_: Any) -> AWSResponse:
        return AWSResponse(request.url, 200, HTTPHeaders(), Raw())

    return answer


@pytest.fixture
def bootstrapped() -> Iterator[None]:
    with mock_aws():
        ssm = boto3.client("ssm", REGION, aws_access_key_id="made-up", aws_secret_access_key="made-up")
        ssm.put_parameter(Name=preflight.BOOTSTRAP_PARAMETER, Value="30", Type="String")
        yield


@pytest.mark.usefixtures("bootstrapped")
def test_a_new_account_takes_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight.main([], session=Answered(concurrent=10)) == 0
    out = capsys.readouterr().out
    assert "refused" not in out
    assert "unread" not in out
    assert "tight: countermark:hash_concurrency=20: 10 concurrent executions" in out
    assert out.endswith("Account 123456789012 accepts 'countermark' in eu-west-1.\n")


@pytest.mark.usefixtures("bootstrapped")
def test_every_knob_that_does_not_fit_is_named_and_the_exit_code_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    knobs = {"index_memory_mb": 4_096, "match_memory_mb": 10_240, "shards": 4, "name": "second"}
    given = [part for knob, value in knobs.items() for part in ("--context", f"countermark:{knob}={value}")]
    assert preflight.main(given, session=Answered(concurrent=10)) == 1
    out = capsys.readouterr().out
    for knob in ("index_memory_mb=4096", "match_memory_mb=10240", "shard_memory_mb=10240", "shard_concurrency=20"):
        assert f"refused: countermark:{knob}: " in out
    assert out.endswith("Account 123456789012 refuses 'second' in eu-west-1.\n")


def test_an_account_that_is_not_bootstrapped_is_refused_and_nothing_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    with mock_aws():
        assert preflight.main([], session=Answered(concurrent=1_000)) == 1
        client = boto3.client("s3", REGION, aws_access_key_id="made-up", aws_secret_access_key="made-up")
        assert client.list_buckets()["Buckets"] == []
    assert "refused: this account is not bootstrapped" in capsys.readouterr().out


@pytest.mark.parametrize("given", [["--context", "countermark:upload_day=7"], ["--context", "countermark:upload_days"]])
def test_a_wrong_knob_is_refused_by_name(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight.main(given, session=Answered(concurrent=10)) == 2
    assert "countermark:upload_day" in capsys.readouterr().err


def test_without_credentials_one_is_told_to_set_some(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert preflight.main([], session=boto3.Session(region_name=REGION)) == 2
    assert "Set AWS credentials" in capsys.readouterr().err
