"""The environment of a function, as the infrastructure sets it and as a function reads it."""

import re

import pytest

from countermark.aws import settings
from countermark.aws.settings import Settings
from countermark.domain.index import ShardGroup
from countermark.errors import InvalidInput

WHOLE = Settings(
    banks_table="banks",
    exchanges_table="exchanges",
    access_table="access",
    index_bucket="index-bucket",
    upload_bucket="upload-bucket",
    event_bus="bus",
    credentials_secret="arn:aws:secretsmanager:eu-west-1:123456789012:secret:credentials",
    deployment="second",
    content_buckets=("one-bucket", "other.bucket"),
    extensions=("known_addresses", "package.module"),
    fetch_queue_url="https://sqs.eu-west-1.amazonaws.com/123456789012/fetch",
    purge_queue_url="http://127.0.0.1:4566/000000000000/purge",
    index_shards=10,
    index_bands=False,
    shard_group=ShardGroup(number=1, groups=3),
    shard_functions=("countermark-service-MatchShards0Function12AB", "other"),
    group_functions={"hash": "countermark-service-HashFunction12AB", "match": "other"},
)
NAMES = {name for name in vars(settings).values() if str(name).startswith("COUNTERMARK_")}
OPTIONAL = {
    settings.DEPLOYMENT,
    settings.CONTENT_BUCKETS,
    settings.EXTENSIONS,
    settings.FETCH_QUEUE_URL,
    settings.PURGE_QUEUE_URL,
    settings.INDEX_SHARDS,
    settings.INDEX_BANDS,
    settings.SHARD_GROUP,
    settings.SHARD_FUNCTIONS,
    settings.GROUP_FUNCTIONS,
}


def test_settings_come_back_from_the_environment_that_holds_them() -> None:
    environ = WHOLE.to_environ()
    assert environ.keys() == NAMES
    assert Settings.from_environ({**environ, "PATH": "/bin"}) == WHOLE


def test_what_is_optional_may_be_missing() -> None:
    environ = {name: value for name, value in WHOLE.to_environ().items() if name not in OPTIONAL}
    bare = Settings.from_environ(environ)
    assert (bare.content_buckets, bare.extensions, bare.fetch_queue_url, bare.purge_queue_url) == ((), (), None, None)
    assert (bare.index_shards, bare.index_bands, bare.shard_group, bare.shard_functions) == (None, True, None, ())
    assert (bare.deployment, bare.group_functions) == ("countermark", {})
    assert bare.to_environ() == environ


@pytest.mark.parametrize("name", sorted(NAMES - OPTIONAL))
@pytest.mark.parametrize("value", [None, "", " "])
def test_what_is_missing_is_named(name: str, value: str | None) -> None:
    environ = WHOLE.to_environ()
    del environ[name]
    if value is not None:
        environ[name] = value
    with pytest.raises(InvalidInput, match=name):
        Settings.from_environ(environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (settings.INDEX_BUCKET, "Not_A_Bucket"),
        (settings.UPLOAD_BUCKET, "s3://bucket"),
        (settings.CONTENT_BUCKETS, "good-bucket,Bad"),
        (settings.EXTENSIONS, "good,not-a-module"),
        (settings.FETCH_QUEUE_URL, "fetch"),
        (settings.PURGE_QUEUE_URL, ""),
        (settings.INDEX_SHARDS, "0"),
        (settings.INDEX_SHARDS, "٣"),
        (settings.INDEX_BANDS, "no"),
        (settings.SHARD_GROUP, "3/3"),
        (settings.SHARD_GROUP, "1"),
        (settings.SHARD_GROUP, "-1/3"),
        (settings.SHARD_FUNCTIONS, "good,not:a:name"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name}.*{re.escape(value.rsplit(',', maxsplit=1)[-1])}"):
        Settings.from_environ({**WHOLE.to_environ(), name: value})
