"""Banks and contents in DynamoDB, and the feed of their changes.

Every change is one conditional write or one small transaction. Its condition is that the items are unchanged since they
were read. If another call has changed an item in the meantime, the call reads the item and makes its decision again.
The write of a change also sets the feed attributes of the item, so the feed lists every acknowledged change.

To return a page of a bank, a call reads the content ids from a secondary index, which shows writes with a short delay.
Then it reads the contents from the table, strongly consistently.
"""

import heapq
import secrets
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypeVar

from countermark.aws import feed, keys, names
from countermark.aws.bank_items import (
    DERIVED_ATTRIBUTES,
    bank_data,
    bank_item,
    bank_of,
    changed_attributes,
    content_of,
    curated_attributes,
    derived_attributes,
    integer,
)
from countermark.aws.retry import attempts
from countermark.aws.table import (
    ConditionFailed,
    Delete,
    Item,
    Key,
    Put,
    Range,
    Table,
    Update,
    Value,
    check_page,
    size_bytes,
)
from countermark.domain.bank import (
    MAX_CONTENT_ID,
    Bank,
    BankChange,
    BankContent,
    ContentChange,
    ContentDraft,
    batch_digest,
    is_permanently_disabled,
)
from countermark.domain.index import Origin
from countermark.domain.stores import MAX_PAGE, REMEMBER_BATCHES_S, ChangePage, ContentPage, content_pages
from countermark.errors import AlreadyExists, Conflict, CursorLost, InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Argument = TypeVar("Argument")
Result = TypeVar("Result")

TOMBSTONE_S = 30 * 24 * 3600
"""How long the feed lists a deletion, in seconds.

A reader that reads the feed less often must read everything again.
"""

LATE_WRITES_S = 3_600
"""The minimum time from the deletion of a bank until its purge counts as finished, in seconds.

A write that began before the deletion can be stored after it, because a Lambda function runs for up to 15 minutes. The
secondary index can list the written content even later. Source: AWS Lambda, "Lambda quotas".
"""

MARK_S = 400 * 24 * 3600
"""How long the mark of an index build is stored, in seconds. `sign_build` stores a new mark every few minutes."""

WRITERS = 16
"""The number of threads of one bulk write.

Each content needs a separate conditional write, because DynamoDB's batch writes cannot have conditions.
"""

BEGIN_WITHIN_S = 8
"""How long after its start a batch can begin new writes, in seconds.

A write takes limited time (see `clients.READ_TIMEOUT_S` and the retries). So the last write ends within the 30 seconds
that API Gateway waits.
"""

_IS_FREE_OR_DELETED = f"({keys.IS_FREE} OR attribute_exists(#is_deleted))"
_SET_FEED_ATTRIBUTES = ", " + ", ".join(
    f"#{key} = :{key}" for key in (names.FEED_INDEX.partition_key, names.FEED_INDEX.sort_key)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """A batch of contents: the ids, whether an earlier call began the batch, and whether all contents are written."""

    ids: range
    is_old: bool
    is_done: bool


class DynamoBankStore:
    """The banks of a deployment. `clock` returns epoch seconds. The feed orders changes by the times of this clock."""

    def __init__(self, client: "DynamoDBClient", table: str, *, clock: Callable[[], float] = time.time) -> None:
        self._table = Table(client, table)
        self._clock = clock
        # Bank ids by bank name, as they were last read. Each use checks that the id is still valid.
        self._bank_ids: dict[str, int] = {}

    def create_bank(self, name: str, *, ratio: float) -> Bank:
        """Create a bank.

        The feed does not list the new bank, because index builds need to read only banks with contents.
        """
        bank = Bank(id=self._next_numbers(keys.BANK_COUNTER, 1).start, name=name, matching_enabled_ratio=ratio)
        try:
            self._table.transact([self._reserve_name(bank), Put(item=bank_item(bank))])
        except ConditionFailed as error:
            raise AlreadyExists(f"a bank named {name!r} already exists") from error
        self._bank_ids[name] = bank.id
        return bank

    def bank(self, name: str) -> Bank:
        return self._bank_with_items(name)[0]

    def _bank_with_items(self, name: str, *others: Key) -> tuple[Bank, dict[Key, Item]]:
        """Return a bank, and a mapping from keys to items.

        The mapping has the item that reserves the bank's name, and the items that exist at the keys `others`. The call
        takes one read if the bank's id is cached and still valid.

        Raises:
            NotFound: No bank has that name.
        """
        expected = self._bank_ids.get(name)
        wanted = [keys.bank_name(name), *others] + ([] if expected is None else [keys.bank(expected)])
        found = {Key.of(item): item for item in self._table.get_many(wanted)}
        name_item = found.get(keys.bank_name(name))
        bank_id = None if name_item is None else integer(name_item["bank_id"])
        if bank_id is not None:
            item = found.get(keys.bank(bank_id)) or self._table.get(keys.bank(bank_id))
            bank = None if item is None else bank_of(item)
            if bank is not None and bank.name == name:
                self._bank_ids[name] = bank.id
                return bank, found
        self._bank_ids.pop(name, None)
        raise NotFound(f"bank '{name}' not found")

    def banks(self) -> Sequence[Bank]:
        found = map(bank_of, self._table.query(Range(partition=names.BANKS)))
        return sorted((bank for bank in found if bank is not None), key=lambda bank: bank.name)

    def update_bank(self, name: str, change: BankChange) -> Bank:
        for _ in attempts(f"changing bank {name!r}"):
            old = self.bank(name)
            bank = change.applied_to(old)
            if bank == old:
                return old
            update = self._bank_update(old, bank)
            try:
                if bank.name == old.name:
                    self._table.write(update)
                else:
                    self._table.transact([self._reserve_name(bank), self._release_name(old), update])
                return bank
            except ConditionFailed as error:
                if bank.name != old.name and 0 in error.positions:
                    raise AlreadyExists(f"a bank named {bank.name!r} already exists") from error
        raise AssertionError("unreachable: attempts() raises an error after the last attempt")

    def delete_bank(self, name: str) -> Bank | None:
        for _ in attempts(f"deleting bank {name!r}"):
            try:
                bank = self.bank(name)
            except NotFound:
                return None
            tombstone = Put(
                item=self._bank_tombstone(bank.id),
                condition=f"{keys.EXISTS} AND #data = :old",
                values={"old": bank_data(bank)},
            )
            try:
                self._table.transact([self._release_name(bank), tombstone])
                return bank
            except ConditionFailed:
                continue
        raise AssertionError("unreachable: attempts() raises an error after the last attempt")

    def purge_contents(self, bank_id: int, *, limit: int) -> int:
        """Remove contents of a deleted bank. Remove nothing if the bank exists.

        The secondary index can still list contents that are already removed. So this reads pages until at least one
        content of a page is removed, or no page is left.
        """
        item = self._table.get(keys.bank(bank_id))
        if item is not None and bank_of(item) is not None:
            return 0
        for page in content_pages(self, bank_id, limit=min(limit, MAX_PAGE)):
            if removed := self.delete_contents(bank_id, [content.id for content in page.contents]):
                return removed
        self._finish_purge(item)
        return 0

    def unfinished_purges(self) -> Sequence[int]:
        """Return the ids of deleted banks with an unfinished purge.

        A purge stays unfinished for at least `LATE_WRITES_S`.
        """
        items = list(self._table.query(Range(partition=names.BANKS)))
        unfinished = {int(Key.of(item).sk) for item in items if "is_deleted" in item and "purged_at_s" not in item}
        if self._table.get(keys.PURGES_DERIVED) is None:
            unfinished |= self._derive_purges({int(Key.of(item).sk) for item in items})
        return sorted(unfinished)

    def _derive_purges(self, known_ids: Container[int]) -> set[int]:
        """Write tombstones for banks that have contents but neither an item nor a tombstone.

        Return the ids of these banks.

        Older versions of countermark let a tombstone expire after 30 days, even if the contents were not purged by
        then. This search runs only once per table.
        """
        counter = self._table.get(keys.BANK_COUNTER)
        found = set()
        for bank_id in range(1, 1 + (0 if counter is None else integer(counter["last"]))):
            if bank_id not in known_ids and any(self._listed_ids(bank_id, before=None, page_size=1)):
                # If the condition fails, another process has created the bank, or its tombstone, in the meantime.
                with suppress(ConditionFailed):
                    tombstone = self._bank_tombstone(bank_id)
                    self._table.write(Put(item=tombstone, condition=keys.IS_FREE))
                    found.add(bank_id)
        self._table.write(Put(item={**keys.PURGES_DERIVED._asdict()}))
        return found

    def _finish_purge(self, tombstone: Item | None) -> None:
        """Set the expiry time of the tombstone of a bank that has no contents left.

        Do nothing while a write to the bank can still be running.
        """
        if tombstone is None or "purged_at_s" in tombstone:
            return
        now_s = int(self._clock())
        if now_s - feed.entry_time_s(str(tombstone[names.FEED_INDEX.sort_key])) < LATE_WRITES_S:
            return
        with suppress(ConditionFailed):
            self._table.write(
                Update(
                    key=Key.of(tombstone),
                    change=f"SET #purged_at_s = :now_s, #{names.TTL_ATTRIBUTE} = :forget_at_s",
                    condition="attribute_exists(#is_deleted)",
                    values={"now_s": now_s, "forget_at_s": now_s + TOMBSTONE_S},
                )
            )

    def add_content(self, bank_id: int, draft: ContentDraft, *, now_s: int) -> BankContent:
        """Add a draft to a bank as a content.

        If a content of the bank already has the draft's source key, return that content.

        If the bank is deleted during the call, the content is stored but never matches, because index builds leave it
        out.
        """
        item = self._table.get(keys.bank(bank_id))
        if item is None or bank_of(item) is None:
            raise NotFound(f"bank {bank_id} not found")
        content = draft.content(self._next_numbers(keys.CONTENT_COUNTER, 1).start, bank_id, now_s=now_s)
        if draft.source_key is not None:
            return self._add_with_source_key(content, draft.source_key)
        # No other call uses this id. If an item with this id exists, an earlier attempt of the same write stored the
        # item.
        with suppress(ConditionFailed):
            self._table.write(Put(item=self._content_item(content), condition=keys.IS_FREE))
        return content

    def add_contents(
        self, bank_id: int, drafts: Sequence[ContentDraft], *, key: str | None = None, now_s: int
    ) -> range:
        """Add drafts to a bank as contents. Each content is a separate write, and the writes run in parallel.

        No write begins later than `BEGIN_WITHIN_S` after the start of the call. The ids are stored under `key` before
        the contents are written. So a repeated call with the same key writes only the missing contents.
        """
        check_page(len(drafts))
        if any(draft.source_key is not None for draft in drafts):
            raise InvalidInput("a draft in a batch cannot have a source key")
        for position, draft in enumerate(drafts):
            try:
                size_bytes(Put(item=self._content_item(draft.content(MAX_CONTENT_ID, bank_id, now_s=now_s))))
            except InvalidInput as error:
                raise InvalidInput(f"content {position} of the batch: {error}") from error
        begun_s = self._clock()
        item = self._table.get(keys.bank(bank_id))
        if item is None or bank_of(item) is None:
            raise NotFound(f"bank {bank_id} not found")
        if not drafts:
            return range(0)
        key = secrets.token_hex(16) if key is None else key
        batch = self._batch(bank_id, key, batch_digest(drafts), len(drafts), now_s=now_s)
        missing = dict(zip(batch.ids, drafts, strict=True))
        if batch.is_done:
            return batch.ids
        if batch.is_old:
            # Do not write stored contents again. This includes deleted contents, which have tombstones and stay
            # deleted.
            for stored in self._table.get_many([keys.content(content_id) for content_id in batch.ids]):
                del missing[keys.content_id(Key.of(stored))]
        contents = [draft.content(content_id, bank_id, now_s=now_s) for content_id, draft in missing.items()]
        failures = self._put_new(contents, until_s=begun_s + BEGIN_WITHIN_S)
        if failures:
            raise Unavailable(
                f"{len(drafts) - len(failures)} of {len(drafts)} contents were stored ({failures[0]}): send the same "
                f"batch again with the idempotency_key {key!r}, which stores the rest"
            )
        with suppress(Unavailable):  # if this fails, a repeated call reads all contents instead
            self._table.write(
                Update(key=keys.batch(bank_id, key), change="SET #is_done = :done", values={"done": True})
            )
        return batch.ids

    def _batch(self, bank_id: int, key: str, digest: str, count: int, *, now_s: int) -> "_Batch":
        """Return the batch that is stored under a key.

        If the batch does not exist or has expired, create it with new ids.

        Raises:
            Conflict: The key was used for other contents.
        """
        item_key = keys.batch(bank_id, key)
        for _ in attempts("beginning a batch"):
            item = self._table.get(item_key)
            if item is not None and integer(item[names.TTL_ATTRIBUTE]) > now_s:
                if item["digest"] != digest:
                    raise Conflict(f"the key {key!r} was used for other contents: use a new key")
                first = integer(item["first_id"])
                return _Batch(ids=range(first, first + count), is_old=True, is_done="is_done" in item)
            ids = self._next_numbers(keys.CONTENT_COUNTER, count)
            new_item: Item = {
                **item_key._asdict(),
                "digest": digest,
                "first_id": ids.start,
                names.TTL_ATTRIBUTE: now_s + REMEMBER_BATCHES_S,
            }
            condition = f"{keys.IS_FREE} OR #{names.TTL_ATTRIBUTE} <= :now"
            try:
                self._table.write(Put(item=new_item, condition=condition, values={"now": now_s}))
                return _Batch(ids=ids, is_old=False, is_done=False)
            except ConditionFailed:
                continue  # another process, or the first attempt of this write, has just created the batch
        raise AssertionError("unreachable: attempts() raises an error after the last attempt")

    def _put_new(self, contents: Sequence[BankContent], *, until_s: float) -> list[str]:
        """Write new contents. Return one reason for each content that was not written, the most informative first."""

        def put(content: BankContent) -> str | None:
            if failed.is_set():
                return "an earlier write failed"
            if self._clock() >= until_s:
                return f"the other contents took {BEGIN_WITHIN_S} s"
            try:
                # If the item exists, an earlier attempt has written it.
                with suppress(ConditionFailed):
                    self._table.write(Put(item=self._content_item(content), condition=keys.IS_FREE))
            except Unavailable as error:
                failed.set()
                return str(error)
            return None

        failed = threading.Event()
        reasons = [reason for reason in self._in_parallel(put, contents) if reason is not None]
        return sorted(reasons, key=lambda reason: reason.startswith("an earlier write"))

    def allot_content_ids(self, count: int) -> range:
        return self._next_numbers(keys.CONTENT_COUNTER, count)

    def put_contents(self, contents: Sequence[BankContent], *, are_new: bool = False) -> None:
        """Write contents.

        If `are_new` is True, read a stored content only after the condition of its write has failed.
        """
        check_page(len(contents))
        distinct = list({content.id: content for content in contents}.values())
        stored = {} if are_new else self._items([content.id for content in distinct])
        self._in_parallel(lambda content: self._put(content, stored.get(content.id)), distinct)

    def contents(self, ids: Iterable[int]) -> dict[int, BankContent]:
        wanted = list(ids)
        check_page(len(wanted))
        return {content_id: content_of(item) for content_id, item in self._items(wanted).items()}

    def content_page(self, bank_id: int, *, before: int | None = None, limit: int) -> ContentPage:
        """Return a page of contents, merged from the shards of the bank.

        The page can have fewer than `limit` contents if some contents were deleted a moment ago.
        """
        check_page(limit)
        ids = list(islice(self._listed_ids(bank_id, before=before, page_size=limit + 1), limit + 1))
        items = self._items(ids[:limit])
        contents = [content_of(items[content_id]) for content_id in ids[:limit] if content_id in items]
        return ContentPage(
            contents=tuple(content for content in contents if content.bank_id == bank_id),
            before=ids[limit - 1] if len(ids) > limit else None,
        )

    def content(self, bank_name: str, content_id: int) -> tuple[Bank, BankContent]:
        bank, item = self._item_in(bank_name, content_id)
        return bank, content_of(item)

    def _item_in(self, bank_name: str, content_id: int) -> tuple[Bank, Item]:
        key = keys.content(content_id)
        bank, found = self._bank_with_items(bank_name, key)
        item = found.get(key)
        if item is None or "is_deleted" in item or item["bank_id"] != bank.id:
            raise NotFound(f"content '{content_id}' not found")
        return bank, item

    def update_content(self, bank_name: str, content_id: int, change: ContentChange) -> tuple[Bank, BankContent]:
        for _ in attempts(f"changing content {content_id}"):
            bank, item = self._item_in(bank_name, content_id)
            update = self._content_update(item, change)
            if update is None:
                return bank, content_of(item)
            try:
                new = self._table.write(update)
            except ConditionFailed:
                continue
            if new is not None:
                return bank, content_of(new)
        raise AssertionError("unreachable: attempts() raises an error after the last attempt")

    def delete_contents(self, bank_id: int, ids: Sequence[int]) -> int:
        check_page(len(ids))
        return sum(self._in_parallel(partial(self._delete, bank_id), list(dict.fromkeys(ids))))

    def changes(self, cursor: str | None, *, limit: int) -> ChangePage:
        """Return a page of the feed's changes, shard by shard. A change can be returned more than once.

        If the cursor is older than `TOMBSTONE_S`, the page can lack deletions. Then an index still holds the deleted
        contents. They never match, because each lookup reads the current state of the contents that it finds.
        """
        check_page(limit)
        return feed.read(
            cursor, keys.SHARDS, partial(self._feed_entries, page_size=limit + 1), now_ms=self._now_ms(), limit=limit
        )

    def sign_build(self) -> Origin:
        store_id = self._store_id()
        if store_id is None:
            new_item: Item = {**keys.STORE_ID._asdict(), "store_id": secrets.token_hex(16)}
            with suppress(ConditionFailed):
                self._table.write(Put(item=new_item, condition=keys.IS_FREE))
            # Another build may have stored an id first.
            store_id = self._store_id() or str(new_item["store_id"])
        mark = secrets.token_hex(16)
        self._table.write(Put(item={**keys.build(mark)._asdict(), names.TTL_ATTRIBUTE: int(self._clock()) + MARK_S}))
        return Origin(store_id=store_id, mark=mark)

    def origin_mismatch(self, origin: Origin | None, cursor: str | None) -> str | None:
        if origin is not None and origin.store_id != self._store_id():
            return "the index was built from another table"
        if origin is not None and self._table.get(keys.build(origin.mark)) is None:
            return "the table was restored to a time before the index was built"
        try:
            if cursor is not None:
                feed.decode(cursor, keys.SHARDS)
        except CursorLost as error:
            return str(error)
        return None

    def _store_id(self) -> str | None:
        item = self._table.get(keys.STORE_ID)
        return None if item is None else str(item["store_id"])

    def signal_type_ratios(self) -> dict[str, float]:
        items = self._table.query(Range(partition=names.RATIOS))
        return {str(item["name"]): float(str(item["ratio"])) for item in items}

    def set_signal_type_ratio(self, name: str, ratio: float) -> None:
        self._table.write(Put(item={**keys.ratio(name)._asdict(), "name": name, "ratio": repr(ratio)}))

    def _now_ms(self) -> int:
        return int(self._clock() * 1_000)

    def _next_numbers(self, counter: Key, count: int) -> range:
        """Return the next numbers of a counter. If a call fails half-way, its numbers are lost and never reused."""
        update = Update(key=counter, change="ADD #last :count", values={"count": count})
        item = self._table.write(update)
        last = integer(None if item is None else item["last"])
        return range(last - count + 1, last + 1)

    def _in_parallel(self, call: Callable[[Argument], Result], arguments: Sequence[Argument]) -> list[Result]:
        if len(arguments) <= 1:
            return [call(argument) for argument in arguments]
        with ThreadPoolExecutor(min(WRITERS, len(arguments))) as pool:
            return list(pool.map(call, arguments))

    def _items(self, ids: Sequence[int]) -> dict[int, Item]:
        """Return the items of contents by content id, read strongly consistently. Tombstones are left out."""
        items = self._table.get_many([keys.content(content_id) for content_id in ids])
        return {integer(item["content_id"]): item for item in items if "is_deleted" not in item}

    def _listed_ids(self, bank_id: int, *, before: int | None, page_size: int) -> Iterator[int]:
        """Yield the content ids below `before` that the secondary index lists for a bank, newest first."""
        shards = [
            self._table.query(
                Range(partition=shard, index=names.BANK_INDEX, before=before, newest_first=True), page_size=page_size
            )
            for shard in keys.bank_shards(bank_id)
        ]
        listed = heapq.merge(*shards, key=lambda item: integer(item["content_id"]), reverse=True)
        return (integer(item["content_id"]) for item in listed)

    def _feed_entries(self, shard: int, after: str, *, page_size: int) -> Iterator[str]:
        """Yield the entries of a shard of the feed that sort after `after`."""
        key_range = Range(partition=keys.feed_shard(shard), index=names.FEED_INDEX, after=after)
        return (str(item[names.FEED_INDEX.sort_key]) for item in self._table.query(key_range, page_size=page_size))

    def _feed_attributes(self, kind: Literal["bank", "content"], entity_id: int) -> dict[str, Value]:
        """Return the attributes that make the feed list an item as changed at the current time."""
        return {
            names.FEED_INDEX.partition_key: keys.feed_shard(entity_id),
            names.FEED_INDEX.sort_key: feed.new_entry(kind, entity_id, now_ms=self._now_ms()),
        }

    def _tombstone(self, kind: Literal["bank", "content"], entity_id: int) -> Item:
        """Return the item that replaces a deleted bank or content. The item makes the feed list the deletion."""
        key = keys.bank(entity_id) if kind == "bank" else keys.content(entity_id)
        return {
            **key._asdict(),
            **self._feed_attributes(kind, entity_id),
            "is_deleted": True,
            names.TTL_ATTRIBUTE: int(self._clock()) + TOMBSTONE_S,
        }

    def _bank_tombstone(self, bank_id: int) -> Item:
        """Return the tombstone of a bank. The tombstone has no expiry time until the bank is purged."""
        tombstone = self._tombstone("bank", bank_id)
        del tombstone[names.TTL_ATTRIBUTE]
        return tombstone

    def _bank_update(self, old: Bank, new: Bank) -> Update:
        """Return the update that changes a bank. The update adds a feed entry if the ratio changes from 0 or to 0."""
        values: dict[str, Value] = {"old": bank_data(old), "new": bank_data(new)}
        change = "SET #data = :new"
        if (old.matching_enabled_ratio > 0.0) != (new.matching_enabled_ratio > 0.0):
            change += _SET_FEED_ATTRIBUTES
            values |= self._feed_attributes("bank", new.id)
        return Update(key=keys.bank(new.id), change=change, condition=f"{keys.EXISTS} AND #data = :old", values=values)

    def _content_update(self, item: Item, change: ContentChange) -> Update | None:
        """Return the update that applies a change to a content; None if the change sets nothing.

        The update adds a feed entry if the content becomes permanently disabled, or is no longer permanently disabled.
        """
        new = changed_attributes(change)
        if not new:
            return None
        sets = "SET " + ", ".join(f"#{name} = :{name}" for name in new)
        condition = f"{keys.EXISTS} AND #bank_id = :bank_id"
        values: dict[str, Value] = {**new, "bank_id": item["bank_id"]}
        if change.disable_until_ts is not None:
            old_value = integer(item["disable_until_ts"])
            condition += " AND #disable_until_ts = :was"
            values["was"] = old_value
            if is_permanently_disabled(old_value) != is_permanently_disabled(change.disable_until_ts):
                sets += _SET_FEED_ATTRIBUTES
                values |= self._feed_attributes("content", integer(item["content_id"]))
        return Update(key=keys.content(integer(item["content_id"])), change=sets, condition=condition, values=values)

    def _put(self, content: BankContent, stored: Item | None) -> None:
        """Write a content. `stored` is the item that was read at the content's key, or None.

        If the item has changed since then, read the item again.
        """
        for _ in attempts(f"writing content {content.id}"):
            write = (
                Put(item=self._content_item(content), condition=_IS_FREE_OR_DELETED)
                if stored is None
                else self._replacing_update(stored, content)
            )
            if write is None:
                return
            try:
                self._table.write(write)
                return
            except ConditionFailed:
                stored = self._items([content.id]).get(content.id)
        raise AssertionError("unreachable: attempts() raises an error after the last attempt")

    def _replacing_update(self, stored: Item, content: BankContent) -> Update | None:
        """Return the update of an existing content; None if nothing changes.

        The update leaves the attributes that curators set unchanged. It adds a feed entry if the signals or the bank
        change, because index builds must then read the content again.
        """
        new = derived_attributes(content)
        if new == {name: stored[name] for name in DERIVED_ATTRIBUTES if name in stored}:
            return None
        change = "SET " + ", ".join(f"#{name} = :{name}" for name in new)
        values: dict[str, Value] = {
            **new,
            "old_bank_id": stored["bank_id"],
            "old_signals": stored["signals"],
        }
        if (stored["bank_id"], stored["signals"]) != (new["bank_id"], new["signals"]):
            change += _SET_FEED_ATTRIBUTES
            values |= self._feed_attributes("content", content.id)
        if removed_names := [f"#{name}" for name in DERIVED_ATTRIBUTES if name not in new]:
            change += " REMOVE " + ", ".join(removed_names)
        return Update(
            key=keys.content(content.id),
            change=change,
            condition=f"{keys.EXISTS} AND #bank_id = :old_bank_id AND #signals = :old_signals",
            values=values,
        )

    def _delete(self, bank_id: int, content_id: int) -> bool:
        """Delete a content of a bank and release the content's source key. Return whether the content existed."""
        tombstone = Put(
            item=self._tombstone("content", content_id),
            condition=f"{keys.EXISTS} AND #bank_id = :bank_id",
            values={"bank_id": bank_id},
        )
        try:
            old = self._table.write(tombstone)
        except ConditionFailed:
            return False
        if old is not None and "source_pk" in old:
            with suppress(ConditionFailed):
                self._table.write(
                    Delete(
                        key=keys.source_at(str(old["source_pk"])),
                        condition="#content_id = :content_id",
                        values={"content_id": content_id},
                    )
                )
        return True

    def _add_with_source_key(self, content: BankContent, source_key: str) -> BankContent:
        """Add a content with a source key to its bank, or return the bank's existing content with this source key."""
        key = keys.source(content.bank_id, source_key)
        put = Put(item={**self._content_item(content), "source_pk": key.pk}, condition=keys.IS_FREE)
        for _ in attempts("banking a content"):
            source_item = self._table.get(key)
            condition, values = keys.IS_FREE, dict[str, Value]()
            if source_item is not None:
                existing = self.contents([integer(source_item["content_id"])]).get(integer(source_item["content_id"]))
                if existing is not None and existing.bank_id == content.bank_id:
                    return existing
                condition, values = "#content_id = :stale", {"stale": source_item["content_id"]}
            source = Put(item={**key._asdict(), "content_id": content.id}, condition=condition, values=values)
            try:
                self._table.transact([source, put])
                return content
            except ConditionFailed:
                continue
        raise AssertionError("unreachable: attempts() raises an error after the last attempt")

    def _content_item(self, content: BankContent) -> Item:
        return {
            **keys.content(content.id)._asdict(),
            **derived_attributes(content),
            **curated_attributes(content),
            **self._feed_attributes("content", content.id),
            "content_id": content.id,
        }

    def _reserve_name(self, bank: Bank) -> Put:
        item: Item = {**keys.bank_name(bank.name)._asdict(), "bank_id": bank.id}
        return Put(item=item, condition=keys.IS_FREE)

    def _release_name(self, bank: Bank) -> Delete:
        return Delete(key=keys.bank_name(bank.name), condition="#bank_id = :bank_id", values={"bank_id": bank.id})
