"""What the storage stack promises: nothing is lost, nothing is public, nothing stays longer than it must."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from infra.deployment import Deployment

Template: TypeAlias = Mapping[str, Any]

STATEFUL = {"AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SecretsManager::Secret"}


@pytest.fixture(scope="session")
def storage(templates: Mapping[str, Template]) -> Template:
    return templates["storage"]


def resources(template: Template, kind: str) -> dict[str, Template]:
    """Return the properties of all resources of a kind, by logical id without its hash."""
    return {
        logical_id[:-8]: resource.get("Properties", {})
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def buckets(template: Template) -> dict[str, Template]:
    return resources(template, "AWS::S3::Bucket")


def test_the_stack_holds_state_and_what_guards_it_and_nothing_else(storage: Template) -> None:
    kinds = {resource["Type"] for resource in storage["Resources"].values()}
    assert kinds - {"AWS::CDK::Metadata"} == STATEFUL | {"AWS::S3::BucketPolicy"}
    assert resources(storage, "AWS::DynamoDB::Table").keys() == {"Banks", "Exchanges", "Access"}
    assert buckets(storage).keys() == {"Index", "Uploads", "AccessLogs"}


def test_all_state_is_kept_when_the_stack_goes(storage: Template) -> None:
    for logical_id, resource in storage["Resources"].items():
        if resource["Type"] in STATEFUL:
            assert resource["DeletionPolicy"] == "Retain", logical_id
            assert resource["UpdateReplacePolicy"] == "Retain", logical_id


def test_tables_can_be_put_back_to_any_second_and_are_not_deleted_by_mistake(storage: Template) -> None:
    for name, table in resources(storage, "AWS::DynamoDB::Table").items():
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}, name
        assert table["DeletionProtectionEnabled"] is True, name
        assert table["BillingMode"] == "PAY_PER_REQUEST", name


def test_tables_are_as_the_key_table_draws_them(storage: Template) -> None:
    tables = resources(storage, "AWS::DynamoDB::Table")
    for table in tables.values():
        assert _keys(table) == ["pk", "sk"]
    indexes = {index["IndexName"]: index for index in tables["Banks"]["GlobalSecondaryIndexes"]}
    assert {(name, *_keys(index)) for name, index in indexes.items()} == {
        ("feed", "feed_shard", "feed_at"),
        ("by-bank", "bank_shard", "content_id"),
    }
    assert all(index["Projection"] == {"ProjectionType": "KEYS_ONLY"} for index in indexes.values())
    assert {"AttributeName": "content_id", "AttributeType": "N"} in tables["Banks"]["AttributeDefinitions"]


def _keys(of: Template) -> list[str]:
    by_type = {key["KeyType"]: key["AttributeName"] for key in of["KeySchema"]}
    return [by_type["HASH"], by_type["RANGE"]]


def test_what_expires_is_removed_and_records_never_are(storage: Template) -> None:
    tables = resources(storage, "AWS::DynamoDB::Table")
    ttl = {"AttributeName": "expires_at", "Enabled": True}
    assert {name: table.get("TimeToLiveSpecification") for name, table in tables.items()} == {
        "Banks": ttl,
        "Access": ttl,
        "Exchanges": None,
    }


def test_no_bucket_is_public_and_all_are_encrypted(storage: Template) -> None:
    for name, bucket in buckets(storage).items():
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}, name
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4, name
        assert "BucketEncryption" in bucket, name
        assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}, name


def test_every_bucket_refuses_what_does_not_come_by_tls(storage: Template) -> None:
    refusing = set()
    for policy in resources(storage, "AWS::S3::BucketPolicy").values():
        for statement in policy["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}:
                assert statement["Action"] == "s3:*"
                refusing.add(policy["Bucket"]["Ref"][:-8])
    assert refusing == buckets(storage).keys()


def test_index_and_uploads_keep_versions_for_a_while_and_log_their_use(storage: Template) -> None:
    for name in ("Index", "Uploads"):
        bucket = buckets(storage)[name]
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
        assert bucket["LoggingConfiguration"]["DestinationBucketName"]["Ref"].startswith("AccessLogs")
        (rule,) = bucket["LifecycleConfiguration"]["Rules"]
        assert rule["Status"] == "Enabled"
        assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
        assert "NoncurrentVersionExpiration" in rule


def test_uploads_go_after_their_time_and_the_current_index_never(storage: Template) -> None:
    (uploads,) = buckets(storage)["Uploads"]["LifecycleConfiguration"]["Rules"]
    (index,) = buckets(storage)["Index"]["LifecycleConfiguration"]["Rules"]
    (logs,) = buckets(storage)["AccessLogs"]["LifecycleConfiguration"]["Rules"]
    assert uploads["ExpirationInDays"] == Deployment().upload_days
    assert "ExpirationInDays" not in index
    assert index["NoncurrentVersionExpiration"] == {"NoncurrentDays": Deployment().superseded_days}
    assert logs["ExpirationInDays"] == Deployment().access_log_days


def test_uploads_are_told_of_without_a_function_that_sets_it_up(storage: Template) -> None:
    telling = [name for name, bucket in buckets(storage).items() if "NotificationConfiguration" in bucket]
    assert telling == ["Uploads"]
    assert buckets(storage)["Uploads"]["NotificationConfiguration"] == {
        "EventBridgeConfiguration": {"EventBridgeEnabled": True}
    }


def test_the_template_holds_no_secret(storage: Template) -> None:
    (secret,) = resources(storage, "AWS::SecretsManager::Secret").values()
    assert json.loads(secret["SecretString"]) == {}


def test_no_page_may_post_uploads_unless_its_origin_is_named(storage: Template) -> None:
    assert "CorsConfiguration" not in buckets(storage)["Uploads"]


def test_the_checks_of_aws_solutions_find_nothing(cloud_assembly: Path) -> None:
    report = json.loads((cloud_assembly / "validation-report.json").read_text())
    violations = [violation for plugin in report["pluginReports"] for violation in plugin["violations"]]
    assert violations == []


def test_cfn_lint_finds_nothing(cloud_assembly: Path) -> None:
    # W3005 asks for no dependency that Ref implies: the CDK writes both.
    templates = sorted(map(str, cloud_assembly.glob("*.template.json")))
    done = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--ignore-checks", "W3005", "--", *templates],
        capture_output=True,
        text=True,
        env={**os.environ, "AWS_DEFAULT_REGION": "eu-west-1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
