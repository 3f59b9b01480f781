"""Signals of many frames: bands, crowds of like frames, and frames that many signals share."""

import random
from dataclasses import replace

import pytest

from countermark.domain.signal import IndexKind
from countermark.errors import InvalidSignal
from countermark.indexes import frames, hamming
from countermark.indexes.codec import Band, read_info
from countermark.indexes.segments import Searcher, merge_segments, open_segment
from tests.indexes.built import build_segment
from tests.indexes.oracle import answer
from tests.indexes.small_types import CLIPS, SHORT
from tests.indexes.test_segments import clip, flipped

BANDS = tuple(Band(start_bit=16 * n, bits=16, radius=1) for n in range(8))


def clips(seed: int, count: int) -> list[tuple[str, int]]:
    """Return signals cut from few scenes, so that most share frames, and many frames are nearly alike."""
    chance = random.Random(seed)
    scenes = [chance.randbytes(16).hex() for _ in range(6)]
    made = []
    for content_id in range(1, count + 1):
        number = chance.choice((1, 2, 3, 3 * frames.FRAMES_AT_ONCE))
        shots = [flipped(chance.choice(scenes), chance.randint(0, 12), chance.randint(0, 99)) for _ in range(number)]
        made.append((clip(*shots), content_id))
    return made


@pytest.mark.parametrize("bands", [(), BANDS], ids=["planes", "bands"])
def test_crowds_of_like_frames_are_answered_as_by_comparing_all(
    bands: tuple[Band, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hamming, "plan_bands", lambda _hashes, *, key_bits, reach: bands)
    entries = clips(1, 60)
    data = build_segment(CLIPS, entries, build_id="b")
    assert read_info(data).bands == bands
    index = Searcher([open_segment(data, CLIPS)])
    queries = [value for value, _ in clips(1, 8)] + [value for value, _ in clips(2, 4)]
    expected = [answer(CLIPS, entries, query) for query in queries]
    assert sum(map(bool, expected)) > 5
    assert index.query_batch(queries) == expected
    for most in (0, 500_000, 1_500_000):
        assert index.query(queries[0], max_distance=most) == answer(CLIPS, entries, queries[0], max_distance=most)


def test_a_compaction_of_signals_with_bands_answers_as_the_parts_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "plan_bands", lambda _hashes, *, key_bits, reach: BANDS)
    old, new = clips(3, 30), [(value, content_id + 20) for value, content_id in clips(4, 20)]
    segments = [
        open_segment(build_segment(CLIPS, old, build_id="b"), CLIPS),
        open_segment(build_segment(CLIPS, new, removed=range(15, 41), build_id="b"), CLIPS),
    ]
    held = [entry for entry in old if entry[1] < 15] + new
    merged = merge_segments(CLIPS, segments, keep_removed=False, build_id="b")
    assert merged == build_segment(CLIPS, held, build_id="b")
    queries = [value for value, _ in held]
    assert Searcher([open_segment(merged, CLIPS)]).query_batch(queries) == Searcher(segments).query_batch(queries)


def test_a_frame_of_two_signals_is_stored_once() -> None:
    shared = "ab" * 16
    data = build_segment(CLIPS, [(clip(shared, "00" * 16), 1), (clip(shared, "ff" * 16), 2)], build_id="b")
    [segment] = Searcher([open_segment(data, CLIPS)]).segments
    assert len(segment._sections["A"]) == 3 * 8
    assert len(segment._sections["FRAMEIN"]) == 4 * 4


@pytest.mark.parametrize("value", ["", "ab", "ab" * 17])
def test_a_key_that_is_not_made_of_frames_is_refused(value: str) -> None:
    with pytest.raises(InvalidSignal, match="not a sequence of frames of 16 bytes each"):
        build_segment(CLIPS, [(value, 1)], build_id="b")


def test_a_type_without_frames_is_refused() -> None:
    with pytest.raises(InvalidSignal, match="short has no frames"):
        build_segment(replace(SHORT, index_kind=IndexKind.FRAMES), [("ab" * 16, 1)], build_id="b")
