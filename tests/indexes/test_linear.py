import pytest

from countermark.domain.signal import Comparison
from countermark.errors import IndexDamaged
from countermark.indexes import linear
from countermark.indexes.segments import Searcher, open_segment
from countermark.signals.raw_text import RAW_TEXT
from tests.indexes.built import build_segment
from tests.indexes.oracle import answer
from tests.indexes.small_types import BOUNDED, TEXT, BoundedLetters, Letters

WORDS = ["a", "bb", "bc", "ccc", "ccd", "dddd", "éé", ""]
ENTRIES = [(word, n) for n, word in enumerate(WORDS, 1)]


def test_only_texts_of_lengths_that_can_match_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    compare = BoundedLetters.compare

    def remember(self: BoundedLetters, query: str, banked: str) -> Comparison:
        compared.append(banked)
        return compare(self, query, banked)

    index = Searcher([open_segment(build_segment(BOUNDED, ENTRIES, build_id="b"), BOUNDED)])
    monkeypatch.setattr(BoundedLetters, "compare", remember)
    found = index.query("bb")
    assert sorted(compared) == ["bb", "bc", "éé"]
    monkeypatch.undo()
    assert found == answer(TEXT, ENTRIES, "bb")


@pytest.mark.parametrize("query", [*WORDS, "zz", "zzzzz"])
def test_lengths_change_no_answer(query: str) -> None:
    for signal_type in (TEXT, BOUNDED):
        index = Searcher([open_segment(build_segment(signal_type, ENTRIES, build_id="b"), signal_type)])
        assert index.query(query) == answer(TEXT, ENTRIES, query)
        assert index.query(query, max_distance=1) == answer(TEXT, ENTRIES, query, max_distance=1)


def test_a_type_whose_texts_cannot_be_read_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = build_segment(TEXT, ENTRIES, build_id="b")
    monkeypatch.setattr(Letters, "value", lambda self, key: None)
    with pytest.raises(IndexDamaged, match="cannot hold raw_text"):
        open_segment(data, TEXT)


def test_a_search_that_takes_too_long_says_that_it_is_not_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [f"text number {number} of many" for number in range(100)]
    data = build_segment(RAW_TEXT, [(value, number) for number, value in enumerate(values)], build_id="b")
    searcher = Searcher([open_segment(data, RAW_TEXT)])
    undecided: dict[int, str] = {}
    whole = searcher.query_batch([values[7]], undecided=undecided)
    assert (len(whole[0]) > 0, undecided) == (True, {})
    monkeypatch.setattr(linear, "MAX_SEARCH_S", -1.0)
    assert searcher.query_batch(["0", values[7]], undecided=undecided) == [[], []]
    assert list(undecided) == [1], "with the first no length matches, so there was nothing to compare"
    assert "not all raw_text signals were compared" in undecided[1]
