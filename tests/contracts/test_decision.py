"""The decision over both stores, through the real index: every case of the disable states.

Each test curates, builds where it says so, and looks up: what the index holds may be old, the answer not.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from countermark.domain.bank import (
    ENABLED,
    MAX_DISABLE_AHEAD_S,
    PERMANENTLY_DISABLED,
    BankChange,
    ContentChange,
    ContentDraft,
)
from countermark.domain.decision import Policy, coin
from countermark.domain.signal import Signal
from countermark.domain.stores import BankStore, CollaborationStore, IndexStore
from countermark.errors import IndexNotReady, InvalidInput, NotFound
from countermark.flows import curate
from countermark.flows.cached import BankDirectory
from countermark.flows.index import build_index
from countermark.flows.match import Matcher, raw_lookup
from countermark.indexes.reader import IndexReader
from countermark.signals import SIGNAL_TYPES
from tests.callers import CALLER
from tests.contracts.ports import Publishing

NOW_S = 1_750_000_000  # the past: a store ages segments by its own clock, and one ahead of it would make all garbage
HASH = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
MD5 = "8232159d785739e0ffcf06977f1eda5f"


def near(distance_bits: int) -> str:
    """Return a PDQ signal that lies so many bits from HASH."""
    return f"{int(HASH, 16) ^ ((1 << distance_bits) - 1):064x}"


class House:
    """Stores, an index and a directory of banks, as one instance of the service has them."""

    def __init__(
        self, banks: BankStore, collaborations: CollaborationStore, index_store: IndexStore, publishing: Publishing
    ) -> None:
        self.banks = banks
        self.index_store = index_store
        self.now_s = NOW_S
        self.collaborations = collaborations
        self.publishing = publishing
        self.reader = IndexReader(index_store, SIGNAL_TYPES, max_age_s=0)
        self.directory = BankDirectory(banks)

    @property
    def curator(self) -> curate.Curator:
        return curate.Curator(
            banks=self.banks,
            collaborations=self.collaborations,
            publisher=self.publishing.publisher,
            caller=CALLER,
            now_s=self.now_s,
        )

    def bank(self, name: str, ratio: object = 1.0) -> None:
        curate.create_bank(self.curator, name, ratio=ratio)

    def add(self, bank: str, **signals: str) -> int:
        return curate.add_content(self.curator, bank, ContentDraft(signals=signals or {"pdq": HASH})).id

    def disable(self, bank: str, content_id: int, until_ts: object) -> None:
        curate.update_content(
            self.curator, bank, content_id, ContentChange.checked({"disable_until_ts": until_ts}, now_s=self.now_s)
        )

    def ramp(self, bank: str, ratio: object) -> None:
        curate.update_bank(self.curator, bank, BankChange.checked(ratio=ratio))
        self.now_s += 10  # beyond the age that banks are cached for

    def build(self, *, full: bool = False) -> None:
        build_index(self.banks, self.index_store, SIGNAL_TYPES, now_s=self.now_s, full=full)

    def look_up(
        self,
        value: str = HASH,
        *,
        signal_type: str = "pdq",
        only_banks: Sequence[str] | None = None,
        content_id: str | None = None,
        bypass_coin: bool = False,
    ) -> list[tuple[str, int]]:
        matcher = Matcher(index=self.reader.current(self.now_s), banks=self.banks, directory=self.directory)
        policy = Policy(
            banks=None if only_banks is None else frozenset(only_banks), content_id=content_id, bypass_coin=bypass_coin
        )
        [found] = matcher.lookups([Signal(type=signal_type, value=value)], policy, now_s=self.now_s)
        return [(match.bank.name, match.content.id) for match in found.matches]

    def raw(self, value: str = HASH) -> set[int]:
        found = raw_lookup(self.reader.current(self.now_s), Signal(type="pdq", value=value))
        return {candidate.content_id for candidate in found}


@pytest.fixture
def house(
    bank_store: BankStore,
    collaboration_store: CollaborationStore,
    index_store: IndexStore,
    event_publisher: Publishing,
) -> House:
    return House(bank_store, collaboration_store, index_store, event_publisher)


def test_before_the_first_build_there_is_no_index(house: House) -> None:
    house.bank("A")
    house.add("A")
    with pytest.raises(IndexNotReady):
        house.look_up()


@pytest.mark.parametrize(("ratio", "matches"), [(0, False), (1, True), ("1", True), ("0", False)])
def test_a_bank_matches_by_its_ratio(house: House, ratio: object, *, matches: bool) -> None:
    house.bank("A", ratio)
    content_id = house.add("A")
    house.build()
    assert house.look_up() == ([("A", content_id)] if matches else [])
    assert house.raw() == ({content_id} if matches else set())


@pytest.mark.parametrize("ratio", [7, -3, float("nan"), "x"])
def test_a_wrong_ratio_is_refused_and_changes_nothing(house: House, ratio: object) -> None:
    house.bank("A")
    with pytest.raises(InvalidInput):
        house.ramp("A", ratio)
    with pytest.raises(InvalidInput):
        house.bank("B", ratio)
    assert [(bank.name, bank.matching_enabled_ratio) for bank in house.banks.banks()] == [("A", 1.0)]


def test_a_ratio_of_0_acts_at_once_and_coming_back_needs_a_build(house: House) -> None:
    house.bank("A")
    content_id = house.add("A")
    house.build()
    house.ramp("A", 0)
    assert house.look_up() == []
    assert house.look_up(bypass_coin=True) == []
    assert house.raw() == {content_id}
    house.build()
    assert house.raw() == set()
    house.ramp("A", "0.5")
    assert house.raw() == set()
    house.build()
    assert house.raw() == {content_id}
    assert house.look_up(bypass_coin=True) == [("A", content_id)]


@pytest.mark.parametrize(
    ("until_ts", "matches", "is_indexed"),
    [
        (ENABLED, True, True),
        (0, False, False),
        (PERMANENTLY_DISABLED, False, False),
        (PERMANENTLY_DISABLED + 1, False, False),
        (NOW_S, True, True),
        (NOW_S + 1, False, True),
        (NOW_S + MAX_DISABLE_AHEAD_S, False, True),
    ],
)
def test_a_disable_acts_at_the_next_lookup_and_leaves_the_index_at_the_next_build(
    house: House, until_ts: int, *, matches: bool, is_indexed: bool
) -> None:
    house.bank("A")
    content_id = house.add("A")
    house.build()
    house.disable("A", content_id, until_ts)
    assert house.banks.contents([content_id])[content_id].disable_until_ts == until_ts
    assert house.look_up() == ([("A", content_id)] if matches else [])
    assert house.raw() == {content_id}
    house.build()
    assert house.look_up() == ([("A", content_id)] if matches else [])
    assert house.raw() == ({content_id} if is_indexed else set())
    house.disable("A", content_id, ENABLED)
    house.build()
    assert house.look_up() == [("A", content_id)]
    assert house.raw() == {content_id}


@pytest.mark.parametrize("until_ts", [PERMANENTLY_DISABLED - 1, NOW_S + MAX_DISABLE_AHEAD_S + 1, -1])
def test_a_wrong_disable_time_is_refused_and_changes_nothing(house: House, until_ts: int) -> None:
    house.bank("A")
    content_id = house.add("A")
    house.build()
    with pytest.raises(InvalidInput):
        house.disable("A", content_id, until_ts)
    assert house.look_up() == [("A", content_id)]


def test_a_timed_disable_ends_by_itself_at_its_second(house: House) -> None:
    house.bank("A")
    content_id = house.add("A")
    house.build()
    house.disable("A", content_id, NOW_S + 60)
    house.now_s = NOW_S + 59
    assert house.look_up() == []
    house.now_s = NOW_S + 60
    assert house.look_up() == [("A", content_id)]


def test_the_same_signal_in_a_closed_and_an_open_bank_matches_in_the_open_one(house: House) -> None:
    house.bank("OFF", 0)
    house.bank("ON", 1)
    house.add("OFF")
    content_id = house.add("ON")
    house.build()
    assert house.look_up() == [("ON", content_id)]


def test_a_renamed_bank_matches_under_its_new_name_without_a_build(house: House) -> None:
    house.bank("OLD")
    content_id = house.add("OLD")
    house.build()
    curate.update_bank(house.curator, "OLD", BankChange(name="NEW"))
    house.now_s += 10
    assert house.look_up() == [("NEW", content_id)]
    assert house.look_up(only_banks=["OLD"]) == []
    assert house.look_up(only_banks=["NEW"]) == [("NEW", content_id)]


def test_a_deleted_content_is_not_matched_but_stays_in_the_raw_lookup_until_a_build(house: House) -> None:
    house.bank("A")
    content_id = house.add("A")
    kept = house.add("A", pdq=near(3))
    house.build()
    assert curate.delete_content(house.curator, "A", content_id) == 1
    assert house.look_up() == [("A", kept)]
    assert house.raw() == {content_id, kept}
    house.build()
    assert house.raw() == {kept}


def test_a_deleted_bank_matches_nothing_at_once_and_leaves_the_index(house: House) -> None:
    house.bank("A")
    content_id = house.add("A")
    house.build()
    curate.delete_bank(house.curator, "A")
    house.now_s += 10
    assert house.look_up() == []
    assert house.raw() == {content_id}
    house.build()
    assert house.raw() == set()
    house.bank("A")
    house.build()
    assert house.look_up() == []


def test_a_content_is_reached_only_through_its_own_bank(house: House) -> None:
    house.bank("A")
    house.bank("B")
    content_id = house.add("A")
    for change in (
        lambda: curate.delete_content(house.curator, "B", content_id),
        lambda: house.disable("B", content_id, 0),
    ):
        with pytest.raises(NotFound, match=f"content '{content_id}' not found"):
            change()
    house.build()
    assert house.look_up() == [("A", content_id)]


def test_only_named_banks_are_asked(house: House) -> None:
    house.bank("A")
    house.bank("B")
    first, second = house.add("A"), house.add("B")
    house.build()
    assert house.look_up() == [("A", first), ("B", second)]
    assert house.look_up(only_banks=["B"]) == [("B", second)]
    assert house.look_up(only_banks=[]) == []


def test_a_banks_own_distance_limit_holds(house: House) -> None:
    house.bank("A")
    content_id = house.add("A", pdq=near(20))
    house.build()
    assert house.look_up() == [("A", content_id)]
    house.banks.update_bank("A", BankChange(distance_limits={"pdq": 19}))
    house.now_s += 10
    assert house.look_up() == []
    assert house.raw() == {content_id}
    house.banks.update_bank("A", BankChange(distance_limits={"pdq": 20}))
    house.now_s += 10
    assert house.look_up() == [("A", content_id)]


def test_distance_31_matches_and_32_does_not(house: House) -> None:
    house.bank("A")
    content_id = house.add("A", pdq=near(31))
    house.add("A", pdq=near(32))
    house.build()
    assert house.look_up() == [("A", content_id)]


def test_equal_lookups_of_a_half_open_bank_give_one_answer_on_every_instance(house: House) -> None:
    house.bank("A", 0.5)
    house.add("A")
    house.build()
    other = House(house.banks, house.collaborations, house.index_store, house.publishing)
    answers = {tuple(instance.look_up()) for instance in (house, other) for _ in range(100)}
    assert len(answers) == 1


def test_different_lookups_of_a_half_open_bank_match_half_the_time(house: House) -> None:
    house.bank("A", 0.5)
    house.add("A")
    house.build()
    matching = [n for n in range(500) if house.look_up(content_id=f"content-{n}")]
    assert matching == [n for n in range(500) if coin(f"content-{n}") < 0.5]
    assert abs(len(matching) - 250) <= 4 * (500 * 0.25) ** 0.5
    house.ramp("A", 0.75)
    assert set(matching) <= {n for n in range(500) if house.look_up(content_id=f"content-{n}")}
    assert all(house.look_up(content_id=f"content-{n}", bypass_coin=True) for n in range(10))


def test_without_a_content_id_the_query_signal_is_the_seed(house: House) -> None:
    house.bank("A", 0.5)
    house.add("A")
    house.build()
    for distance_bits in range(12):
        value = near(distance_bits)
        assert bool(house.look_up(value)) is (coin(value) < 0.5)


def test_a_content_id_gives_all_signal_types_of_one_photo_the_same_coin(house: House) -> None:
    house.bank("A", 0.5)
    house.add("A", pdq=HASH, photo_md5=MD5)
    house.build()
    for n in range(20):
        by_pdq = house.look_up(content_id=f"photo-{n}")
        by_md5 = house.look_up(MD5, signal_type="photo_md5", content_id=f"photo-{n}")
        assert by_pdq == by_md5


def test_a_content_whose_signal_changed_no_longer_matches_by_the_old_one(house: House) -> None:
    house.bank("A")
    content_id = house.add("A")
    house.build()
    [content] = house.banks.contents([content_id]).values()
    house.banks.put_contents([replace(content, signals={"pdq": near(200)})])
    assert house.look_up() == []
    house.build()
    assert house.look_up() == []
    assert house.look_up(near(200)) == [("A", content_id)]


def test_a_signal_type_that_is_switched_off_leaves_the_index_and_comes_back(house: House) -> None:
    house.bank("A")
    content_id = house.add("A")
    house.build()
    curate.set_signal_type_ratio(house.curator, SIGNAL_TYPES, "pdq", 0)
    house.build()
    with pytest.raises(IndexNotReady):
        house.look_up()
    curate.set_signal_type_ratio(house.curator, SIGNAL_TYPES, "pdq", 1)
    house.build()
    assert house.look_up() == [("A", content_id)]


def test_two_curators_at_once_lose_nothing(house: House) -> None:
    house.bank("A")
    content_id = house.add("A")
    barrier = threading.Barrier(2)

    def make(change: ContentChange) -> None:
        barrier.wait()
        curate.update_content(house.curator, "A", content_id, change)

    for n in range(5):
        changes = [ContentChange(note=f"note {n}"), ContentChange(disable_until_ts=NOW_S + n)]
        threads = [threading.Thread(target=make, args=(change,)) for change in changes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        content = house.banks.contents([content_id])[content_id]
        assert (content.note, content.disable_until_ts) == (f"note {n}", NOW_S + n)


def test_two_builds_at_once_lose_nothing(house: House) -> None:
    house.bank("A")
    barrier = threading.Barrier(2)
    ids = []

    def build() -> None:
        barrier.wait()
        house.build()

    for _ in range(3):
        ids.append(house.add("A"))
        threads = [threading.Thread(target=build) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert house.raw() == set(ids)
