"""The JSON messages to and from functions that hold shards: questions, answers and refusals.

A question: `{"version": 1, "shards": 10, "signal_type": "pdq", "values": ["f8f8…"], "max_distance": null}`.

An answer: `{"version": 1, "age_s": 12, "found": [[[0, 7, 10], [31, 4]], …]}`. `found` has one list per value, in the
order of the question, but it can lack the last values. Each list has one row per distance, in ascending order:
`[distance, first id, differences between successive ids …]`. If a function does not serve the newest index, the answer
has `"faults"` with the reasons.

A refusal: `{"version": 1, "refused": "IndexNotReady", "why": "…"}`.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from countermark.domain.bank import MAX_CONTENT_ID
from countermark.domain.decision import Candidate
from countermark.domain.index import IndexFault
from countermark.domain.json import JSON
from countermark.errors import IndexDamaged, IndexNotReady, InvalidInput, Unavailable

VERSION = 1

MAX_VALUES = 1_000
"""The maximum number of values per question."""

MAX_SHARDS = 10_000
"""The maximum number of shards of an index: enough for a hundred billion contents in shards of ten million."""

MAX_PAYLOAD_BYTES = 5 * 10**6
"""The maximum size of the values of a question, or of the candidates of an answer, in bytes.

The rest of Lambda's quota is for the other fields of the message.

Source: Lambda quotas, "Invocation payload": 6 MB each for a synchronous request and response.
"""

_REFUSALS = {each.__name__: each for each in (IndexNotReady, IndexDamaged, Unavailable)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question to a function: the values to search for. `shards` is the total number of shards of the index.

    If `signal_type` is None, `values` is empty, and the question requests only the age of the index.
    """

    shards: int
    signal_type: str | None = None
    values: tuple[str, ...] = ()
    max_distance: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of a function to a question.

    `found` has the candidates near each value. It can lack the last values of the question if one answer has not enough
    space. The candidates of a value are ordered by distance and then by id. `undecided` maps the position of a value to
    the reason why the value was not compared with all signals. `age_s` is the time since a build last found the index
    current, in seconds. `faults` are the reasons why the function does not serve the newest index.
    """

    age_s: int
    found: tuple[tuple[Candidate, ...], ...] = ()
    undecided: Mapping[int, str] = field(default_factory=dict)
    faults: tuple[IndexFault, ...] = ()


def value_bytes(value: str) -> int:
    """Return the number of bytes that a value adds to a question."""
    return len(json.dumps(value)) + 2


def encode_question(question: Question) -> bytes:
    """Return the bytes of a question."""
    return json.dumps(
        {
            "version": VERSION,
            "shards": question.shards,
            "signal_type": question.signal_type,
            "values": question.values,
            "max_distance": question.max_distance,
        }
    ).encode()


def decode_question(event: object) -> Question:
    """Return the question of parsed JSON.

    Raises:
        InvalidInput: The JSON is not a question.
    """
    try:
        match event:
            case {
                "version": int(version),
                "shards": shards,
                "signal_type": None | str() as signal_type,
                "values": list(values),
                "max_distance": max_distance,
            } if version == VERSION and len(values) <= MAX_VALUES:
                if signal_type is None and values:
                    raise ValueError
                return Question(
                    shards=_number(shards, at_least=1, at_most=MAX_SHARDS),
                    signal_type=signal_type,
                    values=tuple(map(_text, values)),
                    max_distance=None if max_distance is None else _number(max_distance),
                )
    except ValueError:
        pass
    raise InvalidInput("the event is not a question to shards")


def encode_answer(answer: Answer) -> dict[str, JSON]:
    """Return an answer as JSON, with the candidates of as many values as fit, but of at least one value.

    Raises:
        Unavailable: The candidates near one value do not fit into one answer.
    """
    found: list[JSON] = []
    size_bytes = 0
    for candidates in answer.found:
        rows = _encode_candidates(candidates)
        size_bytes += len(json.dumps(rows)) + 2
        if size_bytes > MAX_PAYLOAD_BYTES:
            break
        found.append(rows)
    if answer.found and not found:
        raise Unavailable(f"{len(answer.found[0])} contents are near one signal: too many for one answer of a shard")
    message: dict[str, JSON] = {"version": VERSION, "age_s": answer.age_s, "found": found}
    if undecided := {str(position): reason for position, reason in answer.undecided.items() if position < len(found)}:
        message["undecided"] = undecided
    return message | {"faults": [asdict(fault) for fault in answer.faults]} if answer.faults else message


def encode_refusal(error: Unavailable) -> dict[str, JSON]:
    """Return the refusal that reports an error, as JSON."""
    name = type(error).__name__
    return {"version": VERSION, "refused": name if name in _REFUSALS else Unavailable.__name__, "why": str(error)}


def decode_answer(payload: bytes, *, value_count: int) -> Answer:
    """Return the answer to a question with `value_count` values.

    The answer has the candidates of at least one value, unless `value_count` is 0.

    Raises:
        IndexNotReady: The shards hold no index of the signal type yet.
        IndexDamaged: A segment of the shards fails a check.
        Unavailable: The function cannot answer, or its answer is malformed.
    """
    try:
        match message := json.loads(payload):
            case {"version": int(version), "refused": str(name), "why": str(reason)} if version == VERSION:
                raise _REFUSALS.get(name, Unavailable)(reason)
            case {"version": int(version), "age_s": age_s, "found": list(found)} if version == VERSION:
                if not min(value_count, 1) <= len(found) <= value_count:
                    raise ValueError
                return Answer(
                    age_s=_number(age_s),
                    found=tuple(map(_decode_candidates, found)),
                    undecided=_decode_undecided(message.get("undecided", {}), len(found)),
                    faults=_decode_faults(message.get("faults", [])),
                )
    except (ValueError, TypeError, RecursionError) as error:
        raise Unavailable(f"an answer of shards is malformed: {type(error).__name__}") from error
    raise Unavailable("an answer of shards is malformed: it has unknown or missing fields")


def _decode_faults(faults: object) -> tuple[IndexFault, ...]:
    if not isinstance(faults, list):
        raise ValueError
    return tuple(map(_decode_fault, faults))


def _decode_fault(fault: object) -> IndexFault:
    match fault:
        case {
            "signal_type": None | str() as signal_type,
            "kind": str(kind),
            "reason": str(reason),
            "is_damage": bool(is_damage),
            "since_s": since_s,
            "served": None | str() as served,
            "newest": None | str() as newest,
        }:
            return IndexFault(
                signal_type=signal_type,
                kind=kind,
                reason=reason,
                is_damage=is_damage,
                since_s=_number(since_s),
                served=served,
                newest=newest,
            )
    raise ValueError


def _encode_candidates(candidates: Sequence[Candidate]) -> list[JSON]:
    rows: list[JSON] = []
    for distance, group in itertools.groupby(candidates, key=lambda candidate: candidate.distance):
        ids = [candidate.content_id for candidate in group]
        rows.append([distance, ids[0], *(later - earlier for earlier, later in itertools.pairwise(ids))])
    return rows


def _decode_candidates(rows: object) -> tuple[Candidate, ...]:
    if not isinstance(rows, list):
        raise TypeError
    candidates: list[Candidate] = []
    for distance, *steps in rows:
        if distance is not None:
            _number(distance, at_least=0 if not candidates else (candidates[-1].distance or 0) + 1)
        elif len(rows) > 1:
            raise ValueError
        if not steps:
            raise ValueError
        content_id = 0
        for position, step in enumerate(steps):
            content_id += _number(step, at_least=min(position, 1))
            candidates.append(Candidate(content_id=_number(content_id), distance=distance))
    return tuple(candidates)


def _decode_undecided(undecided: object, found: int) -> Mapping[int, str]:
    if not isinstance(undecided, dict):
        raise TypeError
    return {_number(int(position), at_most=found - 1): _text(reason) for position, reason in undecided.items()}


def _number(value: object, *, at_least: int = 0, at_most: int = MAX_CONTENT_ID) -> int:
    if type(value) is not int or not at_least <= value <= at_most:
        raise ValueError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value
