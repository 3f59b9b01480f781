"""A reader that takes a new version shard by shard: the memory of one shard more, and not of all of them.

A repair writes every segment of an index anew, and to load that beside the old index would take twice the
memory. But shards need not be of one version: a content is in one of them, with all that is said of it.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from countermark.domain.index import IndexFault, Manifest, PublishedManifest, ShardGroup
from countermark.domain.signal import SignalType
from countermark.domain.stores import IndexStore
from countermark.errors import Unavailable
from countermark.indexes.arriving import ReadAhead
from countermark.indexes.reader import IndexReader, LoadedIndex, Part, read_one
from countermark.indexes.shards import FanOut, first_faults

MAX_AGE_S = 1
"""How long the manifest is relied upon, and then how long each shard relies on it: together as long as elsewhere."""

WHOLE = ShardGroup(number=0, groups=1)


class ShardwiseReader:
    """Serves shards of the published index, each by a reader of its own. Safe for threads.

    Where a shard of the newest version cannot be loaded, its old one stays.
    """

    def __init__(
        self,
        store: IndexStore,
        signal_types: Mapping[str, SignalType],
        *,
        group: ShardGroup = WHOLE,
        bands: bool = True,
        ahead: ReadAhead | None = None,
    ) -> None:
        """Serve the shards of a group; without `bands` those of large segments stay unread: see `Part`.

        `ahead` is for a process that is frozen between two lookups. Without it, threads read on after an answer.
        """
        self._store = store
        self._signal_types = signal_types
        self._group = group
        self._bands = bands
        self._ahead = ahead
        self._manifests = IndexReader(store, signal_types, max_age_s=MAX_AGE_S)
        self._lock = threading.Lock()
        # Two shards at once would take the memory of two shards more, and keep two lookups waiting.
        self._refreshing = threading.Lock()
        self._published: _Published | None = None
        self._readers: Sequence[IndexReader] = ()

    def current(self, now_s: int) -> "ShardwiseIndex":
        """Return the index to answer from, and read a range of it where nothing is read between two lookups.

        Raises:
            IndexNotReady: None has been published yet.
            IndexDamaged: The first one fails a check.
            Unavailable: The store cannot be reached, and none was loaded before; or the shard count has changed.
        """
        newest = self._manifests.current(now_s)
        readers = self._readers_of(newest)
        shards = [reader.look(now_s) for reader in readers]
        if any(index.manifest.shards != newest.manifest.shards for index in shards):
            raise Unavailable("the index is changing: another shard count was published meanwhile")
        if self._ahead is not None:
            read_one(shards, self._ahead)
        return ShardwiseIndex(newest, shards)

    def faults(self, now_s: int) -> Sequence[IndexFault]:
        """Return why the newest index is not the one in use in every shard; none where it is."""
        return first_faults(fault for reader in (self._manifests, *self._readers) for fault in reader.faults(now_s))

    def _readers_of(self, newest: LoadedIndex) -> Sequence[IndexReader]:
        """Return a reader of each shard, which finds the newest manifest as published."""
        manifest = newest.manifest
        with self._lock:
            published = self._published
            if published is None or published.told.manifest.shards != manifest.shards:
                # Shards of another count hold other contents: what is loaded of those is of no more use.
                published = self._published = _Published(self._store, newest)
                self._readers = [
                    IndexReader(
                        published,
                        self._signal_types,
                        max_age_s=MAX_AGE_S,
                        part=self._part(shard, manifest),
                        ahead=self._ahead,
                        refreshing=self._refreshing,
                    )
                    for shard in self._group.of(manifest.shards)
                ]
            published.told = PublishedManifest(manifest=manifest, token=newest.token)
            return self._readers

    def _part(self, shard: int, manifest: Manifest) -> Part:
        return Part(group=ShardGroup(number=shard, groups=manifest.shards), bands=self._bands)


class ShardwiseIndex:
    """Shards of a published index, of which some may be of the version before."""

    def __init__(self, newest: LoadedIndex, shards: Sequence[LoadedIndex]) -> None:
        self._newest = newest
        self._shards = shards

    @property
    def manifest(self) -> Manifest:
        """What was published last."""
        return self._newest.manifest

    @property
    def signal_types(self) -> Mapping[str, SignalType]:
        """The signal types by name."""
        return self._newest.signal_types

    def searcher(self, signal_type: str) -> FanOut:
        """Return what searches a signal type; loads it where nobody did yet.

        Raises:
            IndexNotReady: The index does not hold that type: none was built, or it is switched off.
            IndexDamaged: A segment is missing or fails a check.
        """
        return FanOut([shard.searcher(signal_type) for shard in self._shards])

    def age_s(self, now_s: int, signal_type: str | None = None) -> int:
        """Return how long ago a build last found the oldest shard current: of one type, or of the oldest.

        Raises:
            IndexNotReady: The index does not hold that type.
        """
        return max(index.age_s(now_s, signal_type) for index in self._shards or [self._newest])


class _Published:
    """An index store as readers see it, in which one manifest is the published one."""

    def __init__(self, store: IndexStore, index: LoadedIndex) -> None:
        self._store = store
        self.told = PublishedManifest(manifest=index.manifest, token=index.token)

    def manifest(self) -> PublishedManifest:
        return self.told

    def manifest_token(self) -> str:
        return self.told.token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
