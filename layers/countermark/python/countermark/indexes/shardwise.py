"""A reader that loads a new version of the index shard by shard.

While it loads, it needs memory for one additional shard, and not for a second copy of all shards.

A repair writes every segment of an index again. Loading all of them while the old index is still in memory would take
twice the memory. Loading shard by shard is safe: all entries of a content are in one shard, so shards of different
versions do not contradict each other.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from countermark.domain.index import IndexFault, Manifest, PublishedManifest, ShardGroup
from countermark.domain.signal import SignalType
from countermark.domain.stores import IndexStore
from countermark.errors import Unavailable
from countermark.indexes.arriving import ReadAhead
from countermark.indexes.reader import IndexReader, LoadedIndex, Part, read_one_range
from countermark.indexes.shards import FanOut, first_faults

MAX_AGE_S = 1
"""How long the manifest is cached, in seconds, and how long each shard can continue to use an older one after that.

The sum is the same as in other readers: `reader.MAX_AGE_S`.
"""

ALL_SHARDS = ShardGroup(number=0, groups=1)


class ShardwiseReader:
    """Serves shards of the published index, with one reader per shard. Thread-safe.

    If a shard of the newest version cannot be loaded, its old version stays in use.
    """

    def __init__(
        self,
        store: IndexStore,
        signal_types: Mapping[str, SignalType],
        *,
        group: ShardGroup = ALL_SHARDS,
        bands: bool = True,
        read_ahead: ReadAhead | None = None,
    ) -> None:
        """Serve the shards of a group. Without `bands`, the bands of large segments are not read: see `Part`.

        Pass `read_ahead` in a process that is frozen between two lookups, as on Lambda. Without it, background threads
        continue to read the index after a lookup was answered.
        """
        self._store = store
        self._signal_types = signal_types
        self._group = group
        self._bands = bands
        self._read_ahead = read_ahead
        self._manifests = IndexReader(store, signal_types, max_age_s=MAX_AGE_S)
        self._lock = threading.Lock()
        # Shards load one at a time. Two at once would need memory for two more shards, and would delay two lookups.
        self._refreshing = threading.Lock()
        self._pinned_store: _PinnedStore | None = None
        self._readers: Sequence[IndexReader] = ()

    def current(self, now_s: int) -> "ShardwiseIndex":
        """Return the index to answer from.

        With `read_ahead`, no thread reads between two lookups. Then this call also reads one missing range of the
        index.

        Raises:
            IndexNotReady: No index has been published yet.
            IndexDamaged: The first index fails a check.
            Unavailable: The store cannot be reached, and no index was loaded before; or the shard count has changed.
        """
        newest = self._manifests.current(now_s)
        readers = self._readers_of(newest)
        shards = [reader.current_without_reading(now_s) for reader in readers]
        if any(index.manifest.shards != newest.manifest.shards for index in shards):
            raise Unavailable("the index is changing: another shard count was published in the meantime")
        if self._read_ahead is not None:
            read_one_range(shards, self._read_ahead)
        return ShardwiseIndex(newest, shards)

    def faults(self, now_s: int) -> Sequence[IndexFault]:
        """Return the reasons why a shard does not use the newest index; empty if all shards use it."""
        return first_faults(fault for reader in (self._manifests, *self._readers) for fault in reader.faults(now_s))

    def _readers_of(self, newest: LoadedIndex) -> Sequence[IndexReader]:
        """Return one reader per shard. Each of them receives `newest` when it queries the published manifest."""
        manifest = newest.manifest
        with self._lock:
            store = self._pinned_store
            if store is None or store.published.manifest.shards != manifest.shards:
                # If the shard count changes, contents move between shards. So the loaded shards cannot be used.
                store = self._pinned_store = _PinnedStore(self._store, newest)
                self._readers = [
                    IndexReader(
                        store,
                        self._signal_types,
                        max_age_s=MAX_AGE_S,
                        part=self._part(shard, manifest),
                        read_ahead=self._read_ahead,
                        refreshing=self._refreshing,
                    )
                    for shard in self._group.of(manifest.shards)
                ]
            store.published = PublishedManifest(manifest=manifest, token=newest.token)
            return self._readers

    def _part(self, shard: int, manifest: Manifest) -> Part:
        return Part(group=ShardGroup(number=shard, groups=manifest.shards), bands=self._bands)


class ShardwiseIndex:
    """Shards of a published index. Some may still have the previous version."""

    def __init__(self, newest: LoadedIndex, shards: Sequence[LoadedIndex]) -> None:
        self._newest = newest
        self._shards = shards

    @property
    def manifest(self) -> Manifest:
        """The newest published manifest."""
        return self._newest.manifest

    @property
    def signal_types(self) -> Mapping[str, SignalType]:
        """The signal types by name."""
        return self._newest.signal_types

    def searcher(self, signal_type: str) -> FanOut:
        """Return the searcher for a signal type. Loads the type if it is not loaded yet.

        Raises:
            IndexNotReady: The index does not contain that type: it was not built, or the type is disabled.
            IndexDamaged: A segment is missing or fails a check.
        """
        return FanOut([shard.searcher(signal_type) for shard in self._shards])

    def age_s(self, now_s: int, signal_type: str | None = None) -> int:
        """Return the age of the index in seconds: the time since a build last found the oldest shard up to date.

        With `signal_type`, this is the age of that type. Without it, this is the age of the oldest type.

        Raises:
            IndexNotReady: The index does not contain that type.
        """
        return max(index.age_s(now_s, signal_type) for index in self._shards or [self._newest])


class _PinnedStore:
    """An index store that always returns the manifest in `published` as the published manifest."""

    def __init__(self, store: IndexStore, index: LoadedIndex) -> None:
        self._store = store
        self.published = PublishedManifest(manifest=index.manifest, token=index.token)

    def manifest(self) -> PublishedManifest:
        return self.published

    def manifest_token(self) -> str:
        return self.published.token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
