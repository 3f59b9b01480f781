"""The knobs of a deployment: what they may be, and what is told of what they may not."""

from dataclasses import fields
from typing import Any

import pytest

from infra.deployment import PREFIX, Deployment


def test_a_context_without_knobs_is_the_deployment_that_the_readme_tells_of() -> None:
    assert Deployment.from_context({"@aws-cdk/core:x": True, "aws:cdk:y": []}) == Deployment()


@pytest.mark.parametrize(
    ("knob", "value", "expected"),
    [
        ("name", "eu-1", "eu-1"),
        ("deletion_protection", "false", False),
        ("deletion_protection", False, False),
        ("upload_days", "7", 7),
        ("upload_days", 3_650, 3_650),
        ("superseded_days", 1, 1),
        ("content_buckets", "one-bucket,other-bucket", ("one-bucket", "other-bucket")),
        ("content_buckets", ["one-bucket"], ("one-bucket",)),
        ("content_buckets", "", ()),
        ("cors_origins", "https://example.com,http://localhost:8080", ("https://example.com", "http://localhost:8080")),
        (
            "alarm_topic_arn",
            "arn:aws:sns:eu-west-1:123456789012:alarms",
            "arn:aws:sns:eu-west-1:123456789012:alarms",
        ),
        ("extensions", "known_addresses,package.module", ("known_addresses", "package.module")),
        ("hash_concurrency", 2, 2),
        ("hash_concurrency", 1_000, 1_000),
        ("left_out_percent", "1", 1),
        ("left_out_percent", 100, 100),
        ("index_memory_mb", 10_240, 10_240),
        ("index_bands", "false", False),
        ("shards", "32", 32),
        ("shards_per_function", 1_000, 1_000),
        ("shard_concurrency", 1, 1),
    ],
)
def test_a_knob_is_read_from_json_or_from_the_command_line(knob: str, value: Any, expected: Any) -> None:
    deployment = Deployment.from_context({PREFIX + knob: value})
    assert getattr(deployment, knob) == expected
    others = [one.name for one in fields(Deployment) if one.name != knob]
    assert all(getattr(deployment, other) == getattr(Deployment(), other) for other in others)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("upload_day", 7),
        ("name", "Has Spaces"),
        ("name", ""),
        ("name", "x" * 31),
        ("deletion_protection", "no"),
        ("upload_days", 0),
        ("upload_days", 3_651),
        ("upload_days", -1),
        ("upload_days", "1.5"),
        ("upload_days", "٣"),
        ("upload_days", True),
        ("upload_days", None),
        ("content_buckets", "Not_A_Bucket"),
        ("content_buckets", {"a": 1}),
        ("content_buckets", [1]),
        ("cors_origins", "*"),
        ("cors_origins", "http://example.com"),
        ("alarm_topic_arn", "alarms"),
        ("extensions", "not-a-module"),
        ("extensions", "package."),
        ("hash_concurrency", 1),
        ("hash_concurrency", 1_001),
        ("left_out_percent", 0),
        ("left_out_percent", 101),
        ("match_memory_mb", 511),
        ("match_memory_mb", 10_241),
        ("index_bands", "scan"),
        ("shards", 0),
        ("shards", 1_001),
        ("shards_per_function", 0),
        ("shard_memory_mb", 511),
        ("shard_concurrency", 0),
    ],
)
def test_a_wrong_knob_is_refused_by_name(knob: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{PREFIX}{knob}"):
        Deployment.from_context({PREFIX + knob: value})


@pytest.mark.parametrize(
    ("shards", "each", "functions"),
    [(1, 1, 0), (10, 10, 0), (10, 11, 0), (2, 1, 2), (10, 4, 3), (32, 1, 32), (64, 2, 32)],
)
def test_shards_lie_in_as_many_functions_as_they_need(shards: int, each: int, functions: int) -> None:
    assert Deployment(shards=shards, shards_per_function=each).shard_functions == functions


@pytest.mark.parametrize(("shards", "each"), [(33, 1), (65, 2)])
def test_more_functions_of_shards_than_one_environment_can_name_are_refused(shards: int, each: int) -> None:
    with pytest.raises(ValueError, match=f"{PREFIX}shards_per_function makes 33 functions of {shards} shards"):
        Deployment.from_context({PREFIX + "shards": shards, PREFIX + "shards_per_function": each})
