"""The hash stage: one pass over the bytes, and a reason where there is no signal."""

import hashlib
import io

import pytest
from PIL import Image

from countermark.domain.signal import ContentType, Signal
from countermark.errors import InvalidInput
from countermark.flows.hash import CHUNK_BYTES, applicable_types, hash_content
from countermark.signals import SIGNAL_TYPES


class OneReader(io.BytesIO):
    """A stream that cannot go back, as an upload's cannot."""

    def seek(self, *args: object) -> int:
        raise AssertionError("the stream is read once")


@pytest.mark.parametrize("size", [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_a_stream_is_read_once_whatever_its_size(size: int) -> None:
    data = b"v" * size
    report = hash_content(OneReader(data), ContentType.VIDEO, applicable_types(SIGNAL_TYPES, ContentType.VIDEO))
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert Signal(type="video_md5", value=md5) in report.signals
    assert report.size_bytes == size


def test_types_that_are_never_made_from_content_are_asked_with_it() -> None:
    report = hash_content(
        io.BytesIO(b" bball now? "), ContentType.TEXT, applicable_types(SIGNAL_TYPES, ContentType.TEXT)
    )
    assert report.signals == (Signal(type="raw_text", value="bball now?"),)
    assert report.queries == (Signal(type="trend_query", value="bball now?"),)
    broken = hash_content(io.BytesIO(b"\xff"), ContentType.TEXT, applicable_types(SIGNAL_TYPES, ContentType.TEXT))
    assert broken.queries == ()
    assert list(broken.unhashable) == ["raw_text"]
    assert [(name, why.code) for name, why in broken.missing_queries.items()] == [("trend_query", "damaged")]


def test_variants_are_hashed_by_the_types_that_offer_it_where_they_are_asked_for() -> None:
    file = io.BytesIO()
    Image.effect_mandelbrot((160, 120), (-3, -2.5, 2, 2.5), 100).save(file, "PNG")
    types = applicable_types(SIGNAL_TYPES, ContentType.PHOTO)
    plain = hash_content(io.BytesIO(file.getvalue()), ContentType.PHOTO, types)
    turned = hash_content(io.BytesIO(file.getvalue()), ContentType.PHOTO, types, with_variants=True)
    assert turned.signals == plain.signals
    assert plain.variant_signals == ()
    assert [name for name, signal in turned.variant_signals if signal.type == "pdq"] == [
        "ROTATE90",
        "ROTATE180",
        "ROTATE270",
        "FLIPX",
        "FLIPY",
        "FLIPPLUS1",
        "FLIPMINUS1",
    ]


def test_what_cannot_be_hashed_says_why_for_each_type() -> None:
    report = hash_content(
        io.BytesIO(b"no picture"), ContentType.PHOTO, applicable_types(SIGNAL_TYPES, ContentType.PHOTO)
    )
    assert [signal.type for signal in report.signals] == ["photo_md5", "photo_sha256"]
    assert report.unhashable["pdq"].code == "damaged"
    assert report.unhashable["pdq"].reason


def test_the_types_that_apply_are_those_of_the_content_that_are_asked_for_and_enabled() -> None:
    def names(**limits: object) -> list[str]:
        return [t.name for t in applicable_types(SIGNAL_TYPES, ContentType.PHOTO, **limits)]  # type: ignore[arg-type]  # keywords of the call

    assert names() == ["pdq", "photo_md5", "photo_sha256"]
    assert names(only=["pdq", "video_md5"]) == ["pdq"]
    assert names(ratios={"pdq": 0.0}) == ["photo_md5", "photo_sha256"]
    assert names(ratios={"pdq": 0.1}) == ["pdq", "photo_md5", "photo_sha256"]
    with pytest.raises(InvalidInput, match="No such SignalType 'zzz'"):
        names(only=["zzz"])
