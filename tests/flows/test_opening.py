"""Content that holds other content: what lies within is hashed, within limits, and told by its place."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from countermark.domain.content import ContentTypes, Part
from countermark.domain.signal import ContentType, Signal, Unhashable
from countermark.flows import opening
from countermark.flows.hash import HashReport, applicable_types, hash_with_parts
from countermark.signals import SIGNAL_TYPES
from tests.extensions.boxes import BOX, BOXES, Box, box
from tests.signals.photos import photo, saved


def opened(content: bytes, kind: ContentType = BOX, name: str = "a.box") -> HashReport:
    return hash_with_parts(io.BytesIO(content), kind, partial(applicable_types, SIGNAL_TYPES), BOXES, name=name)


def told(report: HashReport) -> dict[str, list[str]]:
    """Return what was hashed: the values of signals by place."""
    return {place: [signal.value for signal in each.signals] for place, each in report.walk()}


def test_what_holds_nothing_is_hashed_as_ever() -> None:
    report = opened(b"words", ContentType.TEXT)
    assert (told(report), report.parts, report.unopened) == ({"": ["words"]}, None, None)


def test_each_part_is_hashed_as_what_it_is_and_told_by_its_place() -> None:
    report = opened(box(("text", "one"), ("box", [("text", "two"), ("text", "three")]), ("text", "four")))
    assert told(report) == {"": [], "/1": ["one"], "/2": [], "/2/1": ["two"], "/2/2": ["three"], "/3": ["four"]}
    assert [each.content_type for _, each in report.walk()] == ["box", "text", "box", "text", "text", "text"]


def test_a_signal_is_partial_unless_the_whole_of_another_part_gives_it_as_well() -> None:
    def report(value: str, *parts: HashReport, why: str | None = None) -> HashReport:
        signal = Signal(type="pdq", value=value)
        return HashReport(
            content_type=BOX,
            signals=(signal,),
            variant_signals=(("FLIPX", replace(signal, value=f"{value} turned")),),
            unhashable={},
            partial={} if why is None else {"pdq": why},
            size_bytes=1,
            parts=parts,
        )

    both = report("a", report("b", why="half"), report("b"), report("c", why="a row"), report("a", why="half"))
    assert {signal.value: why for signal, why in both.partial_signals().items()} == {"c": "a row", "c turned": "a row"}


def test_an_empty_box_is_opened_and_holds_nothing() -> None:
    report = opened(box())
    assert (report.parts, report.unopened) == ((), None)


def test_the_same_part_twice_is_hashed_once() -> None:
    report = opened(box(("text", "one"), ("text", "one"), ("url", "one"), ("box", [("text", "one"), ("text", "two")])))
    assert [each.content_type for each in report.parts or ()] == ["text", "url", "box"]
    assert told(report)["/3/1"] == ["two"]


def test_of_a_part_that_is_a_file_its_bytes_tell_what_it_is() -> None:
    class Album:
        """Holds one photo and one unknown file."""

        name = BOX
        mime_types = suffixes = frozenset[str]()
        starts = ()

        def parts(self, content: bytes, name: str) -> list[Part]:
            files = saved(photo("coffee.png").resize((64, 64)), "PNG"), b"unknown"
            return [Part(content_type=ContentType.FILE, content=each) for each in files]

    types = ContentTypes(forms={BOX: Album()})
    report = hash_with_parts(io.BytesIO(b""), BOX, partial(applicable_types, SIGNAL_TYPES), types)
    known, unknown = report.parts or ()
    assert (known.content_type, {signal.type for signal in known.signals} >= {"pdq"}) == (ContentType.PHOTO, True)
    assert (unknown.content_type, unknown.unopened and unknown.unopened.code) == (ContentType.FILE, "unsupported")


def test_a_box_within_a_file_is_told_by_its_first_bytes() -> None:
    report = opened(json.dumps([["file", json.dumps([["text", "one"]])]]).encode())
    assert told(report) == {"": [], "/1": [], "/1/1": ["one"]}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("InvalidContent", "damaged"),
        ("UnsupportedContent", "unsupported"),
        ("ContentTooLarge", "too_large"),
        ("MissingExtra", "missing_extra"),
    ],
)
def test_what_fails_is_told_with_its_reason_and_what_came_before_it_is_hashed(error: str, code: str) -> None:
    report = opened(box(("text", "one"), ("!", error), ("text", "two")))
    assert told(report) == {"": [], "/1": ["one"]}
    assert report.unopened == Unhashable(code=code, reason="the reason of a.box")  # type: ignore[arg-type]  # of the four


def test_a_part_that_fails_spoils_nothing_but_itself() -> None:
    report = opened(box(("box", [("!", "InvalidContent")]), ("text", "one")))
    assert report.unopened is None
    assert (report.parts or ())[0].unopened == Unhashable(code="damaged", reason="the reason of a part")
    assert told(report)["/2"] == ["one"]


def test_a_part_of_a_type_that_is_not_installed_is_told() -> None:
    report = opened(box(("text", "one"), ("pdf", "two")))
    assert report.unopened == Unhashable(code="damaged", reason="it holds content of an unknown type, 'pdf'")
    assert told(report)["/1"] == ["one"]


@pytest.mark.parametrize(("layers", "is_found"), [(opening.MAX_DEPTH, True), (opening.MAX_DEPTH + 1, False)])
def test_content_is_opened_so_deep(layers: int, is_found: bool) -> None:
    held: object = "deep"
    kind = "text"
    for _ in range(layers):
        held, kind = [(kind, held)], "box"
    report = opened(json.dumps(held).encode())
    *_, (place, last) = report.walk()
    assert place == "/1" * opening.MAX_DEPTH
    assert last.signals == ((Signal(type="raw_text", value="deep"),) if is_found else ())
    assert (last.unopened is None) == is_found
    if last.unopened is not None:
        assert (last.unopened.code, last.unopened.reason) == ("too_large", "content within content is opened 3 deep")


@pytest.mark.parametrize(("limit", "is_whole"), [(3, True), (2, False)])
def test_so_many_parts_are_hashed_at_all_depths_together(
    monkeypatch: pytest.MonkeyPatch, limit: int, is_whole: bool
) -> None:
    monkeypatch.setattr(opening, "MAX_PARTS", limit)
    report = opened(box(("text", "one"), ("box", [("text", "two")])))
    inner = (report.parts or ())[1]
    assert ("/2/1" in told(report)) == is_whole
    assert inner.unopened == (None if is_whole else Unhashable(code="too_large", reason="it holds more than 2 parts"))


@pytest.mark.parametrize(("limit_bytes", "is_whole"), [(6, True), (5, False)])
def test_so_many_bytes_of_parts_are_hashed(monkeypatch: pytest.MonkeyPatch, limit_bytes: int, is_whole: bool) -> None:
    monkeypatch.setattr(opening, "MAX_PARTS_BYTES", limit_bytes)
    report = opened(box(("text", "one"), ("text", "two")))
    assert ("/2" in told(report)) == is_whole
    why = Unhashable(code="too_large", reason="its parts have more than 5 bytes")
    assert report.unopened == (None if is_whole else why)


def test_repeated_parts_count_as_well_or_a_bomb_would_be_unpacked_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_PARTS", 5)
    report = opened(box(*[("text", "one")] * 6))
    assert (len(report.parts or ()), report.unopened and report.unopened.code) == (1, "too_large")


@pytest.mark.parametrize(("beyond", "is_opened"), [(0, True), (1, False)])
def test_so_large_a_content_is_opened(monkeypatch: pytest.MonkeyPatch, beyond: int, is_opened: bool) -> None:
    content = box(("text", "one"))
    monkeypatch.setattr(opening, "MAX_OPENED_BYTES", len(content) - beyond)
    report = opened(content)
    assert (told(report).get("/1"), report.unopened is None) == ((["one"], True) if is_opened else (None, False))
    assert report.size_bytes == len(content)


def test_variants_of_photos_within_are_made_on_request() -> None:
    picture = saved(photo("coffee.png").resize((256, 256)), "PNG")

    class Frame:
        """Holds one photo."""

        name = BOX
        mime_types = suffixes = frozenset[str]()
        starts = ()

        def parts(self, content: bytes, name: str) -> list[Part]:
            return [Part(content_type=ContentType.PHOTO, content=picture)]

    types = ContentTypes(forms={BOX: Frame()})
    report = hash_with_parts(io.BytesIO(b""), BOX, partial(applicable_types, SIGNAL_TYPES), types, with_variants=True)
    assert len((report.parts or ())[0].variant_signals) == 7


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no JSON", "the parts of box cannot be read: JSONDecodeError"),
        (b'[["text", "one"], ["!", "KeyOfNoError"]]', "the parts of box cannot be read: KeyError"),
        (b'[["Text", "one"]]', "the parts of box cannot be read: InvalidInput"),
    ],
)
def test_whatever_an_extension_raises_is_told_of_its_content_alone(content: bytes, reason: str) -> None:
    why = opened(content).unopened
    assert why is not None
    assert (why.code, bool(re.fullmatch(reason, why.reason))) == ("damaged", True), why.reason


@pytest.mark.parametrize(
    ("given", "code", "reason"),
    [
        ([b"bytes"], "damaged", "box returned a bytes, not a Part"),
        (ModuleNotFoundError("no such module", name="needed"), "missing_extra", "box needs a package .*: needed"),
    ],
)
def test_what_an_extension_gives_is_checked(given: object, code: str, reason: str) -> None:
    class Odd(Box):
        """Gives what it should not."""

        def parts(self, content: bytes, name: str) -> Iterator[Part]:
            if isinstance(given, Exception):
                raise given
            yield from given  # type: ignore[misc]  # it is to fail

    types = ContentTypes(forms={BOX: Odd()})
    why = hash_with_parts(io.BytesIO(b""), BOX, partial(applicable_types, SIGNAL_TYPES), types).unopened
    assert why is not None
    assert (why.code, bool(re.fullmatch(reason, why.reason))) == (code, True), why.reason
