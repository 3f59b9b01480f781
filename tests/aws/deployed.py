"""The storage stack's resources in moto, which cannot deploy it: made by plain API calls, from the template."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pytest
from moto import mock_aws

from countermark.aws.clients import Clients
from countermark.aws.settings import Settings
from tests.aws.moto_truth import truthful_moto

REGION: Final = "eu-west-1"
BUS = "countermark-test"
CONTENT_BUCKET = "platform-content"

_HASH_OF_ID = re.compile(r"[0-9A-F]{8}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """Clients, and the names of what was made, as a function would have them from its environment."""

    clients: Clients
    settings: Settings


@cache
def _clients() -> Clients:
    """Return clients as a function has them, made once for all tests: to make them takes longer than most tests."""
    clients = Clients()
    for client in (clients.dynamodb, clients.s3, clients.events, clients.secrets, clients.sqs):
        assert client.meta.region_name == REGION
    return clients


@contextmanager
def deployed(template: Mapping[str, Any]) -> Iterator[Deployed]:
    """Make the resources of a storage template, for one test alone."""
    with pytest.MonkeyPatch.context() as patch:
        # An emulator that the environment names is not moto.
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        with mock_aws(), truthful_moto():
            clients = _clients()
            names = {}
            for logical_id, resource in template["Resources"].items():
                name = _HASH_OF_ID.sub("", logical_id)
                properties = resource.get("Properties", {})
                match resource["Type"]:
                    case "AWS::DynamoDB::Table":
                        _make_table(clients, name, properties)
                        names[name] = name
                    case "AWS::S3::Bucket":
                        _make_bucket(clients, name.lower(), properties)
                        names[name] = name.lower()
                    case "AWS::SecretsManager::Secret":
                        clients.secrets.create_secret(Name=name, SecretString=properties["SecretString"])
                        names[name] = name
            _make_bucket(clients, CONTENT_BUCKET, {})
            clients.events.create_event_bus(Name=BUS)
            yield Deployed(
                clients=clients,
                settings=Settings(
                    banks_table=names["Banks"],
                    exchanges_table=names["Exchanges"],
                    access_table=names["Access"],
                    index_bucket=names["Index"],
                    upload_bucket=names["Uploads"],
                    event_bus=BUS,
                    credentials_secret=names["Credentials"],
                    content_buckets=(CONTENT_BUCKET,),
                ),
            )


def _make_table(clients: Clients, name: str, properties: Mapping[str, Any]) -> None:
    made = {"AttributeDefinitions", "KeySchema", "BillingMode", "GlobalSecondaryIndexes"}
    set_later = {"TimeToLiveSpecification", "PointInTimeRecoverySpecification", "DeletionProtectionEnabled"}
    assert properties.keys() <= made | set_later, "the template has what this does not make"
    request: Any = {key: value for key, value in properties.items() if key in made}
    clients.dynamodb.create_table(TableName=name, **request)
    if "TimeToLiveSpecification" in properties:
        clients.dynamodb.update_time_to_live(
            TableName=name, TimeToLiveSpecification=properties["TimeToLiveSpecification"]
        )


def _make_bucket(clients: Clients, name: str, properties: Mapping[str, Any]) -> None:
    clients.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    if "VersioningConfiguration" in properties:
        clients.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"])
