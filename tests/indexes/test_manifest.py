import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.domain.bank import MAX_CONTENT_ID
from countermark.domain.index import Manifest, Origin, SegmentKind, SegmentRef, TypeIndex, UnreadBank
from countermark.errors import IndexDamaged
from countermark.indexes.manifest import MAX_MANIFEST_BYTES, decode_manifest, encode_manifest, segment_name

GOLDEN = Path(__file__).parent / "golden" / "manifest-1.json"
SIGNED_GOLDEN = Path(__file__).parent / "golden" / "manifest-1-signed.json"
"""Of the same format version, with the fields that a build adds since it signs."""

SEGMENT = SegmentRef(
    name=f"pdq/{'5e' * 32}.segment",
    kind=SegmentKind.BASE,
    shard=0,
    hashes=2,
    entries=3,
    removed=0,
    size_bytes=832,
    sha256="5e" * 32,
)
TYPE = TypeIndex(
    cursor="17:é",
    segments=(SEGMENT, replace(SEGMENT, name=segment_name("pdq", "6f" * 32), kind=SegmentKind.DELTA, removed=1)),
    largest_content_id=MAX_CONTENT_ID,
    built_at_s=1_750_000_000,
    checked_at_s=1_750_000_060,
    build_id="0123456789abcdef",
)
MANIFEST = Manifest(types={"pdq": TYPE, "video_md5": replace(TYPE, cursor=None, segments=())})

counts = st.integers(0, MAX_CONTENT_ID)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
segments = st.builds(
    SegmentRef,
    name=st.builds(segment_name, st.sampled_from(["pdq", "raw_text"]), digests),
    kind=st.sampled_from(SegmentKind),
    shard=st.integers(0, 2),
    hashes=counts,
    entries=counts,
    removed=counts,
    size_bytes=counts,
    sha256=digests,
)
SHARDS = 3
types = st.builds(
    TypeIndex,
    cursor=st.none() | st.text(),
    segments=st.lists(segments, max_size=3).map(tuple),
    largest_content_id=counts,
    built_at_s=counts,
    checked_at_s=counts,
    build_id=st.text(max_size=20),
    unread_banks=st.lists(st.builds(UnreadBank, bank_id=counts, before=st.none() | counts), max_size=2).map(tuple),
    sizes=st.just(()) | st.tuples(*[st.none() | counts] * SHARDS),
)
manifests = st.builds(
    Manifest,
    types=st.dictionaries(st.text(max_size=9), types, max_size=3),
    shards=st.just(SHARDS),
    begun_at_s=st.none() | counts,
    origin=st.none() | st.builds(Origin, store_id=st.text(max_size=20), mark=st.text(max_size=20)),
)


@given(manifests)
@settings(deadline=None)
def test_what_is_written_is_what_is_read(manifest: Manifest) -> None:
    assert decode_manifest(encode_manifest(manifest)) == manifest


def test_the_manifest_with_an_origin_and_sizes_still_reads() -> None:
    signed = Manifest(
        types={"pdq": replace(TYPE, sizes=(4, None))}, shards=2, origin=Origin(store_id="0a" * 16, mark="0b" * 16)
    )
    assert decode_manifest(SIGNED_GOLDEN.read_bytes()) == signed
    assert encode_manifest(signed) == SIGNED_GOLDEN.read_bytes()


def test_a_manifest_without_an_origin_or_sizes_does_not_speak_of_them() -> None:
    assert b"origin" not in encode_manifest(MANIFEST)
    assert b"sizes" not in encode_manifest(MANIFEST)
    assert (TYPE.size, replace(TYPE, segments=()).size, replace(TYPE, sizes=(5,)).size) == (None, 0, 5)


@pytest.mark.parametrize("origin", [None, [], ["a"], ["a", "b", "c"], [1, "b"], ["a", None], {}])
def test_an_origin_that_is_malformed_is_refused(origin: object) -> None:
    with pytest.raises(IndexDamaged):
        decode_manifest(sealed(lambda content: content.update(origin=origin)))


def test_the_order_of_types_does_not_matter() -> None:
    turned = Manifest(types=dict(reversed(list(MANIFEST.types.items()))))
    assert encode_manifest(turned) == encode_manifest(MANIFEST)


def test_the_manifest_of_format_version_1_still_reads() -> None:
    assert decode_manifest(GOLDEN.read_bytes()) == MANIFEST
    assert encode_manifest(MANIFEST) == GOLDEN.read_bytes()


def test_every_flipped_byte_is_an_error() -> None:
    data = encode_manifest(MANIFEST)
    for place in range(len(data)):
        for bits in (0x01, 0x20, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= bits
            with pytest.raises(IndexDamaged):
                decode_manifest(bytes(damaged))


def test_every_truncation_and_anything_appended_is_an_error() -> None:
    data = encode_manifest(MANIFEST)
    for end in range(len(data)):
        with pytest.raises(IndexDamaged):
            decode_manifest(data[:end])
    for more in (b"\n", b" ", b"\0", data):
        with pytest.raises(IndexDamaged):
            decode_manifest(data + more)


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b'{"manifest":[]}', b"[" * 100_000, b"1" * 5_000])
def test_what_is_no_manifest_is_an_error(data: bytes) -> None:
    with pytest.raises(IndexDamaged):
        decode_manifest(data)


def sealed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return a manifest that was tampered with, and its checksum made to fit."""
    content = json.loads(encode_manifest(MANIFEST))["manifest"]
    change(content)

    def canonical(value: object) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    digest = hashlib.sha256(canonical(content)).hexdigest()
    return canonical({"manifest": content, "sha256": digest}) + b"\n"


def test_a_manifest_sealed_anew_reads() -> None:
    assert decode_manifest(sealed(lambda content: None)) == MANIFEST


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../../etc/passwd"),
        ("name", f"../{'5e' * 32}.segment"),
        ("name", f"pdq/{'5E' * 32}.segment"),
        ("name", f"pdq/{'5e' * 32}.segment\n"),
        ("name", 5),
        ("kind", "other"),
        ("shard", 1),
        ("shard", -1),
        ("hashes", -1),
        ("hashes", 1.0),
        ("hashes", True),
        ("entries", "1"),
        ("removed", None),
        ("size_bytes", MAX_CONTENT_ID + 1),
        ("sha256", "5e"),
    ],
)
def test_a_segment_that_is_malformed_is_refused_though_the_checksum_fits(field: str, value: object) -> None:
    def change(content: dict[str, Any]) -> None:
        content["types"]["pdq"]["segments"][0][field] = value

    with pytest.raises(IndexDamaged, match="malformed"):
        decode_manifest(sealed(change))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cursor", 5),
        ("largest_content_id", -1),
        ("built_at_s", None),
        ("checked_at_s", "0"),
        ("build_id", None),
        ("unread_banks", 1),
        ("unread_banks", [[1]]),
        ("unread_banks", [[1, -1]]),
        ("unread_banks", [[None, 1]]),
        ("sizes", 1),
        ("sizes", [1, 2]),
        ("sizes", [-1]),
        ("sizes", ["1"]),
    ],
)
def test_a_type_that_is_malformed_is_refused_though_the_checksum_fits(field: str, value: object) -> None:
    with pytest.raises(IndexDamaged, match="malformed"):
        decode_manifest(sealed(lambda content: content["types"]["pdq"].update({field: value})))


@pytest.mark.parametrize("field", ["cursor", "segments", "build_id"])
def test_a_field_that_is_missing_or_unknown_is_refused(field: str) -> None:
    with pytest.raises(IndexDamaged):
        decode_manifest(sealed(lambda content: content["types"]["pdq"].pop(field)))
    with pytest.raises(IndexDamaged):
        decode_manifest(sealed(lambda content: content["types"]["pdq"].update({f"{field}2": 1})))


def test_a_manifest_that_leaves_no_bank_unread_does_not_speak_of_any() -> None:
    assert b"unread_banks" not in encode_manifest(MANIFEST)
    with pytest.raises(IndexDamaged, match="not in its canonical form"):
        decode_manifest(sealed(lambda content: content["types"]["pdq"].update(unread_banks=[])))


def test_a_manifest_of_no_repair_does_not_speak_of_one() -> None:
    assert b"begun_at_s" not in encode_manifest(MANIFEST)
    assert decode_manifest(sealed(lambda content: content.update(begun_at_s=0))).begun_at_s == 0
    for value in (None, -1, "1", True):
        with pytest.raises(IndexDamaged, match="malformed"):
            decode_manifest(sealed(lambda content, value=value: content.update(begun_at_s=value)))  # type: ignore[misc]  # bound now


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused_by_name(version: object) -> None:
    with pytest.raises(IndexDamaged, match=f"format version {version!r}"):
        decode_manifest(sealed(lambda content: content.update(format_version=version)))


def test_shards_are_counted_from_one() -> None:
    assert decode_manifest(sealed(lambda content: content.update(shards=2))).shards == 2
    with pytest.raises(IndexDamaged):
        decode_manifest(sealed(lambda content: content.update(shards=0)))


def test_a_manifest_larger_than_any_is_not_parsed() -> None:
    padded = encode_manifest(replace(MANIFEST, types={"x" * MAX_MANIFEST_BYTES: TYPE}))
    with pytest.raises(IndexDamaged, match="at most"):
        decode_manifest(padded)
    room = MAX_MANIFEST_BYTES - len(encode_manifest(replace(MANIFEST, types={"": TYPE})))
    largest = replace(MANIFEST, types={"x" * room: TYPE})
    assert decode_manifest(encode_manifest(largest)) == largest
