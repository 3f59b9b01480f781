"""Drafts: indexes that are being built. A build reads the banks' changes since a manifest, and writes them as segments.

No manifest names these segments until the build publishes a manifest.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from countermark.domain.bank import BankContent, is_indexed
from countermark.domain.index import IndexLimits, Manifest, SegmentKind, SegmentRef, TypeIndex, UnreadBank
from countermark.domain.signal import SignalType, accepted
from countermark.domain.stores import MAX_PAGE, BankStore, IndexStore
from countermark.errors import IndexDamaged, InvalidSignal, NotFound
from countermark.indexes.codec import read_info
from countermark.indexes.manifest import segment_name
from countermark.indexes.rows import Rows
from countermark.indexes.segments import segment_of_rows
from countermark.indexes.shards import shard_of

MAX_TRIES = 8
"""How often a build tries to publish. If another build publishes first each time, this build gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """The dependencies and limits of a build.

    `is_over` is called after each page that is read. When it returns True, the build stops reading. If `compacts` is
    False, the build does not merge segments and does not count contents, because `compact_index` does both.
    """

    banks: BankStore
    store: IndexStore
    signal_types: Mapping[str, SignalType]
    now_s: int
    limits: IndexLimits
    on_progress: Callable[[int], None] | None = None
    is_over: Callable[[], bool] = lambda: False
    compacts: bool = True


@dataclass(slots=True, kw_only=True)
class Draft:
    """The index of one signal type while it is being built.

    `before` is the published index that the draft extends; None if the type has no index. `rows` holds, for each shard,
    the rows that are not written yet.
    """

    signal_type: SignalType
    before: TypeIndex | None
    build_id: str
    cursor: str | None
    segments: list[SegmentRef]
    largest_content_id: int
    rows: tuple[Rows, ...]
    unread_banks: tuple[UnreadBank, ...]
    is_drained: bool = False
    written: list[SegmentRef] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def put(self, content_id: int, signals: Mapping[str, str]) -> None:
        """Add a content's signals; an empty mapping removes the content from the index."""
        value = signals.get(self.signal_type.name)
        rows = self.rows[shard_of(content_id, len(self.rows))]
        if value is None and content_id > max(self.largest_content_id, rows.largest_content_id):
            # The content is new and has no signal of this type, so it needs no row. Most contents have one type only.
            return
        try:
            rows.put(content_id, None if value is None else accepted(self.signal_type, value))
        except InvalidSignal:
            # A malformed signal in the store must not fail this build and every later one.
            rows.put(content_id, None)
            self.refused.append(content_id)

    def put_page(self, page: Sequence[tuple[int, Mapping[str, str]]]) -> None:
        """Call `put` for each content and its signals."""
        if not self.segments and not any(map(len, self.rows)):
            # The type's index is empty, as for most types. So contents without a signal of this type need no row.
            name = self.signal_type.name
            page = [(content_id, signals) for content_id, signals in page if name in signals]
        for content_id, signals in page:
            self.put(content_id, signals)

    def result(self, *, now_s: int) -> TypeIndex:
        """Return the index after this build."""
        checked_at_s = 0 if self.before is None else self.before.checked_at_s
        is_same = self.before is not None and not self.written
        return TypeIndex(
            cursor=self.cursor,
            segments=tuple(self.segments),
            largest_content_id=self.largest_content_id,
            built_at_s=self.before.built_at_s if self.before is not None and is_same else now_s,
            checked_at_s=max(checked_at_s, now_s) if self.is_drained else checked_at_s,
            build_id=self.before.build_id if self.before is not None and is_same else self.build_id,
            unread_banks=self.unread_banks,
            sizes=self._sizes(),
        )

    def _sizes(self) -> tuple[int | None, ...]:
        """Return the size of each shard in contents; None if unknown, because a segment removes contents."""
        sizes: list[int | None] = [0] * len(self.rows)
        if self.before is not None and self.before.segments:
            sizes = list(self.before.sizes or [None] * len(self.rows))
        for ref in self.written:
            size = sizes[ref.shard]
            sizes[ref.shard] = None if size is None or ref.removed else size + ref.entries
        return tuple(sizes)


def start_drafts(build: Build, manifest: Manifest, earlier: Mapping[str, Draft]) -> dict[str, Draft]:
    """Return a draft for each enabled signal type, by name. The draft extends the type's index in the manifest.

    If an `earlier` draft still extends this index, it is used again. So when another build publishes first, a long
    build keeps its progress in each type whose index the other build did not change.
    """
    ratios = build.banks.signal_type_ratios()
    drafts = {}
    for name, signal_type in build.signal_types.items():
        if ratios.get(name, 1.0) <= 0.0:
            continue
        before = manifest.types.get(name)
        draft = earlier.get(name)
        if draft is None or draft.before != before or len(draft.rows) != manifest.shards:
            draft = Draft(
                signal_type=signal_type,
                before=before,
                build_id=build_id(name, before, now_s=build.now_s, is_repair=manifest.begun_at_s is not None),
                cursor=None if before is None else before.cursor,
                segments=[] if before is None else list(before.segments),
                largest_content_id=0 if before is None else before.largest_content_id,
                rows=_no_rows(signal_type, shards=manifest.shards),
                unread_banks=() if before is None else before.unread_banks,
            )
        drafts[name] = draft
    return drafts


def read_changes(build: Build, drafts: Iterable[Draft], contents_read: int) -> int:
    """Read the changes after the drafts' cursors, write them as segments, and return the new `contents_read`."""
    for group in _by_cursor(drafts):
        contents_read = _read_group(build, group, contents_read)
        for draft in group:
            _write_rows(build, draft)
    return contents_read


def _by_cursor(drafts: Iterable[Draft]) -> Iterable[list[Draft]]:
    """Group the drafts that have to read the same changes. Usually that is one group, which reads each content once."""
    groups: dict[tuple[str | None, tuple[UnreadBank, ...]], list[Draft]] = {}
    for draft in drafts:
        groups.setdefault((draft.cursor, draft.unread_banks), []).append(draft)
    return groups.values()


def _read_group(build: Build, drafts: Sequence[Draft], contents_read: int) -> int:
    """Read the changes after the cursor that these drafts share, and return the new `contents_read`.

    A bank that changed as a whole can have millions of contents. So such banks are read separately, after the changes.
    Banks beyond the limit of one build are stored in the drafts as `unread_banks`.
    """
    cursor = drafts[0].cursor
    unread = {bank.bank_id: bank.before for bank in drafts[0].unread_banks}
    # When the feed is read from the start, later pages contain the contents of a changed bank. So the bank is
    # read separately only if an earlier page contained some of its contents.
    banks_read: set[int] | None = set() if cursor is None else None
    stop_at = contents_read + build.limits.changes
    has_more = True
    while has_more and contents_read < stop_at:
        page = build.banks.changes(cursor, limit=MAX_PAGE)
        changed = [change.id for change in page.changes if change.kind == "bank"]
        # If a bank changes again while it is being read, it is read again from its newest content.
        unread |= {bank_id: None for bank_id in changed if banks_read is None or bank_id in banks_read}
        content_ids = [change.id for change in page.changes if change.kind == "content"]
        contents_read += _put(build, drafts, content_ids, build.banks.contents(content_ids), banks_read)
        cursor, has_more = page.cursor, page.has_more
        _report_progress(build, contents_read)
        if build.is_over():
            break
    stop_at = contents_read + build.limits.changes
    while unread and contents_read < stop_at:
        bank_id, before = next(iter(unread.items()))
        page_of_bank = build.banks.content_page(bank_id, before=before, limit=MAX_PAGE)
        contents = {content.id: content for content in page_of_bank.contents}
        contents_read += _put(build, drafts, contents, contents, None)
        if page_of_bank.before is None:
            del unread[bank_id]
        else:
            unread[bank_id] = page_of_bank.before
        _report_progress(build, contents_read)
        if build.is_over():
            break
    for draft in drafts:
        draft.cursor = cursor
        draft.unread_banks = tuple(UnreadBank(bank_id=bank_id, before=before) for bank_id, before in unread.items())
        draft.is_drained = not has_more and not unread
    return contents_read


def _put(
    build: Build,
    drafts: Sequence[Draft],
    content_ids: Collection[int],
    current: Mapping[int, BankContent],
    banks_read: set[int] | None,
) -> int:
    """Add contents to drafts, and return the number of contents.

    `current` has the contents' states by id; a deleted content is missing. The ids of the contents' banks are added to
    `banks_read`, unless it is None.
    """
    # Read the banks after the contents. Any change of a bank after that is on a later page of the feed.
    banks = {bank.id: bank for bank in build.banks.banks()}
    page: list[tuple[int, Mapping[str, str]]] = []
    for content_id in content_ids:
        content = current.get(content_id)
        bank = None if content is None else banks.get(content.bank_id)
        page.append((content_id, content.signals if content is not None and is_indexed(bank, content) else {}))
    for draft in drafts:
        draft.put_page(page)
    if banks_read is not None:
        banks_read.update(content.bank_id for content in current.values())
    for draft in drafts:
        if sum(map(len, draft.rows)) >= build.limits.segment_rows:
            _write_rows(build, draft)
    return len(content_ids)


def _report_progress(build: Build, contents_read: int) -> None:
    if build.on_progress is not None:
        build.on_progress(contents_read)


def _no_rows(signal_type: SignalType, *, shards: int) -> tuple[Rows, ...]:
    return tuple(Rows(signal_type) for _ in range(shards))


def _write_rows(build: Build, draft: Draft) -> None:
    """Write a draft's rows: one new segment for each shard that has rows."""
    for shard, rows in enumerate(draft.rows):
        data = segment_of_rows(
            draft.signal_type, rows, largest_content_id=draft.largest_content_id, build_id=draft.build_id
        )
        if data is not None:
            is_first = all(ref.shard != shard for ref in draft.segments)
            kind = SegmentKind.BASE if is_first else SegmentKind.DELTA
            draft.written.append(write_segment(build.store, data, kind=kind, shard=shard))
            draft.segments.append(draft.written[-1])
    draft.largest_content_id = max(draft.largest_content_id, *(rows.largest_content_id for rows in draft.rows))
    draft.rows = _no_rows(draft.signal_type, shards=len(draft.rows))


def write_segment(store: IndexStore, data: bytes, *, kind: SegmentKind, shard: int) -> SegmentRef:
    """Store a segment under a name with its SHA-256, and return the reference to it for a manifest."""
    info = read_info(data)
    sha256 = hashlib.sha256(data).hexdigest()
    name = segment_name(info.signal_type, sha256)
    store.write_segment(name, data)
    return SegmentRef(
        name=name,
        kind=kind,
        shard=shard,
        hashes=info.hashes,
        entries=info.entries,
        removed=info.removed,
        size_bytes=len(data),
        sha256=sha256,
    )


def read_segment(store: IndexStore, ref: SegmentRef, *, length: int | None = None) -> bytes:
    """Return the first `length` bytes of a segment, or the whole segment if `length` is None.

    Raises:
        IndexDamaged: The segment is missing.
    """
    try:
        return store.read_segment(ref.name, length=length)
    except NotFound as error:
        raise IndexDamaged(f"the segment {ref.name} of the index is missing") from error


def build_id(name: str, before: TypeIndex | None, *, now_s: int, is_repair: bool = False) -> str:
    """Return the id of a build: 16 hex digits, computed from the signal type, the time, and the index `before`."""
    basis = "" if before is None else f"{before.build_id} {before.cursor}"
    return hashlib.sha256(f"{name} {now_s} {basis}{' repair' if is_repair else ''}".encode()).hexdigest()[:16]
