"""A store with its index, what happens to both, and an oracle: for tests of builds and of repairs."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from countermark.domain.bank import (
    ENABLED,
    PERMANENTLY_DISABLED,
    BankChange,
    BankContent,
    ContentChange,
    ContentDraft,
    is_indexed,
)
from countermark.domain.decision import Candidate
from countermark.domain.index import (
    DEFAULT_LIMITS,
    IndexLimits,
    Manifest,
    PublishedManifest,
)
from countermark.domain.signal import SignalType
from countermark.domain.stores import BankStore, IndexStore, ManifestSlot
from countermark.errors import PublishConflict, Unavailable
from countermark.flows.index import IndexReport, build_index
from countermark.indexes.reader import IndexReader, LoadedIndex
from countermark.local.banks import SqliteBankStore
from countermark.local.database import Database
from countermark.local.index import FileIndexStore
from countermark.signals import SIGNAL_TYPES
from tests.indexes.oracle import answer

NOW_S = 1_750_000_000
PDQ = SIGNAL_TYPES["pdq"]
TWO_TYPES = {name: SIGNAL_TYPES[name] for name in ("pdq", "video_md5")}


def pdq(bits: int) -> str:
    """Return a PDQ signal with so many bits set: its distance from the one with none."""
    return f"{(1 << bits) - 1:064x}"


def md5(n: int) -> str:
    return f"{n:032x}"


@dataclass(kw_only=True)
class House:
    """A store, its index, and all content ids that there ever were."""

    banks: BankStore
    index: IndexStore
    signal_types: Mapping[str, SignalType] = field(default_factory=lambda: SIGNAL_TYPES)
    ids: list[int] = field(default_factory=list)

    def add(self, bank_id: int, **signals: str) -> int:
        content = self.banks.add_content(bank_id, ContentDraft(signals=signals), now_s=NOW_S)
        self.ids.append(content.id)
        return content.id

    def add_many(self, bank_id: int, signals: Sequence[Mapping[str, str]]) -> list[int]:
        ids = list(self.banks.allot_content_ids(len(signals)))
        for start in range(0, len(ids), 1_000):
            self.banks.put_contents(
                [
                    BankContent(id=content_id, bank_id=bank_id, signals=signals[content_id - ids[0]])
                    for content_id in ids[start : start + 1_000]
                ]
            )
        self.ids += ids
        return ids

    def build(
        self,
        now_s: int = NOW_S,
        *,
        full: bool = False,
        shards: int | None = None,
        limits: IndexLimits = DEFAULT_LIMITS,
    ) -> IndexReport:
        return build_index(
            self.banks, self.index, self.signal_types, now_s=now_s, full=full, shards=shards, limits=limits
        )

    def manifest(self) -> Manifest:
        published = self.index.manifest()
        assert published is not None
        return published.manifest

    def query(self, type_name: str, value: str) -> Sequence[Candidate]:
        return IndexReader(self.index, self.signal_types).current(NOW_S).searcher(type_name).query(value)

    def found(self, type_name: str, value: str) -> list[int]:
        return sorted(candidate.content_id for candidate in self.query(type_name, value))

    def entries(self, type_name: str) -> list[tuple[str, int]]:
        """Return what an index built from the whole store holds."""
        banks = {bank.id: bank for bank in self.banks.banks()}
        contents = [
            content
            for start in range(0, len(self.ids), 1_000)
            for content in self.banks.contents(self.ids[start : start + 1_000]).values()
        ]
        return [
            (content.signals[type_name], content.id)
            for content in contents
            if type_name in content.signals and is_indexed(banks.get(content.bank_id), content)
        ]


@contextmanager
def new_house(signal_types: Mapping[str, SignalType] = SIGNAL_TYPES) -> Iterator[House]:
    with Database.in_memory() as database, tempfile.TemporaryDirectory() as directory:
        yield House(banks=SqliteBankStore(database), index=FileIndexStore(Path(directory)), signal_types=signal_types)


@dataclass(kw_only=True)
class Meddler:
    """An index store where something happens before the n-th write, counted from 0."""

    store: IndexStore
    at: int
    happens: Callable[[], object]
    writes: int = 0

    def _write(self) -> None:
        self.writes += 1
        if self.writes - 1 == self.at:
            self.happens()

    def manifest(self) -> PublishedManifest | None:
        return self.store.manifest()

    def manifest_token(self) -> str | None:
        return self.store.manifest_token()

    @property
    def staged(self) -> ManifestSlot:
        return MeddledSlot(slot=self.store.staged, of=self)

    def publish(self, manifest: Manifest, *, replaces: str | None) -> PublishedManifest:
        self._write()
        return self.store.publish(manifest, replaces=replaces)

    def write_segment(self, name: str, data: bytes | memoryview) -> None:
        self._write()
        self.store.write_segment(name, data)

    def read_segment(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return self.store.read_segment(name, offset=offset, length=length)

    def read_segment_into(self, name: str, memory: memoryview, *, offset: int = 0) -> int:
        return self.store.read_segment_into(name, memory, offset=offset)

    def collect_garbage(self, keep: Iterable[str], **limits: Any) -> int:
        self._write()
        return self.store.collect_garbage(keep, **limits)


@dataclass(kw_only=True)
class MeddledSlot:
    """The staged slot of a meddler's store: its writes count as well."""

    slot: ManifestSlot
    of: Meddler

    def manifest(self) -> PublishedManifest | None:
        return self.slot.manifest()

    def manifest_token(self) -> str | None:
        return self.slot.manifest_token()

    def publish(self, manifest: Manifest, *, replaces: str | None) -> PublishedManifest:
        self.of._write()
        return self.slot.publish(manifest, replaces=replaces)


def die() -> None:
    raise Unavailable("the builder was killed")


VALUES: Mapping[str, Sequence[str]] = {
    "pdq": [pdq(0), pdq(3), pdq(31), pdq(34), pdq(200)],
    "video_md5": [md5(0), md5(1), "ab" * 16],
    "raw_text": ["abc", "Äbc!", "a" * 40, "a" * 41, "a" * 42 + "b"],
}
SMALL_TYPES = {name: SIGNAL_TYPES[name] for name in VALUES}

some_signals = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})
number = st.integers(0, 30)
small_limits = st.builds(
    IndexLimits,
    changes=st.sampled_from([1, 3, 1_000]),
    segment_rows=st.sampled_from([1, 4, 1_000]),
    deltas=st.integers(0, 3),
    delta_rows=st.sampled_from([0, 2, 1_000]),
)
steps = st.one_of(
    st.tuples(st.just("add"), number, some_signals),
    st.tuples(st.just("put"), number, number, some_signals),
    st.tuples(st.just("delete"), number),
    st.tuples(st.just("disable"), number, st.sampled_from([0, ENABLED, NOW_S, PERMANENTLY_DISABLED])),
    st.tuples(st.just("ramp"), number, st.sampled_from([0.0, 0.5, 1.0])),
    st.tuples(st.just("delete bank"), number),
    st.tuples(st.just("purge")),
    st.tuples(st.just("type"), st.sampled_from(sorted(VALUES)), st.sampled_from([0.0, 1.0])),
    st.tuples(st.just("build"), small_limits),
    st.tuples(st.just("build"), small_limits),
    st.tuples(st.just("rebuild"), small_limits, st.sampled_from([None, 1, 3])),
)
asked = st.fixed_dictionaries(
    {"limits": small_limits, "full": st.booleans(), "shards": st.sampled_from([None, None, 1, 3])}
)
repair_steps = st.one_of(
    steps,
    st.tuples(st.just("one build"), asked),
    st.tuples(st.just("one build"), asked),
    st.tuples(st.just("killed build"), asked, st.integers(0, 12)),
    st.tuples(st.just("two builds"), asked, asked, st.integers(0, 12)),
)


class Play:
    """Plays steps on a house, with three banks that are made anew when they were deleted."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.deleted: list[int] = []
        self.clock_s = NOW_S
        self.reader = IndexReader(house.index, SMALL_TYPES, max_age_s=0)

    def bank(self, n: int) -> int:
        name = "ABC"[n % 3]
        known = {bank.name: bank.id for bank in self.house.banks.banks()}
        return known[name] if name in known else self.house.banks.create_bank(name, ratio=1.0).id

    def step(self, name: str, *args: object) -> None:
        getattr(self, name.replace(" ", "_"))(*args)

    def add(self, n: int, signals: Mapping[str, str]) -> None:
        self.house.add(self.bank(n), **signals)

    def put(self, n: int, which: int, signals: Mapping[str, str]) -> None:
        ids = self.house.ids
        content_id = ids[which % len(ids)] if ids else self.house.add(self.bank(n))
        self.house.banks.put_contents([BankContent(id=content_id, bank_id=self.bank(n), signals=signals)])

    def content(self, which: int) -> BankContent | None:
        ids = self.house.ids
        return self.house.banks.contents([ids[which % len(ids)]]).get(ids[which % len(ids)]) if ids else None

    def delete(self, which: int) -> None:
        content = self.content(which)
        if content is not None:
            self.house.banks.delete_contents(content.bank_id, [content.id])

    def disable(self, which: int, until: int) -> None:
        content = self.content(which)
        if content is not None and content.bank_id not in self.deleted:
            bank = next(bank.name for bank in self.house.banks.banks() if bank.id == content.bank_id)
            self.house.banks.update_content(bank, content.id, ContentChange(disable_until_ts=until))

    def ramp(self, n: int, ratio: float) -> None:
        self.bank(n)
        self.house.banks.update_bank("ABC"[n % 3], BankChange(matching_enabled_ratio=ratio))

    def delete_bank(self, n: int) -> None:
        bank = self.house.banks.delete_bank("ABC"[n % 3])
        self.deleted += [] if bank is None else [bank.id]

    def purge(self) -> None:
        for bank_id in self.deleted:
            self.house.banks.purge_contents(bank_id, limit=2)

    def type(self, name: str, ratio: float) -> None:
        self.house.banks.set_signal_type_ratio(name, ratio)

    def build(self, limits: IndexLimits) -> None:
        self.clock_s += 1
        while self.house.build(self.clock_s, limits=limits).has_more:
            self.clock_s += 1
        self.check()

    def rebuild(self, limits: IndexLimits, shards: int | None) -> None:
        self.clock_s += 1
        self.house.build(self.clock_s, full=True, shards=shards, limits=limits)
        self.build(limits)

    def one_build(self, asked: Mapping[str, Any]) -> None:
        self.clock_s += 1
        self.house.build(self.clock_s, **asked)
        self.look()

    def killed_build(self, asked: Mapping[str, Any], at: int) -> None:
        self._meddled_build(asked, at, die)

    def two_builds(self, asked: Mapping[str, Any], others: Mapping[str, Any], at: int) -> None:
        self._meddled_build(asked, at, partial(self.house.build, self.clock_s + 1, **others))

    def _meddled_build(self, asked: Mapping[str, Any], at: int, happens: Callable[[], object]) -> None:
        # The clock stands, so that what builds at once write may be equal to the byte.
        store = self.house.index
        meddled = replace(self.house, index=Meddler(store=store, at=at, happens=happens))
        self.clock_s += 1
        with suppress(Unavailable, PublishConflict):
            meddled.build(self.clock_s, **asked)
        self.look()

    def look(self) -> None:
        """Check what is served, where that was read to its end just now; else, that all of it can be read."""
        published = self.house.index.manifest()
        if published is None:
            return
        types = published.manifest.types
        assert published.manifest.begun_at_s is None
        fresh = [name for name, each in types.items() if each.checked_at_s == self.clock_s]
        self.check_types(self.reader.current(self.clock_s), fresh)

    def check(self) -> None:
        ratios = self.house.banks.signal_type_ratios()
        index = self.reader.current(self.clock_s)
        types = index.manifest.types
        assert types.keys() == {name for name in VALUES if ratios.get(name, 1.0) > 0}
        assert all(each.checked_at_s == self.clock_s for each in types.values())
        self.check_types(index, types)
        assert all(each.size is not None for each in types.values())
        staged = self.house.index.staged.manifest()
        assert staged is None or staged.manifest == Manifest()

    def check_types(self, index: LoadedIndex, names: Iterable[str]) -> None:
        assert self.reader.load_error is None
        for name in names:
            entries = self.house.entries(name)
            expected = [answer(SMALL_TYPES[name], entries, value) for value in VALUES[name]]
            assert index.searcher(name).query_batch(VALUES[name]) == expected
            # A builder that was killed may have left it uncounted.
            assert index.manifest.types[name].size in {len(entries), None}
