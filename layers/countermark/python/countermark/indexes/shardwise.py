"""A reader that loads a new version shard by shard. It needs the memory of one more shard, instead of all of them.

A repair writes every segment of an index again. Loading all of them next to the old index would take twice the
memory. But shards can have different versions, because all entries of a content are in one shard.
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
"""How long the manifest is used, and how long each shard uses it after that, in seconds.

Together they are as long as in other readers.
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
        ahead: ReadAhead | None = None,
    ) -> None:
        """Serve the shards of a group. Without `bands`, the bands of large segments are not read: see `Part`.

        `ahead` is for a process that is frozen between two lookups. Without it, threads continue to read after an
        answer.
        """
        self._store = store
        self._signal_types = signal_types
        self._group = group
        self._bands = bands
        self._ahead = ahead
        self._manifests = IndexReader(store, signal_types, max_age_s=MAX_AGE_S)
        self._lock = threading.Lock()
        # Two shards at once would need the memory of two more shards, and two lookups would wait.
        self._refreshing = threading.Lock()
        self._pinned_store: _PinnedStore | None = None
        self._readers: Sequence[IndexReader] = ()

    def current(self, now_s: int) -> "ShardwiseIndex":
        """Return the index to answer from. If nothing is read between two lookups, read one missing range of it.

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
        if self._ahead is not None:
            read_one_range(shards, self._ahead)
        return ShardwiseIndex(newest, shards)

    def faults(self, now_s: int) -> Sequence[IndexFault]:
        """Return why the newest index is not in use in every shard; empty if it is."""
        return first_faults(fault for reader in (self._manifests, *self._readers) for fault in reader.faults(now_s))

    def _readers_of(self, newest: LoadedIndex) -> Sequence[IndexReader]:
        """Return a reader per shard. The readers see the newest manifest as the published one."""
        manifest = newest.manifest
        with self._lock:
            store = self._pinned_store
            if store is None or store.published.manifest.shards != manifest.shards:
                # With another shard count, shards contain other contents. So the loaded shards are of no use.
                store = self._pinned_store = _PinnedStore(self._store, newest)
                self._readers = [
                    IndexReader(
                        store,
                        self._signal_types,
                        max_age_s=MAX_AGE_S,
                        part=self._part(shard, manifest),
                        ahead=self._ahead,
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
        """Return how long ago a build last found the oldest shard current, in seconds.

        This is the age of one type or, without `signal_type`, of the oldest.

        Raises:
            IndexNotReady: The index does not contain that type.
        """
        return max(index.age_s(now_s, signal_type) for index in self._shards or [self._newest])


class _PinnedStore:
    """An index store that reports one given manifest as the published one."""

    def __init__(self, store: IndexStore, index: LoadedIndex) -> None:
        self._store = store
        self.published = PublishedManifest(manifest=index.manifest, token=index.token)

    def manifest(self) -> PublishedManifest:
        return self.published

    def manifest_token(self) -> str:
        return self.published.token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
