import pytest

from countermark.domain.signal import Comparison
from countermark.errors import IndexDamaged
from countermark.indexes.segments import Searcher, build_segment, open_segment
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
