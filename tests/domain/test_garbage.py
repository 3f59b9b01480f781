"""Which segments are garbage: those that are too old, and the oldest of those that are too large together."""

from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.index import StoredSegment, garbage

NOW_S = 1_000_000
segments_of_any_age = st.lists(
    st.builds(
        StoredSegment,
        name=st.uuids().map(str),
        size_bytes=st.integers(0, 50),
        written_at_s=st.integers(NOW_S - 200, NOW_S + 5),
    ),
    max_size=12,
    unique_by=lambda segment: segment.written_at_s,
)


@given(segments_of_any_age, st.integers(0, 150), st.none() | st.integers(0, 200), st.integers(0, 150))
def test_what_stays_is_young_and_small_enough_or_within_the_grace(
    segments: list[StoredSegment], older_than_s: int, max_bytes: int | None, grace_s: int
) -> None:
    chosen = garbage(segments, older_than_s=older_than_s, now_s=NOW_S, max_bytes=max_bytes, grace_s=grace_s)
    stays = [segment for segment in segments if segment not in chosen]
    assert all(NOW_S - segment.written_at_s <= older_than_s for segment in stays)
    if max_bytes is not None and any(NOW_S - segment.written_at_s > grace_s for segment in stays):
        assert sum(segment.size_bytes for segment in stays) <= max_bytes
    for segment in chosen:
        age_s = NOW_S - segment.written_at_s
        newer_bytes = sum(each.size_bytes for each in segments if each.written_at_s >= segment.written_at_s)
        is_too_much = max_bytes is not None and newer_bytes > max_bytes and age_s > grace_s
        assert age_s > older_than_s or is_too_much
