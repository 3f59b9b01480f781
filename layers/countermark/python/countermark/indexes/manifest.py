"""The manifest file, format version 1: canonical JSON with its own checksum.

The file contains `{"manifest": {...}, "sha256": "<SHA-256 of the manifest's canonical JSON>"}` and a line feed. It is
in ASCII, with sorted keys and no spaces. A manifest has exactly one encoding. So a reader encodes the decoded manifest
again and compares, and refuses a file that differs by one byte.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from countermark.domain.bank import MAX_CONTENT_ID
from countermark.domain.index import FORMAT_VERSION, Manifest, Origin, SegmentKind, SegmentRef, TypeIndex, UnreadBank
from countermark.errors import IndexDamaged

MAX_MANIFEST_BYTES = 16 * 2**20
"""The largest allowed manifest, in bytes. It lists some 40,000 segments; an index has a few dozen per signal type."""

_SEGMENT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}/[0-9a-f]{64}\.segment")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def segment_name(signal_type: str, sha256: str) -> str:
    """Return the name of a segment's object. It contains the digest of the bytes, so a second write changes nothing."""
    return f"{signal_type}/{sha256}.segment"


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest. Equal manifests have equal bytes."""
    # Only the manifest of an unfinished repair has this field. Without it, the bytes are the same as in older versions.
    begun = {} if manifest.begun_at_s is None else {"begun_at_s": manifest.begun_at_s}
    origin = {} if manifest.origin is None else {"origin": [manifest.origin.store_id, manifest.origin.mark]}
    content = (
        begun
        | origin
        | {
            "format_version": manifest.format_version,
            "shards": manifest.shards,
            "types": {name: _type_json(index) for name, index in manifest.types.items()},
        }
    )
    digest = hashlib.sha256(_canonical(content)).hexdigest()
    return _canonical({"manifest": content, "sha256": digest}) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Decode a manifest.

    Raises:
        IndexDamaged: A byte is wrong, missing or superfluous, or the format version is unknown.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise IndexDamaged(f"a manifest has at most {MAX_MANIFEST_BYTES} bytes, not {len(data)}")
    try:
        content = json.loads(data)["manifest"]
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise IndexDamaged(
                f"the manifest has format version {version!r}, but this program reads version {FORMAT_VERSION}"
            )
        shards = _count(content["shards"], at_least=1)
        manifest = Manifest(
            types={name: _type_index(fields, shards=shards) for name, fields in content["types"].items()},
            shards=shards,
            begun_at_s=_count(content["begun_at_s"]) if "begun_at_s" in content else None,
            origin=_origin(*content["origin"]) if "origin" in content else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IndexDamaged(f"the manifest is malformed: {type(error).__name__}") from error
    if encode_manifest(manifest) != data:
        raise IndexDamaged("the manifest fails its checksum, or is not in its canonical form")
    return manifest


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _type_json(index: TypeIndex) -> dict[str, Any]:
    # Unread banks are rare. Without them, the field is left out, so the bytes are the same as in older versions.
    unread = {"unread_banks": [[bank.bank_id, bank.before] for bank in index.unread_banks]}
    # Older versions did not count sizes, so their manifests do not have this field.
    sizes = {"sizes": list(index.sizes)} if index.sizes else {}
    return (
        (unread if index.unread_banks else {})
        | sizes
        | {
            "build_id": index.build_id,
            "built_at_s": index.built_at_s,
            "checked_at_s": index.checked_at_s,
            "cursor": index.cursor,
            "largest_content_id": index.largest_content_id,
            "segments": [
                {
                    "entries": segment.entries,
                    "hashes": segment.hashes,
                    "kind": segment.kind.value,
                    "name": segment.name,
                    "removed": segment.removed,
                    "sha256": segment.sha256,
                    "shard": segment.shard,
                    "size_bytes": segment.size_bytes,
                }
                for segment in index.segments
            ],
        }
    )


def _type_index(fields: Mapping[str, Any], *, shards: int) -> TypeIndex:
    return TypeIndex(
        cursor=None if fields["cursor"] is None else _text(fields["cursor"]),
        segments=tuple(_segment(segment, shards=shards) for segment in fields["segments"]),
        largest_content_id=_count(fields["largest_content_id"]),
        built_at_s=_count(fields["built_at_s"]),
        checked_at_s=_count(fields["checked_at_s"]),
        build_id=_text(fields["build_id"]),
        unread_banks=tuple(_unread_bank(*bank) for bank in fields.get("unread_banks", [])),
        sizes=_sizes(fields.get("sizes", []), shards=shards),
    )


def _sizes(sizes: list[object], *, shards: int) -> tuple[int | None, ...]:
    if len(sizes) not in {0, shards}:
        raise ValueError
    return tuple(None if size is None else _count(size) for size in sizes)


def _origin(store_id: object, mark: object) -> Origin:
    return Origin(store_id=_text(store_id), mark=_text(mark))


def _unread_bank(bank_id: object, before: object) -> UnreadBank:
    return UnreadBank(bank_id=_count(bank_id), before=None if before is None else _count(before))


def _segment(fields: Mapping[str, Any], *, shards: int) -> SegmentRef:
    return SegmentRef(
        name=_text(fields["name"], pattern=_SEGMENT_NAME),
        kind=SegmentKind(fields["kind"]),
        shard=_count(fields["shard"], at_most=shards - 1),
        hashes=_count(fields["hashes"]),
        entries=_count(fields["entries"]),
        removed=_count(fields["removed"]),
        size_bytes=_count(fields["size_bytes"]),
        sha256=_text(fields["sha256"], pattern=_SHA256),
    )


def _count(value: object, *, at_least: int = 0, at_most: int = MAX_CONTENT_ID) -> int:
    if type(value) is not int or not at_least <= value <= at_most:
        raise ValueError
    return value


def _text(value: object, *, pattern: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str) or (pattern is not None and not pattern.fullmatch(value)):
        raise ValueError
    return value
