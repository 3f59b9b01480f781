"""How much of a piece of content was looked at: what decides whether silence about it means anything."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.signal import ContentType, Signal, Unhashable, UnhashableCode
from countermark.flows.hash import HashReport, coverage, coverage_gaps
from countermark.signals import SIGNAL_TYPES
from tests.extensions.boxes import BOX, box
from tests.flows.test_opening import opened

DIGESTS = ("photo_md5", "photo_sha256")


def report(
    *made: str,
    queries: tuple[str, ...] = (),
    failed: dict[str, UnhashableCode] | None = None,
    missing_queries: dict[str, UnhashableCode] | None = None,
    partial: tuple[str, ...] = (),
    parts: tuple[HashReport, ...] | None = None,
    unopened: UnhashableCode | None = None,
) -> HashReport:
    return HashReport(
        content_type=ContentType.PHOTO if parts is None else BOX,
        signals=tuple(Signal(type=name, value="0") for name in made),
        queries=tuple(Signal(type=name, value="0") for name in queries),
        unhashable={name: Unhashable(code=code, reason="why") for name, code in (failed or {}).items()},
        missing_queries={name: Unhashable(code=code, reason="why") for name, code in (missing_queries or {}).items()},
        partial=dict.fromkeys(partial, "half"),
        size_bytes=1,
        parts=parts,
        unopened=None if unopened is None else Unhashable(code=unopened, reason="why"),
    )


WHOLE = report("pdq", *DIGESTS)
BROKEN = report(*DIGESTS, failed={"pdq": "damaged"})


@pytest.mark.parametrize(
    ("of", "expected", "left"),
    [
        (WHOLE, "hashed", set()),
        (report(*DIGESTS, failed={"pdq": "low_quality"}), "hashed", set()),
        (report(failed={"raw_text": "empty"}, missing_queries={"trend_query": "empty"}), "hashed", set()),
        (report("video_md5"), "hashed", set()),
        (report(queries=("trend_query",)), "hashed", set()),
        (BROKEN, "unhashable", {("pdq", "damaged")}),
        (report(*DIGESTS, failed={"pdq": "missing_extra"}), "unhashable", {("pdq", "missing_extra")}),
        (report(failed={"pdq": "too_large"}), "unhashable", {("pdq", "too_large")}),
        (report(), "unhashable", set()),
        (report("pdq", partial=("pdq",)), "partly", {("pdq", "partial")}),
        (report("pdq", failed={"other": "unsupported"}), "partly", {("other", "unsupported")}),
        (report("raw_text", missing_queries={"trend_query": "too_large"}), "partly", {("trend_query", "too_large")}),
        (report(failed={"pdq": "low_quality", "other": "damaged"}), "partly", {("other", "damaged")}),
        (report(parts=()), "hashed", set()),
        (report(parts=(), unopened="damaged"), "unhashable", {("box", "damaged")}),
        (report(parts=(WHOLE,)), "hashed", set()),
        (report(parts=(WHOLE,), unopened="too_large"), "partly", {("box", "too_large")}),
        (report(parts=(WHOLE, BROKEN)), "partly", {("pdq", "damaged")}),
        (report(parts=(report(parts=(BROKEN,)),)), "partly", {("pdq", "damaged")}),
    ],
)
def test_content_is_covered_as_far_as_somebody_looked_at_it(
    of: HashReport, expected: str, left: set[tuple[str, str]]
) -> None:
    assert (coverage(of, SIGNAL_TYPES), set(coverage_gaps(of))) == (expected, left)


@given(
    st.sampled_from([WHOLE, BROKEN, report(), report("pdq", partial=("pdq",))]), st.sampled_from(sorted(SIGNAL_TYPES))
)
def test_nothing_that_failed_counts_as_hashed(of: HashReport, name: str) -> None:
    failing = replace(of, unhashable={**of.unhashable, name: Unhashable(code="damaged", reason="why")})
    assert coverage(failing, SIGNAL_TYPES) != "hashed"


def test_what_lies_within_counts_as_it_is_hashed() -> None:
    assert coverage(opened(box(("text", "one"))), SIGNAL_TYPES) == "hashed"
    assert coverage(opened(box(("text", "one"), ("!", "InvalidContent"))), SIGNAL_TYPES) == "partly"
    assert coverage(opened(box(("text", "one"), ("photo", "no picture"))), SIGNAL_TYPES) == "partly"
    assert coverage(opened(box(("!", "MissingExtra"))), SIGNAL_TYPES) == "unhashable"
    assert coverage(opened(b"no JSON"), SIGNAL_TYPES) == "unhashable"
