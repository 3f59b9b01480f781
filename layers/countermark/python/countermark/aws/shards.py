"""An index whose shards lie in functions: each holds a group of them, and all are asked at once.

A content is in one shard, so it does not matter that one function serves a newer version than another for a
moment: each tells what is true of its own contents. What has to agree is the shard count, as that says which
contents are whose; so it stands in every question. Where one function fails, the whole lookup does: there is
never an answer of a part.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from botocore.exceptions import ClientError, ConnectionClosedError

from countermark.aws.batches import batched
from countermark.aws.errors import code, translated
from countermark.aws.shard_json import (
    MAX_PAYLOAD_BYTES,
    Answer,
    Question,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
    encode_refusal,
    value_bytes,
)
from countermark.domain.decision import Candidate
from countermark.domain.index import IndexFault, Manifest
from countermark.domain.json import JSON
from countermark.domain.recent import Recent
from countermark.domain.signal import SignalType
from countermark.errors import IndexNotReady, Unavailable
from countermark.indexes.shards import Answers, FanOut, IndexProvider, PublishedIndex, ShardSearcher, first_faults

MAX_ASKED = 100
"""How many values one question holds: a group of a hundred million hashes scans for as many in some seconds."""

TOO_LARGE_TO_ASK = f"functions of shards take questions of at most {MAX_PAYLOAD_BYTES} bytes"
"""Why a long text is not compared where the index lies in functions."""

LONGEST_WAIT_S = 0.5
"""The longest wait before a throttled question is asked again: some questions are answered meanwhile."""

AGE_KEPT_S = 5
"""How long the age of the shards is relied upon, in seconds: anybody may ask for the status."""

THROTTLED = frozenset({"EC2ThrottledException", "ServiceException", "TooManyRequestsException"})
"""Codes of an invocation that never came to run, and may a moment later. Source: Lambda API reference, Invoke."""


Asked = TypeVar("Asked")
Told = TypeVar("Told")


class Invokes(Protocol):
    """The part of boto3's client of Lambda that is needed here."""

    def invoke(self, *, FunctionName: str, Payload: bytes) -> Mapping[str, Any]:  # noqa: N803 - boto3's names
        """Run a function and wait for its answer."""


class ShardFunctions:
    """The functions that hold an index between them. Safe for threads."""

    def __init__(self, client: Invokes, names: Sequence[str]) -> None:
        self._client = client
        self._names = tuple(names)
        self._threads = ThreadPoolExecutor(len(self._names), thread_name_prefix="countermark-shards")
        self._asking = threading.Lock()
        self._checked_at_s: dict[str | None, Recent[int]] = {}
        self._faults: Sequence[IndexFault] = ()

    def searcher(self, signal_type: str, *, shards: int) -> FanOut:
        """Return what searches a signal type of an index of so many shards."""
        question = Question(shards=shards, signal_type=signal_type)
        groups = [_Group(functions=self, name=name, question=question) for name in self._names]

        def map_shards(ask: Callable[[ShardSearcher], Answers], _: Sequence[ShardSearcher]) -> Sequence[Answers]:
            stop = threading.Event()
            return self._at_once(ask, [replace(group, stop=stop) for group in groups], stop=stop)

        return FanOut(groups, map_shards=map_shards)

    def age_s(self, now_s: int, signal_type: str | None = None, *, shards: int) -> int:
        """Return the age of the oldest version that a function serves, as it was some seconds ago or is now.

        Raises:
            IndexNotReady: A function has no index yet, or none of that signal type.
            Unavailable: A function cannot answer.
        """

        def checked_at_s() -> int:
            question = Question(shards=shards, signal_type=signal_type)
            answers = self._at_once(lambda name: self.ask(name, question), self._names, stop=threading.Event())
            self._faults = first_faults(fault for answer in answers for fault in answer.faults)
            return now_s - max(answer.age_s for answer in answers)

        recent = self._checked_at_s.setdefault(signal_type, Recent(max_age_s=AGE_KEPT_S, reading=self._asking))
        return max(0, now_s - recent.value(now_s, checked_at_s))

    def faults(self) -> Sequence[IndexFault]:
        """Return why functions do not serve the newest index, as they said when they were last asked for its age."""
        return self._faults

    def ask(self, name: str, question: Question) -> Answer:
        """Ask one function; once more where it is throttled, or the connection was closed while nobody used it.

        Raises:
            IndexNotReady: It has no index yet, or none of that signal type.
            IndexDamaged: A segment of its shards fails a check.
            Unavailable: It failed, refused, or took too long.
        """
        payload = encode_question(question)
        try:
            with translated("Lambda"):
                invoked = self._invoked(name, payload)
                answer: bytes = invoked["Payload"].read()
        except Unavailable as error:
            raise Unavailable(f"a part of the index does not answer: {error}") from error
        if "FunctionError" in invoked:
            # What it says of its failure may hold what was asked.
            raise Unavailable(f"a part of the index does not answer: {name} failed")
        return decode_answer(answer, asked=len(question.values))

    def _at_once(
        self, ask: Callable[[Asked], Told], asked: Sequence[Asked], *, stop: threading.Event
    ) -> Sequence[Told]:
        """Return what each of several is answered, in their order; raises what failed first, once nothing is under way.

        After an answer this process may be frozen. A question that went on would find its connection broken, and keep
        a thread from the next lookup until then.
        """
        futures = [self._threads.submit(ask, each) for each in asked]
        done, under_way = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((future for future in futures if future in done and future.exception() is not None), None)
        if failed is not None:
            stop.set()
            for future in under_way:
                future.cancel()
            wait(under_way)
            failed.result()
        return [future.result() for future in futures]

    def _invoked(self, name: str, payload: bytes) -> Mapping[str, Any]:
        try:
            return self._client.invoke(FunctionName=name, Payload=payload)
        except ClientError as error:
            if code(error) not in THROTTLED:
                raise
        except ConnectionClosedError:
            # A Lambda is frozen between two requests, and its connections are closed meanwhile.
            pass
        time.sleep(random.uniform(0.0, LONGEST_WAIT_S))  # noqa: S311 - spreads load, guards nothing
        return self._client.invoke(FunctionName=name, Payload=payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The shards of one function, as `FanOut` asks them. `stop` is set once another function has failed."""

    functions: ShardFunctions
    name: str
    question: Question
    stop: threading.Event = field(default_factory=threading.Event)

    def query_batch(
        self, values: Sequence[str], *, max_distance: int | None = None, undecided: dict[int, str] | None = None
    ) -> Answers:
        found: list[Sequence[Candidate]] = [()] * len(values)
        why = {} if undecided is None else undecided
        # Who does not take what is undecided is to get an error for it.
        places = [
            place for place, value in enumerate(values) if undecided is None or value_bytes(value) <= MAX_PAYLOAD_BYTES
        ]
        why |= dict.fromkeys({*range(len(values))}.difference(places), TOO_LARGE_TO_ASK)
        asked = [values[place] for place in places]
        done = 0
        for batch in batched(asked, max_entries=MAX_ASKED, max_bytes=MAX_PAYLOAD_BYTES, size_bytes=value_bytes):
            left = tuple(batch)
            while left:
                if self.stop.is_set():
                    raise Unavailable("another part of the index does not answer")
                question = replace(self.question, values=left, max_distance=max_distance)
                answer = self.functions.ask(self.name, question)
                why |= {places[done + place]: reason for place, reason in answer.undecided.items()}
                for candidates in answer.found:
                    found[places[done]] = list(candidates)
                    done += 1
                left = left[len(answer.found) :]
        return found


class ShardedIndexReader:
    """Serves an index that functions hold: here is the manifest alone. Safe for threads."""

    def __init__(self, manifests: IndexProvider, functions: ShardFunctions) -> None:
        """Serve what `manifests` reads of the index, of which nothing is searched here."""
        self._manifests = manifests
        self._functions = functions

    def current(self, now_s: int) -> "ShardedIndex":
        """Return the index to answer from.

        Raises:
            IndexNotReady: None has been published yet.
            IndexDamaged: The manifest fails a check.
            Unavailable: The store cannot be reached, and none was read before.
        """
        return ShardedIndex(self._manifests.current(now_s), self._functions)

    def faults(self, now_s: int) -> Sequence[IndexFault]:
        """Return why the newest index is not the one in use, here or in a function; none where it is."""
        return first_faults([*self._manifests.faults(now_s), *self._functions.faults()])


class ShardedIndex:
    """One published index, and the functions that hold it. They may serve the version before, or after it."""

    def __init__(self, index: PublishedIndex, functions: ShardFunctions) -> None:
        self._index = index
        self._functions = functions

    @property
    def manifest(self) -> Manifest:
        """What was published."""
        return self._index.manifest

    @property
    def signal_types(self) -> Mapping[str, SignalType]:
        """The signal types by name."""
        return self._index.signal_types

    def searcher(self, signal_type: str) -> FanOut:
        """Return what searches a signal type.

        Raises:
            IndexNotReady: The index does not hold that type: none was built, or it is switched off.
        """
        if signal_type not in self.manifest.types or signal_type not in self.signal_types:
            raise IndexNotReady(f"there is no index of {signal_type} signals yet")
        return self._functions.searcher(signal_type, shards=self.manifest.shards)

    def age_s(self, now_s: int, signal_type: str | None = None) -> int:
        """Return how long ago a build last found the oldest version current that a function serves.

        Raises:
            IndexNotReady: The index, or a function, does not hold that type.
            Unavailable: A function cannot answer.
        """
        here_s = self._index.age_s(now_s, signal_type)
        return max(here_s, self._functions.age_s(now_s, signal_type, shards=self.manifest.shards))


def answer_event(reader: IndexProvider, event: object, *, now_s: int) -> dict[str, JSON]:
    """Answer the question of an event from the shards of this process, or say why not: as `ShardFunctions` reads it.

    Raises:
        InvalidInput: The event is no question.
    """
    question = decode_question(event)
    try:
        answer = _answer(reader.current(now_s), question, now_s=now_s)
        # Who asks for the age alone asks how the index is.
        return encode_answer(replace(answer, faults=tuple(reader.faults(now_s))) if not question.values else answer)
    except Unavailable as error:
        return encode_refusal(error)


def _answer(index: PublishedIndex, question: Question, *, now_s: int) -> Answer:
    if index.manifest.shards != question.shards:
        raise Unavailable(f"the index is changing: {index.manifest.shards} shards here, asked for {question.shards}")
    age_s = index.age_s(now_s, question.signal_type)
    if question.signal_type is None:
        return Answer(age_s=age_s)
    searcher = index.searcher(question.signal_type)
    undecided: dict[int, str] = {}
    found = searcher.query_batch(question.values, max_distance=question.max_distance, undecided=undecided)
    return Answer(age_s=age_s, found=tuple(map(tuple, found)), undecided=undecided)
