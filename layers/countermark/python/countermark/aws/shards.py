"""An index in Lambda functions. Each function holds a group of the index's shards, and a lookup calls all functions.

For a moment, one function can serve a newer version of the index than another function. The candidates are correct even
then, because each content is in exactly one shard. But all functions must use the same number of shards, because this
number decides which shard a content is in. So every question contains the number of shards.

If one function fails, the whole lookup fails. A lookup never returns partial results.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from botocore.exceptions import ClientError, ConnectionClosedError

from countermark.aws.batches import in_batches
from countermark.aws.errors import code, translate_errors
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

MAX_BATCH_VALUES = 100
"""The maximum number of values per question. A search for so many values in 100 million hashes takes some seconds."""

TOO_LARGE_REASON = f"functions of shards accept questions of at most {MAX_PAYLOAD_BYTES} bytes"
"""The reason why a text was not compared if it is too long for a question to functions."""

LONGEST_WAIT_S = 0.5
"""The longest wait before a throttled question is sent again, in seconds. Other questions end in the meantime."""

AGE_CACHE_S = 5
"""How long the age of the shards is cached, in seconds.

The cache limits the number of calls, because any client can request the status.
"""

THROTTLED = frozenset({"EC2ThrottledException", "ServiceException", "TooManyRequestsException"})
"""The error codes of an invocation that did not start, but can start a moment later.

Source: Lambda API reference, Invoke.
"""


Target = TypeVar("Target")
Result = TypeVar("Result")


class LambdaClient(Protocol):
    """The part of boto3's Lambda client that this package uses."""

    def invoke(self, *, FunctionName: str, Payload: bytes) -> Mapping[str, Any]:  # noqa: N803 - boto3's names
        """Run a function and wait for its response."""


class ShardFunctions:
    """The functions that together hold an index. Several threads can use one object at the same time."""

    def __init__(self, client: LambdaClient, names: Sequence[str]) -> None:
        self._client = client
        self._names = tuple(names)
        self._threads = ThreadPoolExecutor(len(self._names), thread_name_prefix="countermark-shards")
        self._age_lock = threading.Lock()
        self._checked_at_s: dict[str | None, Recent[int]] = {}
        self._faults: Sequence[IndexFault] = ()

    def searcher(self, signal_type: str, *, shards: int) -> FanOut:
        """Return a searcher of a signal type, for an index with this number of shards."""
        question = Question(shards=shards, signal_type=signal_type)
        groups = [_Group(functions=self, name=name, question=question) for name in self._names]

        def map_shards(search: Callable[[ShardSearcher], Answers], _: Sequence[ShardSearcher]) -> Sequence[Answers]:
            stop = threading.Event()
            return self._call_all(search, [replace(group, stop=stop) for group in groups], stop=stop)

        return FanOut(groups, map_shards=map_shards)

    def age_s(self, now_s: int, signal_type: str | None = None, *, shards: int) -> int:
        """Return the age of the oldest index that any function serves, in seconds. The age is cached for `AGE_CACHE_S`.

        Raises:
            IndexNotReady: A function has no index yet, or no index of the signal type.
            Unavailable: A function cannot answer.
        """

        def checked_at_s() -> int:
            question = Question(shards=shards, signal_type=signal_type)
            answers = self._call_all(lambda name: self.call(name, question), self._names, stop=threading.Event())
            self._faults = first_faults(fault for answer in answers for fault in answer.faults)
            return now_s - max(answer.age_s for answer in answers)

        recent = self._checked_at_s.setdefault(signal_type, Recent(max_age_s=AGE_CACHE_S, reading=self._age_lock))
        return max(0, now_s - recent.value(now_s, checked_at_s))

    def faults(self) -> Sequence[IndexFault]:
        """Return the reasons why functions do not serve the newest index.

        The functions reported these reasons when their age was last requested.
        """
        return self._faults

    def call(self, name: str, question: Question) -> Answer:
        """Send a question to one function and return its answer.

        Retry once if the function is throttled or if an idle connection was closed.

        Raises:
            IndexNotReady: The function has no index yet, or no index of the signal type.
            IndexDamaged: A segment of its shards fails a check.
            Unavailable: The function failed, refused, or took too long.
        """
        payload = encode_question(question)
        try:
            with translate_errors("Lambda"):
                response = self._invoke(name, payload)
                answer: bytes = response["Payload"].read()
        except Unavailable as error:
            raise Unavailable(f"a part of the index does not answer: {error}") from error
        if "FunctionError" in response:
            # The message leaves out the error in the payload, because the error can quote the question.
            raise Unavailable(f"a part of the index does not answer: {name} failed")
        return decode_answer(answer, value_count=len(question.values))

    def _call_all(
        self, call: Callable[[Target], Result], targets: Sequence[Target], *, stop: threading.Event
    ) -> Sequence[Result]:
        """Call `call` with each target, in parallel, and return the results in the order of the targets.

        If a call fails, wait until no call is running, and raise the first error. Lambda can freeze this process after
        it has returned its response. A freeze breaks the connections of calls that are still running. Such a call would
        block a thread that the next lookup needs.
        """
        futures = [self._threads.submit(call, target) for target in targets]
        done, running = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((future for future in futures if future in done and future.exception() is not None), None)
        if failed is not None:
            stop.set()
            for future in running:
                future.cancel()
            wait(running)
            failed.result()
        return [future.result() for future in futures]

    def _invoke(self, name: str, payload: bytes) -> Mapping[str, Any]:
        try:
            return self._client.invoke(FunctionName=name, Payload=payload)
        except ClientError as error:
            if code(error) not in THROTTLED:
                raise
        except ConnectionClosedError:
            # A Lambda function is frozen between two requests, and its connections can be closed in the meantime.
            pass
        time.sleep(random.uniform(0.0, LONGEST_WAIT_S))  # noqa: S311 - spreads load, guards nothing
        return self._client.invoke(FunctionName=name, Payload=payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The shards of one function, as a searcher for `FanOut`. `stop` is set when another function has failed."""

    functions: ShardFunctions
    name: str
    question: Question
    stop: threading.Event = field(default_factory=threading.Event)

    def query_batch(
        self, values: Sequence[str], *, max_distance: int | None = None, undecided: dict[int, str] | None = None
    ) -> Answers:
        found: list[Sequence[Candidate]] = [()] * len(values)
        reasons = {} if undecided is None else undecided
        # Without `undecided`, a value that is too large must cause an error. So no value is left out in that case.
        positions = [
            position
            for position, value in enumerate(values)
            if undecided is None or value_bytes(value) <= MAX_PAYLOAD_BYTES
        ]
        reasons |= dict.fromkeys({*range(len(values))}.difference(positions), TOO_LARGE_REASON)
        small = [values[position] for position in positions]
        done = 0
        for batch in in_batches(
            small, max_entries=MAX_BATCH_VALUES, max_bytes=MAX_PAYLOAD_BYTES, size_bytes=value_bytes
        ):
            remaining = tuple(batch)
            while remaining:
                if self.stop.is_set():
                    raise Unavailable("another part of the index does not answer")
                question = replace(self.question, values=remaining, max_distance=max_distance)
                answer = self.functions.call(self.name, question)
                reasons |= {positions[done + position]: reason for position, reason in answer.undecided.items()}
                for candidates in answer.found:
                    found[positions[done]] = list(candidates)
                    done += 1
                remaining = remaining[len(answer.found) :]
        return found


class ShardedIndexReader:
    """Serves an index that functions hold. This process reads only the manifest.

    Several threads can use one object at the same time.
    """

    def __init__(self, manifests: IndexProvider, functions: ShardFunctions) -> None:
        """Serve the index of the manifest that `manifests` reads. `manifests` is not used for searches."""
        self._manifests = manifests
        self._functions = functions

    def current(self, now_s: int) -> "ShardedIndex":
        """Return the index with which lookups are answered now.

        Raises:
            IndexNotReady: No index has been published yet.
            IndexDamaged: The manifest fails a check.
            Unavailable: The store cannot be reached, and no manifest was read before.
        """
        return ShardedIndex(self._manifests.current(now_s), self._functions)

    def faults(self, now_s: int) -> Sequence[IndexFault]:
        """Return the reasons why this process or a function does not serve the newest index; empty if all serve it."""
        return first_faults([*self._manifests.faults(now_s), *self._functions.faults()])


class ShardedIndex:
    """One published index, and the functions that hold it.

    For a moment, a function can serve the version before or after this index.
    """

    def __init__(self, index: PublishedIndex, functions: ShardFunctions) -> None:
        self._index = index
        self._functions = functions

    @property
    def manifest(self) -> Manifest:
        """The manifest of the published index."""
        return self._index.manifest

    @property
    def signal_types(self) -> Mapping[str, SignalType]:
        """The signal types by name."""
        return self._index.signal_types

    def searcher(self, signal_type: str) -> FanOut:
        """Return a searcher of a signal type.

        Raises:
            IndexNotReady: The index does not hold this type. It was never built, or the type is switched off.
        """
        if signal_type not in self.manifest.types or signal_type not in self.signal_types:
            raise IndexNotReady(f"there is no index of {signal_type} signals yet")
        return self._functions.searcher(signal_type, shards=self.manifest.shards)

    def age_s(self, now_s: int, signal_type: str | None = None) -> int:
        """Return the age of the oldest version that any function serves, in seconds.

        The age is the time since a build last found this version current.

        Raises:
            IndexNotReady: The index, or a function, does not hold that type.
            Unavailable: A function cannot answer.
        """
        manifest_age_s = self._index.age_s(now_s, signal_type)
        return max(manifest_age_s, self._functions.age_s(now_s, signal_type, shards=self.manifest.shards))


def answer_event(reader: IndexProvider, event: object, *, now_s: int) -> dict[str, JSON]:
    """Answer the question of an event from the shards of this process. Return an answer or a refusal as JSON.

    Raises:
        InvalidInput: The event is not a question.
    """
    question = decode_question(event)
    try:
        answer = _answer(reader.current(now_s), question, now_s=now_s)
        # A question without values requests the state of the index, so its answer includes the faults.
        return encode_answer(replace(answer, faults=tuple(reader.faults(now_s))) if not question.values else answer)
    except Unavailable as error:
        return encode_refusal(error)


def _answer(index: PublishedIndex, question: Question, *, now_s: int) -> Answer:
    if index.manifest.shards != question.shards:
        raise Unavailable(
            f"the index is changing: this function has {index.manifest.shards} shards, not {question.shards}"
        )
    age_s = index.age_s(now_s, question.signal_type)
    if question.signal_type is None:
        return Answer(age_s=age_s)
    searcher = index.searcher(question.signal_type)
    undecided: dict[int, str] = {}
    found = searcher.query_batch(question.values, max_distance=question.max_distance, undecided=undecided)
    return Answer(age_s=age_s, found=tuple(map(tuple, found)), undecided=undecided)
