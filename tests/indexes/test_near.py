import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.bank import MAX_CONTENT_ID
from countermark.domain.decision import Candidate
from countermark.indexes.near import NO_NEAR_CONTENTS, NearContents, sort_rows

CANDIDATES = [Candidate(content_id=n, distance=n // 2) for n in range(1, 8)]


def near(candidates: list[Candidate]) -> NearContents:
    return NearContents(
        np.array([each.content_id for each in candidates], np.int64),
        np.array([-1 if each.distance is None else each.distance for each in candidates], np.int64),
    )


def test_columns_are_read_as_the_candidates_that_they_hold() -> None:
    found = near(CANDIDATES)
    assert list(found) == CANDIDATES
    assert len(found) == 7
    assert [found[place] for place in range(-7, 7)] == CANDIDATES * 2
    assert CANDIDATES[2] in found
    assert found.index(CANDIDATES[3]) == 3
    assert eval(repr(found), {"NearContents": list, "Candidate": Candidate}) == CANDIDATES
    with pytest.raises(IndexError):
        _ = found[7]
    assert type(found[0].content_id) is int
    assert type(found[0].distance) is int


def test_a_page_is_columns_again() -> None:
    found = near(CANDIDATES)
    assert isinstance(found[2:5], NearContents)
    for page in (slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12), slice(None)):
        assert found[page] == CANDIDATES[page]


def test_equality_without_distance_reads_as_none() -> None:
    exact = [Candidate(content_id=5, distance=None)]
    assert list(near(exact)) == exact
    assert near(exact)[0] == exact[0]


def test_it_equals_whatever_holds_the_same_candidates_in_order() -> None:
    found = near(CANDIDATES)
    assert found == CANDIDATES
    assert CANDIDATES == found  # noqa: SIM300  # the list is asked first
    assert found == tuple(CANDIDATES)
    assert found == near(CANDIDATES)
    assert found != CANDIDATES[:-1]
    assert found != CANDIDATES[::-1]
    assert found != 7
    assert not NO_NEAR_CONTENTS
    assert NO_NEAR_CONTENTS == []


def test_parts_are_merged_by_distance_and_then_by_id() -> None:
    assert NearContents.merged([near(CANDIDATES[1::2]), NO_NEAR_CONTENTS, near(CANDIDATES[::2])]) == CANDIDATES


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 9) | st.just(MAX_CONTENT_ID), st.integers(0, 257)), max_size=30
    )
)
def test_rows_are_sorted_whether_they_fit_one_number_or_not(rows: list[tuple[int, int, int]]) -> None:
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    assert np.stack(sort_rows(*columns)).T.tolist() == [list(row) for row in sorted(rows)]
