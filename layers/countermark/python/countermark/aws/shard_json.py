"""What a function that holds shards is asked, and what it answers, as JSON.

A question: `{"version": 1, "shards": 10, "signal_type": "pdq", "values": ["f8f8…"], "max_distance": null}`.
An answer: `{"version": 1, "age_s": 12, "found": [[[0, 7, 10], [31, 4]], …]}`, for each of the first values a list
by distance: the distance, and then the ids in order, each but the first as what it lies above the one before. Where a
function does not serve the newest index, `"faults"` says why. Or a refusal: `{"version": 1, "refused":
"IndexNotReady", "why": "…"}`.
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
"""The most values of one question."""

MAX_SHARDS = 10_000
"""No index has more shards: a hundred billion contents in shards of ten million."""

MAX_PAYLOAD_BYTES = 5 * 10**6
"""How much a question or an answer holds; a little is left for its frame.

Source: Lambda quotas, "Invocation payload": 6 MB each for a synchronous request and response.
"""

_REFUSALS = {each.__name__: each for each in (IndexNotReady, IndexDamaged, Unavailable)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to look for in shards of an index that has `shards` of them in all.

    Without a signal type there are no values, and only the age of the index is asked for.
    """

    shards: int
    signal_type: str | None = None
    values: tuple[str, ...] = ()
    max_distance: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What lies near the first of the values: of all of them, or of as many as one answer carries.

    Candidates come by distance and then by id. `undecided` says, by the place of a value, why it was not compared with
    all. `age_s` is how long ago a build last found the index current, `faults` why the newest is not the one that
    answers.
    """

    age_s: int
    found: tuple[tuple[Candidate, ...], ...] = ()
    undecided: Mapping[int, str] = field(default_factory=dict)
    faults: tuple[IndexFault, ...] = ()


def value_bytes(value: str) -> int:
    """Return how much of a question a value takes."""
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
        InvalidInput: It is none.
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
    raise InvalidInput("this is no question of shards")


def encode_answer(answer: Answer) -> dict[str, JSON]:
    """Return an answer as JSON: of as many of the values as it carries, and of one at least.

    Raises:
        Unavailable: More lies near one value than one answer carries.
    """
    found: list[JSON] = []
    size_bytes = 0
    for candidates in answer.found:
        near = _encode_candidates(candidates)
        size_bytes += len(json.dumps(near)) + 2
        if size_bytes > MAX_PAYLOAD_BYTES:
            break
        found.append(near)
    if answer.found and not found:
        raise Unavailable(f"{len(answer.found[0])} contents are near one signal: more than shards can tell of")
    told: dict[str, JSON] = {"version": VERSION, "age_s": answer.age_s, "found": found}
    if undecided := {str(place): why for place, why in answer.undecided.items() if place < len(found)}:
        told["undecided"] = undecided
    return told | {"faults": [asdict(fault) for fault in answer.faults]} if answer.faults else told


def encode_refusal(error: Unavailable) -> dict[str, JSON]:
    """Return why shards do not answer, as JSON."""
    name = type(error).__name__
    return {"version": VERSION, "refused": name if name in _REFUSALS else Unavailable.__name__, "why": str(error)}


def decode_answer(payload: bytes, *, asked: int) -> Answer:
    """Return an answer about the first of so many values that were asked: one at least, where there are any.

    Raises:
        IndexNotReady: The shards hold no index of that signal type yet.
        IndexDamaged: A segment of theirs fails a check.
        Unavailable: They cannot answer, or the answer makes no sense.
    """
    try:
        match told := json.loads(payload):
            case {"version": int(version), "refused": str(name), "why": str(why)} if version == VERSION:
                raise _REFUSALS.get(name, Unavailable)(why)
            case {"version": int(version), "age_s": age_s, "found": list(found)} if version == VERSION:
                if not min(asked, 1) <= len(found) <= asked:
                    raise ValueError
                return Answer(
                    age_s=_number(age_s),
                    found=tuple(map(_decode_candidates, found)),
                    undecided=_decode_undecided(told.get("undecided", {}), len(found)),
                    faults=_decode_faults(told.get("faults", [])),
                )
    except (ValueError, TypeError, RecursionError) as error:
        raise Unavailable(f"an answer of shards makes no sense: {type(error).__name__}") from error
    raise Unavailable("an answer of shards makes no sense: it is of another form")


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
    near: list[JSON] = []
    for distance, some in itertools.groupby(candidates, key=lambda candidate: candidate.distance):
        ids = [candidate.content_id for candidate in some]
        near.append([distance, ids[0], *(later - earlier for earlier, later in itertools.pairwise(ids))])
    return near


def _decode_candidates(near: object) -> tuple[Candidate, ...]:
    if not isinstance(near, list):
        raise TypeError
    candidates: list[Candidate] = []
    for distance, *steps in near:
        if distance is not None:
            _number(distance, at_least=0 if not candidates else (candidates[-1].distance or 0) + 1)
        elif len(near) > 1:
            raise ValueError
        if not steps:
            raise ValueError
        content_id = 0
        for place, step in enumerate(steps):
            content_id += _number(step, at_least=min(place, 1))
            candidates.append(Candidate(content_id=_number(content_id), distance=distance))
    return tuple(candidates)


def _decode_undecided(told: object, found: int) -> Mapping[int, str]:
    if not isinstance(told, dict):
        raise TypeError
    return {_number(int(place), at_most=found - 1): _text(why) for place, why in told.items()}


def _number(value: object, *, at_least: int = 0, at_most: int = MAX_CONTENT_ID) -> int:
    if type(value) is not int or not at_least <= value <= at_most:
        raise ValueError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value
