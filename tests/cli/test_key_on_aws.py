"""`countermark key --table`: how an operator makes the first key of a deployment."""

from pathlib import Path

import boto3
import pytest

from countermark.aws.api_keys import DynamoApiKeyStore
from countermark.domain.api_key import Role, digest
from tests.aws.deployed import Deployed
from tests.cli.conftest import CommandLine


@pytest.fixture
def table(deployment: Deployed) -> str:
    return deployment.settings.access_table


def test_a_deployments_key_is_made_listed_and_deleted(
    countermark: CommandLine, deployment: Deployed, table: str
) -> None:
    key = countermark.ok("key", "--table", table, "create", "ops", "--role", "admin").out.strip()
    stored = DynamoApiKeyStore(deployment.clients.dynamodb, table).find_key(digest(key))
    assert stored is not None
    assert (stored.name, stored.roles) == ("ops", frozenset({Role.ADMIN}))
    assert countermark.ok("key", "--table", table, "list").out.startswith("ops admin ")
    again = countermark("key", "--table", table, "create", "ops", "--role", "match")
    assert (again.code, again.out, "there is a key 'ops'" in again.err) == (2, "", True)
    assert countermark.ok("key", "list").out == ""
    countermark.ok("key", "--table", table, "delete", "ops")
    assert countermark.ok("key", "--table", table, "list").out == ""


def test_a_table_that_is_not_there_is_the_users_mistake(countermark: CommandLine, deployment: Deployed) -> None:
    del deployment
    ran = countermark("key", "--table", "nosuch", "list")
    assert (ran.code, ran.out) == (2, "")
    assert "AWS refused the request: ResourceNotFoundException" in ran.err


def test_without_credentials_or_a_region_it_says_what_to_set(
    countermark: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials, as no new process would
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    ran = countermark("key", "--table", "Access", "list")
    assert (ran.code, "there are no AWS credentials" in ran.err) == (2, True)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION", raising=False)
    ran = countermark("key", "--table", "Access", "list")
    assert (ran.code, "there is no AWS region" in ran.err) == (2, True)
