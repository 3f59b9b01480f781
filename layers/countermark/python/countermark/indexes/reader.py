"""The reader of the published index. It loads a new version while the old one is still in use."""

import functools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from countermark.domain.index import IndexFault, Manifest, SegmentRef, ShardGroup
from countermark.domain.recent import Recent
from countermark.domain.signal import SignalType
from countermark.domain.stores import IndexStore
from countermark.errors import CountermarkError, IndexDamaged, IndexNotReady, NotFound, Unavailable
from countermark.indexes.arriving import BAND_SECTIONS, ArrivingSections, ReadAhead, with_retries
from countermark.indexes.codec import MAX_HEADER_BYTES, SegmentInfo, read_header
from countermark.indexes.segments import Searcher, Segment, open_segment, segment_of_sections
from countermark.indexes.shards import FanOut

MAX_AGE_S = 2
"""How long a reader uses a manifest before it checks for a newer manifest by the token, in seconds."""

RETRY_S = 30
"""The longest interval between two attempts to read a damaged segment, in seconds."""

NEWEST_TRIES = 3
"""If the segments of a signal type were removed, a lookup loads the newest index instead, up to this many times."""

MIN_ARRIVING_BYTES = 16 * 2**20
"""The smallest segment, in bytes, that answers while it is loading. A smaller segment loads in a fifth of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The part of an index to load. The default is the whole index.

    `group` selects shards; None selects all. If `bands` is False, bands of large segments are not read. Then a search
    is a scan, which finds the same matches, and the index takes 44 bytes of memory per PDQ hash, not some 110.
    """

    group: ShardGroup | None = None
    bands: bool = True


WHOLE_INDEX = Part()


@dataclass(slots=True, kw_only=True, eq=False)
class _LoadedType:
    """One signal type of a loaded index: its searcher and its segments by name. One thread at a time loads it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    searcher: FanOut | None = None
    segments: Mapping[str, Segment] = field(default_factory=dict)
    failure: CountermarkError | None = None
    """Why the last attempt to load the type failed; None if that attempt succeeded, or if the type was never loaded."""
    newest: str | None = None
    """The id of the newest build, if it could not be loaded and an older build is used instead; else None."""


class LoadedIndex:
    """One published index. The published index never changes. Each signal type is loaded when it is first used.

    Thread-safe. Only one thread loads a type, and a lookup in a loaded type never waits for other types.
    """

    def __init__(
        self,
        manifest: Manifest,
        token: str,
        *,
        store: IndexStore,
        signal_types: Mapping[str, SignalType],
        opened: Mapping[str, Segment],
        arriving: dict[str, ArrivingSections] | None = None,
        part: Part = WHOLE_INDEX,
        read_ahead: ReadAhead | None = None,
    ) -> None:
        self.manifest = manifest
        self.token = token
        self._store = store
        self.signal_types = signal_types
        self._opened = opened
        self._arriving = {} if arriving is None else arriving
        self._read_ahead = read_ahead
        self._shards = range(manifest.shards) if part.group is None else part.group.of(manifest.shards)
        self._bands = part.bands
        self._loading = {name: _LoadedType() for name in manifest.types if name in signal_types}

    @property
    def is_failing(self) -> bool:
        """Whether a type could not be loaded. Perhaps a newer index was published and the segments were removed."""
        return any(each.failure is not None and each.searcher is None for each in list(self._loading.values()))

    @property
    def is_mixed(self) -> bool:
        """Whether an older index answers for a type, because the type could not be loaded from this index."""
        return any(each.newest is not None for each in self._loading.values())

    def failures(self) -> Mapping[str, CountermarkError]:
        """Return, by signal type, why it is not completely in use: it could not be loaded, or a part did not arrive."""
        found = {name: each.failure or _first_fault(each.segments) for name, each in list(self._loading.items())}
        return {name: failure for name, failure in found.items() if failure is not None}

    def builds(self, signal_type: str) -> tuple[str | None, str | None]:
        """Return the id of a signal type's served build, or None if none is served, and the id of the newest build."""
        loading = self._loading[signal_type]
        published = self.manifest.types[signal_type].build_id
        return (None if loading.searcher is None else published), loading.newest or published

    def fall_back(self, signal_type: str, old: "LoadedIndex", failure: CountermarkError) -> None:
        """Let the older index `old` answer for a signal type that this index could not load, because of `failure`.

        The older index must have the same number of shards.
        """
        newest = self.manifest.types[signal_type].build_id
        self._loading[signal_type] = _LoadedType(
            searcher=old.searcher(signal_type),
            segments=old.loaded()[signal_type],
            failure=failure,
            newest=newest,
        )
        self.manifest = replace(
            self.manifest, types={**self.manifest.types, signal_type: old.manifest.types[signal_type]}
        )

    def searcher(self, signal_type: str) -> FanOut:
        """Return the searcher for a signal type. If the type is not loaded yet, load it.

        Raises:
            IndexNotReady: The index does not contain that type: it was not built, or the type is disabled.
            IndexDamaged: A segment is missing or fails a check.
        """
        loading = self._loading.get(signal_type)
        if loading is None:
            raise IndexNotReady(f"there is no index of {signal_type} signals yet")
        if loading.searcher is not None:
            return loading.searcher
        with loading.lock:
            if loading.searcher is None:
                # The segments are set first, because other threads read the segments once the searcher is set.
                try:
                    loading.segments, loading.searcher = self._load_newest(signal_type)
                except CountermarkError as error:
                    loading.failure = error
                    raise
                loading.failure = None
            return loading.searcher

    def age_s(self, now_s: int, signal_type: str | None = None) -> int:
        """Return the age of the index in seconds: the time since a build last found it up to date.

        With `signal_type`, return the age of that type; without it, the age of the oldest type. The age is at least 0,
        and it is 0 if the index contains no type.

        Raises:
            IndexNotReady: The index does not contain that type.
        """
        types = self.manifest.types
        if signal_type is not None and signal_type not in types:
            raise IndexNotReady(f"there is no index of {signal_type} signals yet")
        selected = types.values() if signal_type is None else [types[signal_type]]
        return max(0, now_s - min((index.checked_at_s for index in selected), default=now_s))

    def loaded(self) -> Mapping[str, Mapping[str, Segment]]:
        """Return the loaded segments, by signal type and then by the segment's name."""
        return {name: loading.segments for name, loading in self._loading.items() if loading.searcher is not None}

    def resume(self) -> None:
        """Continue to read large segments with missing parts, unless they are damaged."""
        for name, segment in self.segments():
            is_interrupted = segment.fault is not None and not isinstance(segment.fault, IndexDamaged)
            sections = self._arriving.get(name)
            if self._read_ahead is None and sections is not None and (is_interrupted or sections.has_stopped):
                sections.resume()
                segment.settle_later()

    def read_on(self) -> bool:
        """Read one missing range of the first incomplete large segment, and return whether a segment was incomplete.

        Call it only if no background thread reads between two lookups. A failure of the store is stored in the
        segment's `fault`. Ranges that have arrived stay in memory, and the next call reads the missing range again.
        """
        for name, segment in self.segments():
            sections = self._arriving.get(name)
            if sections is None or segment.is_settled or isinstance(segment.fault, IndexDamaged):
                continue
            try:
                if not sections.is_read:
                    sections.read_on()
                    segment.fault = None
                if sections.is_read:
                    segment.settle()
            except CountermarkError as error:
                segment.fault = error
            return True
        return False

    def segments(self) -> Iterator[tuple[str, Segment]]:
        """Yield the name and the segment of each loaded segment."""
        for loading in list(self._loading.values()):
            yield from list(loading.segments.items())

    def _load_newest(self, signal_type: str) -> tuple[Mapping[str, Segment], FanOut]:
        """Load a signal type. If builds have removed its segments in the meantime, load it from the newest index."""
        for _ in range(NEWEST_TRIES):
            try:
                return self._load(signal_type)
            except IndexDamaged:
                newest = self._store.manifest()
                manifest = None if newest is None else newest.manifest
                if manifest is None or manifest.shards != self.manifest.shards or signal_type not in manifest.types:
                    raise
                if manifest.types[signal_type].segments == self.manifest.types[signal_type].segments:
                    raise
                self.manifest = replace(
                    self.manifest, types={**self.manifest.types, signal_type: manifest.types[signal_type]}
                )
        return self._load(signal_type)

    def _load(self, signal_type: str) -> tuple[Mapping[str, Segment], FanOut]:
        refs = [ref for ref in self.manifest.types[signal_type].segments if ref.shard in self._shards]
        segments = {ref.name: self._open(signal_type, ref) for ref in refs}
        shards = [Searcher([segments[ref.name] for ref in refs if ref.shard == shard]) for shard in self._shards]
        return segments, FanOut(shards)

    def _open(self, signal_type: str, ref: SegmentRef) -> Segment:
        opened = self._opened.get(ref.name)
        if opened is not None:
            return opened
        if ref.size_bytes >= MIN_ARRIVING_BYTES:
            return self._open_arriving(signal_type, ref)
        data = _read(self._store, ref)
        segment = open_segment(data, self.signal_types[signal_type], sha256=ref.sha256)
        _check_counts(ref, segment.info, size_bytes=len(data))
        return segment

    def _open_arriving(self, signal_type: str, ref: SegmentRef) -> Segment:
        sections = self._arriving.get(ref.name)
        if sections is None:
            header = read_header(_read(self._store, ref, length=MAX_HEADER_BYTES))
            skip = () if self._bands else BAND_SECTIONS
            # The read function must not refer to this index. Such a reference cycle would occupy memory until a garbage
            # collection.
            read = functools.partial(_read_into, self._store, ref)
            sections = ArrivingSections(header, read, skip=skip, in_background=self._read_ahead is None)
            self._arriving[ref.name] = sections
        else:
            # The segment failed to open before, or a part did not arrive. Only the missing ranges are read.
            sections.resume()
        info = sections.header.info
        _check_counts(ref, info, size_bytes=sections.header.size_bytes)
        if self._read_ahead is not None:
            self._read_within(sections, self._read_ahead)
        segment = segment_of_sections(
            info if self._bands else replace(info, bands=()), sections, self.signal_types[signal_type]
        )
        if self._read_ahead is None:
            segment.settle_later()
        elif sections.is_read:
            # If the bands are damaged, `fault` of the segment has the error. The segment answers without the bands.
            with suppress(IndexDamaged):
                segment.settle()
        return segment

    def _read_within(self, sections: ArrivingSections, read_ahead: ReadAhead) -> None:
        """Read the sections that a match can need, so that no later lookup waits. Then read bands within the budget."""
        names = [each.name for each in sections.header.sections if each.name not in BAND_SECTIONS]
        sections.read(names)
        with suppress(Unavailable):
            # The segment answers without the bands, and the next lookup continues to read them.
            sections.read_on(ranges=read_ahead.reserve(sections.missing_ranges()))


class IndexReader:
    """Serves the published index, and checks for a newer one at most every `max_age_s` seconds.

    The request that finds a newer index loads the signal types that were in use. In the meantime, the old index answers
    other requests. In the first index, a large segment is used as soon as its first plane has arrived. In a newer
    index, a large segment is used as soon as it can decide every match. The remaining sections arrive later.

    If a signal type of the newer index cannot be loaded, the old index still answers for that type, and `faults`
    reports the reason. An interrupted read continues at the next check. A damaged segment is read again at
    increasing intervals. Thread-safe.
    """

    def __init__(
        self,
        store: IndexStore,
        signal_types: Mapping[str, SignalType],
        *,
        max_age_s: int = MAX_AGE_S,
        part: Part = WHOLE_INDEX,
        read_ahead: ReadAhead | None = None,
        refreshing: "threading.Lock | None" = None,
    ) -> None:
        """Serve an index, or a part of it. If several readers serve different shards, `FanOut` searches all of them.

        Pass `read_ahead` in a process that is frozen between two lookups, as on Lambda. Without it, background threads
        continue to read the index after a lookup was answered. Readers with the same lock in `refreshing` load their
        indexes one after the other.
        """
        self._store = store
        self._part = part
        self._signal_types = signal_types
        self._max_age_s = max_age_s
        self._read_ahead = read_ahead
        self._arriving: dict[str, ArrivingSections] = {}
        self._recent: Recent[LoadedIndex] = Recent(max_age_s=max_age_s, serves_stale=True, reading=refreshing)
        self._index: LoadedIndex | None = None
        self._failure: CountermarkError | None = None
        self._damaged_tries = 0
        self._retry_at_s = 0
        self._faults_lock = threading.Lock()
        self._since: Mapping[str | None, int] = {}

    @property
    def load_error(self) -> str | None:
        """Why the newest index, or a part of it, is not in use; None if all of it is in use."""
        return next((str(error) for error in self._failures().values()), None)

    def faults(self, now_s: int) -> Sequence[IndexFault]:
        """Return the reasons why the newest index, or a part of it, is not in use; empty if all of it is in use."""
        index, failures = self._index, self._failures()
        with self._faults_lock:
            self._since = {name: min(now_s, self._since.get(name, now_s)) for name in failures}
            since = self._since
        return tuple(
            IndexFault(
                signal_type=name,
                kind=type(error).__name__,
                reason=str(error),
                is_damage=isinstance(error, IndexDamaged | IndexNotReady),
                since_s=since[name],
                served=None if name is None or index is None else index.builds(name)[0],
                newest=None if name is None or index is None else index.builds(name)[1],
            )
            for name, error in failures.items()
        )

    def _failures(self) -> Mapping[str | None, CountermarkError]:
        """Return the failures by signal type; the key None means the whole index."""
        of_index: dict[str | None, CountermarkError] = {} if self._failure is None else {None: self._failure}
        return of_index | (dict(self._index.failures()) if self._index is not None else {})

    def current(self, now_s: int) -> LoadedIndex:
        """Return the index to answer from.

        With `read_ahead`, no background thread reads the index. Then this call also reads one missing range of it.

        Raises:
            IndexNotReady: No index has been published yet.
            IndexDamaged: The first index fails a check.
            Unavailable: The store cannot be reached, and no index was loaded before.
        """
        index = self.current_without_reading(now_s)
        if self._read_ahead is not None:
            read_one_range([index], self._read_ahead)
        return index

    def current_without_reading(self, now_s: int) -> LoadedIndex:
        """Return the same index as `current`, but do not read a missing range of it.

        Raises:
            IndexNotReady: No index has been published yet.
            IndexDamaged: The first index fails a check.
            Unavailable: The store cannot be reached, and no index was loaded before.
        """
        return self._recent.value(now_s, lambda: self._refreshed(now_s), is_usable=lambda index: not index.is_failing)

    def cached(self, now_s: int) -> LoadedIndex | None:
        """Return the index in memory if `current` would return this index without reading the store; else None."""
        return (
            None
            if self._read_ahead is not None
            else self._recent.cached(now_s, is_usable=lambda index: not index.is_failing)
        )

    def _refreshed(self, now_s: int) -> LoadedIndex:
        """Return the newest index, or the one in use if the newest cannot be loaded."""
        try:
            self._index = self._newest(now_s)
            self._failure = None
        except CountermarkError as error:
            self._failure = error
            if self._index is None:
                raise
        finally:
            # This records since when each fault has lasted.
            self.faults(now_s)
        if self._index is None:
            raise IndexNotReady("no index has been published yet")
        return self._index

    def _newest(self, now_s: int) -> LoadedIndex | None:
        old = self._index
        token = self._store.manifest_token()
        if old is not None and token == old.token:
            old.resume()
            # A damaged segment can have gigabytes, and stays damaged until a repair. So it is not read at every check.
            if not old.is_mixed or self._retry_at_s - RETRY_S <= now_s < self._retry_at_s:
                return old
        else:
            self._damaged_tries = 0
        published = self._store.manifest()
        if published is None:
            if old is not None:
                raise IndexNotReady("the published index was deleted")
            return None
        in_use = {} if old is None else old.loaded()
        wanted = in_use.keys() | (set() if old is None else old.failures().keys())
        index = LoadedIndex(
            published.manifest,
            published.token,
            store=self._store,
            signal_types=self._signal_types,
            opened=_still_open(old, published.manifest),
            arriving=self._arriving,
            part=self._part,
            read_ahead=self._read_ahead,
        )
        for name in sorted(wanted & published.manifest.types.keys() & self._signal_types.keys()):
            try:
                index.searcher(name)
                for segment in index.loaded()[name].values():
                    segment.wait()
            except CountermarkError as error:
                # Continue with the other types. A type that was never loaded is loaded at its next lookup.
                if old is None or name not in in_use:
                    continue
                if old.manifest.shards != index.manifest.shards:
                    raise
                index.fall_back(name, old, error)
        if index.is_mixed:
            self._damaged_tries += 1
            self._retry_at_s = now_s + min(RETRY_S, self._max_age_s * 2 ** min(self._damaged_tries - 1, 10))
        published_names = {ref.name for each in published.manifest.types.values() for ref in each.segments}
        for name in self._arriving.keys() - published_names - dict(index.segments()).keys():
            self._arriving.pop(name, None)
        return index


def read_one_range(indexes: Iterable[LoadedIndex], read_ahead: ReadAhead) -> None:
    """Read one missing range of the first index that is incomplete."""
    if read_ahead.lock.acquire(blocking=False):
        try:
            any(index.read_on() for index in indexes)
        finally:
            read_ahead.lock.release()


def _still_open(old: LoadedIndex | None, manifest: Manifest) -> Mapping[str, Segment]:
    """Return the segments of `manifest` that the index `old` has open and that have no fault, by name."""
    if old is None:
        return {}
    needed = {ref.name for index in manifest.types.values() for ref in index.segments}
    return {
        name: segment
        for segments in old.loaded().values()
        for name, segment in segments.items()
        if name in needed and segment.fault is None
    }


def _first_fault(segments: Mapping[str, Segment]) -> CountermarkError | None:
    return next((segment.fault for segment in segments.values() if segment.fault is not None), None)


def _read(store: IndexStore, ref: SegmentRef, offset: int = 0, length: int | None = None) -> bytes:
    try:
        return with_retries(lambda: store.read_segment(ref.name, offset=offset, length=length))
    except NotFound as error:
        raise IndexDamaged(f"the segment {ref.name} of the index is missing") from error


def _read_into(store: IndexStore, ref: SegmentRef, offset: int, memory: memoryview) -> int:
    try:
        return store.read_segment_into(ref.name, memory, offset=offset)
    except NotFound as error:
        raise IndexDamaged(f"the segment {ref.name} of the index is missing") from error


def _check_counts(ref: SegmentRef, info: SegmentInfo, *, size_bytes: int) -> None:
    if (info.hashes, info.entries, info.removed, size_bytes) != (ref.hashes, ref.entries, ref.removed, ref.size_bytes):
        raise IndexDamaged(f"the segment {ref.name} has other counts than the manifest states")
