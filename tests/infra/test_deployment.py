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
        ("index_memory_mb", 10_240, 10_240),
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
        ("match_memory_mb", 511),
        ("match_memory_mb", 10_241),
    ],
)
def test_a_wrong_knob_is_refused_by_name(knob: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{PREFIX}{knob}"):
        Deployment.from_context({PREFIX + knob: value})
