"""A bank store against a model of a page: whatever is done in whatever order, both answer alike.

The model also keeps a copy of all that an index build reads, and refreshes it from the feed only: after any
calls, reading the feed to its end makes it true again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from countermark.domain.bank import (
    ENABLED,
    PERMANENTLY_DISABLED,
    Bank,
    BankChange,
    BankContent,
    ContentChange,
    ContentDraft,
    is_indexed,
)
from countermark.domain.stores import BankStore
from countermark.errors import AlreadyExists, NotFound
from tests.contracts.bank_values import NOW_S, PDQ, content, read_feed

NAMES = st.sampled_from(["A", "B", "C"])
RATIOS = st.sampled_from([0.0, 0.1, 1.0])
UNTIL = st.sampled_from([0, ENABLED, NOW_S, PERMANENTLY_DISABLED - 1, PERMANENTLY_DISABLED, PERMANENTLY_DISABLED + 5])
SIGNALS = st.dictionaries(st.sampled_from(["pdq", "raw_text"]), st.sampled_from([PDQ, "ü", "x"]), max_size=2)
NOTES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)

EXAMPLES = {"memory": 60, "local": 10}
"""How many runs: many where they are cheap, for they test the model as well; elsewhere two, at 20 steps each."""


@dataclass
class Model:
    """What the store should hold: banks by name, contents by id, also those of deleted banks."""

    banks: dict[str, Bank] = field(default_factory=dict)
    contents: dict[int, BankContent] = field(default_factory=dict)
    given_bank_ids: set[int] = field(default_factory=set)
    given_content_ids: set[int] = field(default_factory=set)

    def bank_of(self, one: BankContent | None) -> Bank | None:
        return next((bank for bank in self.banks.values() if one is not None and bank.id == one.bank_id), None)

    def indexed(self) -> dict[int, Mapping[str, str]]:
        by_id = {bank.id: bank for bank in self.banks.values()}
        return {one.id: one.signals for one in self.contents.values() if is_indexed(by_id.get(one.bank_id), one)}


class BankStoreMachine(RuleBasedStateMachine):
    content_ids: Bundle[int] = Bundle("content_ids")

    def __init__(self, store: BankStore) -> None:
        super().__init__()
        self.store = store
        self.model = Model()
        self.cursor = read_feed(store)[1]
        self.built: dict[int, Mapping[str, str]] = {}

    @initialize(target=content_ids, signals=SIGNALS)
    def begin_with_two_banks_and_some_contents(self, signals: Mapping[str, str]) -> MultipleResults[int]:
        for name, ratio in [("A", 1.0), ("B", 0.0)]:
            self.create_bank(name, ratio)
        return multiple(*[self._add(name, signals) for name in ("A", "A", "B")])

    @rule(name=NAMES, ratio=RATIOS)
    def create_bank(self, name: str, ratio: float) -> None:
        if name in self.model.banks:
            with pytest.raises(AlreadyExists):
                self.store.create_bank(name, ratio=ratio)
            return
        bank = self.store.create_bank(name, ratio=ratio)
        assert bank == Bank(id=bank.id, name=name, matching_enabled_ratio=ratio)
        assert bank.id not in self.model.given_bank_ids
        self.model.given_bank_ids.add(bank.id)
        self.model.banks[name] = bank

    @rule(name=NAMES, new_name=st.none() | NAMES, ratio=st.none() | RATIOS)
    def update_bank(self, name: str, new_name: str | None, ratio: float | None) -> None:
        bank = self.model.banks.get(name)
        if bank is None:
            with pytest.raises(NotFound):
                self.store.update_bank(name, BankChange(name=new_name, matching_enabled_ratio=ratio))
            return
        if new_name not in (None, name) and new_name in self.model.banks:
            with pytest.raises(AlreadyExists):
                self.store.update_bank(name, BankChange(name=new_name, matching_enabled_ratio=ratio))
            return
        after = replace(
            bank,
            name=name if new_name is None else new_name,
            matching_enabled_ratio=bank.matching_enabled_ratio if ratio is None else ratio,
        )
        assert self.store.update_bank(name, BankChange(name=new_name, matching_enabled_ratio=ratio)) == after
        del self.model.banks[name]
        self.model.banks[after.name] = after

    @rule(name=NAMES, steps=st.integers(0, 3))
    def delete_bank(self, name: str, steps: int) -> None:
        bank = self.model.banks.pop(name, None)
        assert self.store.delete_bank(name) == bank
        if bank is None:
            return
        for _ in range(steps):
            left = {one.id for one in self.model.contents.values() if one.bank_id == bank.id}
            assert self.store.purge_contents(bank.id, limit=2) == min(2, len(left))
            stored = set(self.store.contents(left)) if left else set()
            for content_id in left - stored:
                del self.model.contents[content_id]

    @rule(target=content_ids, name=NAMES, signals=SIGNALS, note=NOTES)
    def add_content(self, name: str, signals: Mapping[str, str], note: str) -> MultipleResults[int]:
        if name not in self.model.banks:
            return multiple()
        return multiple(self._add(name, signals, note))

    def _add(self, name: str, signals: Mapping[str, str], note: str = "") -> int:
        bank, draft = self.model.banks[name], ContentDraft(signals=signals, note=note)
        banked = self.store.add_content(bank.id, draft, now_s=NOW_S)
        assert banked.id not in self.model.given_content_ids
        self.model.given_content_ids.add(banked.id)
        assert banked == BankContent(id=banked.id, bank_id=bank.id, signals=signals, note=note, created_at_s=NOW_S)
        self.model.contents[banked.id] = banked
        return banked.id

    @rule(target=content_ids)
    def allot_content_id(self) -> int:
        (content_id,) = self.store.allot_content_ids(1)
        assert content_id not in self.model.given_content_ids
        self.model.given_content_ids.add(content_id)
        return content_id

    @rule(content_id=content_ids, name=NAMES, signals=SIGNALS, until=UNTIL, are_new=st.booleans())
    def put_content(self, content_id: int, name: str, signals: Mapping[str, str], until: int, *, are_new: bool) -> None:
        bank = self.model.banks.get(name)
        if bank is None:
            return
        given = content(content_id, bank.id, signals=signals, disable_until_ts=until, note="put", created_at_s=7)
        self.store.put_contents([given], are_new=are_new)
        before = self.model.contents.get(content_id)
        self.model.contents[content_id] = (
            given if before is None else replace(before, bank_id=bank.id, signals=signals, provenance=given.provenance)
        )

    @rule(content_id=content_ids, name=NAMES, until=st.none() | UNTIL, note=st.none() | NOTES, reason=st.none() | NOTES)
    def update_content(
        self, content_id: int, name: str, until: int | None, note: str | None, reason: str | None
    ) -> None:
        before = self.model.contents.get(content_id)
        bank = self.model.bank_of(before) or self.model.banks.get(name)
        if bank is None:
            return
        change = ContentChange(disable_until_ts=until, note=note, reason=reason)
        if before is None or before.bank_id != bank.id:
            with pytest.raises(NotFound):
                self.store.update_content(bank.name, content_id, change)
            return
        after = replace(
            before,
            disable_until_ts=before.disable_until_ts if until is None else until,
            note=before.note if note is None else note,
            reason=before.reason if reason is None else reason,
        )
        assert self.store.update_content(bank.name, content_id, change) == (bank, after)
        assert self.store.content(bank.name, content_id) == (bank, after)
        self.model.contents[content_id] = after

    @rule(content_id=content_ids, name=NAMES)
    def delete_content(self, content_id: int, name: str) -> None:
        before = self.model.contents.get(content_id)
        bank = self.model.bank_of(before) or self.model.banks.get(name)
        if bank is None:
            return
        is_there = before is not None and before.bank_id == bank.id
        assert self.store.delete_contents(bank.id, [content_id]) == int(is_there)
        if is_there:
            del self.model.contents[content_id]

    @rule(limit=st.integers(1, 4))
    def build_index_from_the_feed(self, limit: int) -> None:
        told, self.cursor = read_feed(self.store, self.cursor, limit=limit)
        banks = {bank.id: bank for bank in self.store.banks()}
        changed = {change.id for change in told if change.kind == "content"}
        for change in told:
            if change.kind == "bank":
                changed |= {one.id for one in self.store.content_page(change.id, limit=1_000).contents}
        stored = self.store.contents(changed)
        for content_id in changed:
            one = stored.get(content_id)
            self.built.pop(content_id, None)
            if one is not None and is_indexed(banks.get(one.bank_id), one):
                self.built[content_id] = one.signals
        assert self.built == self.model.indexed()

    def teardown(self) -> None:
        """Leave the store empty for the next run: it is one for all of them."""
        self.build_index_from_the_feed(limit=1_000)
        for name, bank in self.model.banks.items():
            self.store.delete_bank(name)
            self.store.purge_contents(bank.id, limit=1_000)
        for bank_id in self.model.given_bank_ids:
            self.store.purge_contents(bank_id, limit=1_000)

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        assert list(self.store.banks()) == sorted(self.model.banks.values(), key=lambda bank: bank.name)
        assert self.store.contents(self.model.given_content_ids) == self.model.contents
        for bank in self.model.banks.values():
            page = self.store.content_page(bank.id, limit=1_000)
            ids = {one.id for one in self.model.contents.values() if one.bank_id == bank.id}
            assert [one.id for one in page.contents] == sorted(ids, reverse=True)


def test_a_store_and_its_model_agree(bank_store: BankStore, implementation: str) -> None:
    run_state_machine_as_test(
        partial(BankStoreMachine, bank_store),  # type: ignore[arg-type] # any factory will do
        settings=settings(
            max_examples=EXAMPLES.get(implementation, 2),
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
