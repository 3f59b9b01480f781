"""What becomes of segments in S3: what a manifest names stays for good, what none names goes by two steps.

A build removes what is old and named by no manifest, which in a bucket with versions only makes it non-current. The
lifecycle of the bucket then ends non-current versions. Here its rules, as the template has them, are carried out as
S3 documents them: moto does not.

Source: "Elements to describe lifecycle actions", S3 user guide.
"""

import time
from collections.abc import Mapping
from typing import Any

import pytest

from countermark.aws.banks import DynamoBankStore
from countermark.aws.index import MANIFEST_KEY, SEGMENTS_PREFIX, STAGED_KEY, S3IndexStore
from countermark.domain.bank import ContentDraft
from countermark.domain.index import IndexLimits
from countermark.domain.stores import MAX_PAGE
from countermark.flows.index import GARBAGE_AGE_S, build_index
from countermark.indexes.reader import IndexReader
from countermark.signals import SIGNAL_TYPES
from tests.aws.deployed import Deployed

DAY_S = 24 * 3_600
TYPES = {"pdq": SIGNAL_TYPES["pdq"]}
MERGED_AT_ONCE = IndexLimits(deltas=1, delta_rows=2)


def signal(n: int) -> str:
    return f"{n % 256:02x}" * 32


class Bucket:
    """The bucket of the index, with the rules of its lifecycle, and a clock that is ahead of moto's."""

    def __init__(self, deployment: Deployed, template: Mapping[str, Any]) -> None:
        self.s3: Any = deployment.clients.s3
        self.name = deployment.settings.index_bucket
        [bucket] = [
            each
            for name, each in template["Resources"].items()
            if name.startswith("Index") and each["Type"] == "AWS::S3::Bucket"
        ]
        [self.rule] = bucket["Properties"]["LifecycleConfiguration"]["Rules"]

    def versions(self, kind: str = "Versions") -> list[dict[str, Any]]:
        return list(self.s3.list_object_versions(Bucket=self.name).get(kind, []))

    def current(self) -> set[str]:
        return {item["Key"] for item in self.s3.list_objects_v2(Bucket=self.name).get("Contents", [])}

    def carry_out(self, *, now_s: float) -> int:
        """Do what the rule asks for by a time; returns how many versions ended."""
        assert self.rule.keys() <= {
            "Status",
            "NoncurrentVersionExpiration",
            "AbortIncompleteMultipartUpload",
            "ExpiredObjectDeleteMarker",
        }, "a rule that this does not carry out"
        age_s = self.rule["NoncurrentVersionExpiration"]["NoncurrentDays"] * DAY_S
        # When a version became non-current is when the next one was put: moto puts all of them today.
        old = [
            each
            for each in self.versions()
            if not each["IsLatest"] and each["LastModified"].timestamp() + age_s < now_s
        ]
        for each in old:
            self.s3.delete_object(Bucket=self.name, Key=each["Key"], VersionId=each["VersionId"])
        left = {each["Key"] for each in self.versions()}
        for marker in self.versions("DeleteMarkers"):
            if self.rule["ExpiredObjectDeleteMarker"] and marker["Key"] not in left:
                self.s3.delete_object(Bucket=self.name, Key=marker["Key"], VersionId=marker["VersionId"])
        return len(old)


class House:
    """Banks and an index in moto, whose builds happen at times of a test's choice."""

    def __init__(self, deployment: Deployed) -> None:
        self.banks = DynamoBankStore(deployment.clients.dynamodb, deployment.settings.banks_table)
        self.index = S3IndexStore(deployment.clients.s3, deployment.settings.index_bucket)
        self.bank = self.banks.create_bank("A", ratio=1.0)
        self.ids: list[int] = []

    def add(self, count: int) -> None:
        for _ in range(count):
            draft = ContentDraft(signals={"pdq": signal(len(self.ids))})
            self.ids.append(self.banks.add_content(self.bank.id, draft, now_s=int(time.time())).id)

    def build(self, now_s: float, **more: Any) -> int:
        return build_index(self.banks, self.index, TYPES, now_s=int(now_s), **more).collected

    def named(self) -> set[str]:
        published = self.index.manifest()
        assert published is not None
        return {SEGMENTS_PREFIX + ref.name for ref in published.manifest.types["pdq"].segments}

    def found(self) -> list[int]:
        searcher = IndexReader(self.index, TYPES).current(0).searcher("pdq")
        return sorted({each.content_id for n in range(len(self.ids)) for each in searcher.query(signal(n))})


@pytest.fixture
def bucket(deployment: Deployed, templates: Mapping[str, Mapping[str, Any]]) -> Bucket:
    return Bucket(deployment, templates["storage"])


@pytest.fixture
def house(deployment: Deployed) -> House:
    return House(deployment)


def test_a_base_that_is_older_than_every_rule_stays_as_long_as_it_is_named(house: House, bucket: Bucket) -> None:
    now_s = time.time()
    house.add(4)
    house.build(now_s)
    [base] = house.named()
    for years in range(1, 4):
        later_s = now_s + years * 365 * DAY_S
        house.add(1)
        house.build(later_s)
        assert bucket.carry_out(now_s=later_s) > 0, "manifests that were replaced"
        assert base in house.named()
        assert house.named() | {MANIFEST_KEY} == bucket.current()
        assert house.found() == house.ids


def test_what_no_manifest_names_is_removed_once_it_is_old_and_ends_with_its_days(house: House, bucket: Bucket) -> None:
    now_s = time.time()
    house.add(4)
    house.build(now_s)
    [first] = house.named()
    house.add(3)
    house.build(now_s + 1, limits=MERGED_AT_ONCE)
    assert first not in house.named()
    # A reader may hold the manifest before: the next builds leave its segments, and so does the lifecycle.
    assert house.build(now_s + GARBAGE_AGE_S - 60) == 0
    assert bucket.carry_out(now_s=now_s + GARBAGE_AGE_S) == 0
    assert first in bucket.current()

    assert house.build(now_s + GARBAGE_AGE_S + 60) >= 1
    assert first not in bucket.current()
    assert first in {each["Key"] for each in bucket.versions()}, "for some days an operator may bring it back"
    days = bucket.rule["NoncurrentVersionExpiration"]["NoncurrentDays"]
    bucket.carry_out(now_s=now_s + (days + 1) * DAY_S)
    assert {each["Key"] for each in bucket.versions()} == house.named() | {MANIFEST_KEY}
    assert not bucket.versions("DeleteMarkers")
    assert house.found() == house.ids


def test_what_a_killed_build_wrote_goes_as_well_and_a_segment_that_comes_back_is_young(
    house: House, bucket: Bucket
) -> None:
    now_s = time.time()
    house.add(4)
    house.build(now_s)
    house.index.write_segment("pdq/" + "0" * 64 + ".segment", b"of a build that was killed")
    [base] = house.named()
    name = base.removeprefix(SEGMENTS_PREFIX)
    # The same content is the same name: a repair writes it again, and the version before becomes non-current.
    house.index.write_segment(name, house.index.read_segment(name))
    assert house.build(now_s + GARBAGE_AGE_S + 60) == 1
    bucket.carry_out(now_s=now_s + 400 * DAY_S)
    assert {each["Key"] for each in bucket.versions()} == {base, MANIFEST_KEY}
    assert house.found() == house.ids


def test_what_a_repair_has_staged_outlasts_every_rule_until_it_is_served(house: House, bucket: Bucket) -> None:
    now_s = time.time()
    house.add(MAX_PAGE + 1)
    house.build(now_s)
    first = house.named()
    house.build(now_s + 1, full=True, limits=IndexLimits(changes=1))
    staged = bucket.current() - first - {MANIFEST_KEY, STAGED_KEY}
    assert len(staged) == 1
    later_s = now_s + 400 * DAY_S
    bucket.carry_out(now_s=later_s)
    assert bucket.current() == first | staged | {MANIFEST_KEY, STAGED_KEY}
    house.build(later_s, limits=IndexLimits(changes=1))
    assert staged <= house.named()
    house.build(later_s + 1)
    bucket.carry_out(now_s=later_s + 400 * DAY_S)
    assert bucket.current() == house.named() | {MANIFEST_KEY, STAGED_KEY}
    assert {each["Key"] for each in bucket.versions()} == bucket.current()
