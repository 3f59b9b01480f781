"""Questions and answers of shards on their way: whole or refused, and never larger than Lambda takes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from awslambdaric.lambda_runtime_marshaller import to_json
from hypothesis import given
from hypothesis import strategies as st

from countermark.aws import shard_json
from countermark.aws.shard_json import (
    MAX_SHARDS,
    MAX_VALUES,
    Answer,
    Question,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
    encode_refusal,
    value_bytes,
)
from countermark.domain.bank import MAX_CONTENT_ID
from countermark.domain.decision import Candidate
from countermark.domain.index import IndexFault
from countermark.errors import IndexDamaged, IndexNotReady, InvalidInput, MissingExtra, Unavailable

TEXT = st.text(max_size=20)
QUESTIONS = st.builds(
    Question,
    shards=st.integers(1, MAX_SHARDS),
    signal_type=TEXT,
    values=st.lists(TEXT, max_size=5).map(tuple),
    max_distance=st.none() | st.integers(0, 500),
)
IDS = st.sets(st.integers(0, 40) | st.integers(0, MAX_CONTENT_ID), min_size=1, max_size=6)
NEAR = st.dictionaries(st.integers(0, 300), IDS, max_size=4) | st.fixed_dictionaries({None: IDS})


def candidates(near: Mapping[Any, set[int]]) -> tuple[Candidate, ...]:
    found = [Candidate(content_id=each, distance=distance) for distance, ids in near.items() for each in ids]
    return tuple(sorted(found, key=lambda candidate: (candidate.distance or 0, candidate.content_id)))


FAULTS = st.builds(
    IndexFault,
    signal_type=st.none() | TEXT,
    kind=TEXT,
    reason=TEXT,
    is_damage=st.booleans(),
    since_s=st.integers(0, 10**10),
    served=st.none() | TEXT,
    newest=st.none() | TEXT,
)
ANSWERS = st.builds(
    Answer,
    age_s=st.integers(0, 10**9),
    found=st.lists(NEAR.map(candidates), max_size=4).map(tuple),
    faults=st.lists(FAULTS, max_size=2).map(tuple),
)


def sent(answer: Answer) -> bytes:
    """Return an answer as Lambda sends it."""
    told: str = to_json(encode_answer(answer))
    return told.encode()


@given(QUESTIONS)
def test_a_question_comes_as_it_was_asked(question: Question) -> None:
    assert decode_question(json.loads(encode_question(question))) == question


@given(ANSWERS)
def test_an_answer_comes_as_it_was_given(answer: Answer) -> None:
    assert decode_answer(sent(answer), value_count=len(answer.found)) == answer


def test_a_question_of_the_age_has_neither_type_nor_values() -> None:
    assert decode_question(json.loads(encode_question(Question(shards=3)))) == Question(shards=3)


WHOLE: dict[str, Any] = {"version": 1, "shards": 3, "signal_type": "pdq", "values": ["a"], "max_distance": None}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": "1"},
        {"shards": 0},
        {"shards": MAX_SHARDS + 1},
        {"shards": True},
        {"shards": "3"},
        {"signal_type": 3},
        {"signal_type": None},
        {"values": "a"},
        {"values": [1]},
        {"values": ["a"] * (MAX_VALUES + 1)},
        {"max_distance": -1},
        {"max_distance": 1.5},
    ],
)
def test_what_is_no_question_is_refused(change: dict[str, Any]) -> None:
    assert decode_question(WHOLE) == Question(shards=3, signal_type="pdq", values=("a",))
    with pytest.raises(InvalidInput, match="not a question to shards"):
        decode_question(WHOLE | change)
    for missing in WHOLE:
        with pytest.raises(InvalidInput):
            decode_question({key: value for key, value in WHOLE.items() if key != missing})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
    )
)
def test_whatever_else_comes_is_no_question(event: object) -> None:
    with pytest.raises(InvalidInput):
        decode_question(event)


@pytest.mark.parametrize(
    "found",
    [
        [],
        [[], []],
        "x",
        [3],
        [[3]],
        [["31"]],
        [[[]]],
        [[[4]]],
        [[[4, 1, 0]]],
        [[[4, -1]]],
        [[[4, 1.0]]],
        [[[4, True]]],
        [[[-1, 1]]],
        [[["4", 1]]],
        [[[4, 1], [4, 2]]],
        [[[4, 1], [3, 2]]],
        [[[None, 1], [3, 2]]],
        [[[3, 2], [None, 1]]],
        [[[4, MAX_CONTENT_ID, 1]]],
        [{"4": [1]}],
    ],
)
def test_an_answer_that_makes_no_sense_is_no_answer(found: Any) -> None:
    with pytest.raises(Unavailable, match="is malformed"):
        decode_answer(json.dumps({"version": 1, "age_s": 1, "found": found}).encode(), value_count=1)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b'{"version": 2, "age_s": 1, "found": [[]]}',
        b'{"version": 1, "age_s": -1, "found": [[]]}',
        b'{"version": 1, "age_s": null, "found": [[]]}',
        b'{"version": 1, "found": [[]]}',
        b'{"version": 1, "refused": 1, "why": "x"}',
    ],
)
def test_a_payload_of_another_form_is_no_answer(payload: bytes) -> None:
    assert decode_answer(b'{"version": 1, "age_s": 1, "found": [[]]}', value_count=1) == Answer(age_s=1, found=((),))
    with pytest.raises(Unavailable, match="is malformed"):
        decode_answer(payload, value_count=1)


@pytest.mark.parametrize("kind", [IndexNotReady, IndexDamaged, Unavailable])
def test_a_refusal_comes_as_the_error_that_it_is(kind: type[Unavailable]) -> None:
    with pytest.raises(kind, match="why not") as caught:
        decode_answer(to_json(encode_refusal(kind("why not"))).encode(), value_count=3)
    assert type(caught.value) is kind


def test_a_refusal_of_another_kind_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="why not") as caught:
        decode_answer(to_json(encode_refusal(MissingExtra("why not"))).encode(), value_count=1)
    assert type(caught.value) is Unavailable


def crowd(count: int, *, step: int) -> tuple[Candidate, ...]:
    return tuple(Candidate(content_id=MAX_CONTENT_ID // 2 + step * n, distance=31) for n in range(count))


def test_an_answer_tells_of_as_many_values_as_it_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    near = crowd(10, step=10)
    one = len(json.dumps(encode_answer(Answer(age_s=1, found=(near,)))["found"]))
    for room, expected in ((3 * one, 3), (3 * one - 1, 2), (one, 1)):
        monkeypatch.setattr(shard_json, "MAX_PAYLOAD_BYTES", room)
        told = decode_answer(sent(Answer(age_s=1, found=(near,) * 5)), value_count=5)
        assert told.found == (near,) * expected
    monkeypatch.setattr(shard_json, "MAX_PAYLOAD_BYTES", one - 1)
    with pytest.raises(Unavailable, match="10 contents are near one signal"):
        encode_answer(Answer(age_s=1, found=(near,)))


def test_half_a_million_contents_near_one_signal_fit_an_answer() -> None:
    near = crowd(500_000, step=100)
    payload = sent(Answer(age_s=1, found=(near,)))
    assert len(payload) < 6 * 2**20
    assert decode_answer(payload, value_count=1).found == (near,)


@given(st.lists(st.text(), max_size=4))
def test_a_value_takes_no_more_of_a_question_than_is_counted(values: Sequence[str]) -> None:
    empty = len(encode_question(Question(shards=1, signal_type="a")))
    whole = len(encode_question(Question(shards=1, signal_type="a", values=tuple(values))))
    assert whole - empty <= sum(map(value_bytes, values))


@pytest.mark.parametrize(
    "faults", [1, {}, "ab", [1], [{}], [{"signal_type": 1}], [{"signal_type": None, "kind": "a", "reason": "b"}]]
)
def test_faults_of_another_form_are_refused(faults: object) -> None:
    payload = json.dumps({"version": 1, "age_s": 1, "found": [], "faults": faults}).encode()
    with pytest.raises(Unavailable, match="is malformed"):
        decode_answer(payload, value_count=0)
