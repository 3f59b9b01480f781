"""What every store of collaborations, leases, fetch states and records holds."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest

from countermark.domain.bank import Provenance
from countermark.domain.collaboration import Collaboration, FetchState, Lease, Record, RecordPolicy
from countermark.domain.stores import MAX_PAGE, CollaborationStore
from countermark.errors import AlreadyExists, Conflict, InvalidInput, LeaseHeld, LeaseLost, NotFound
from tests.contracts.threads import at_once

NOW_S = 1_750_000_000
LEASE_S = 60

WHOLE = Collaboration(
    name="Côte d'Azur / 世界 👍",
    api="ncmec",
    bank="NCMEC_BANK",
    enabled=False,
    disputed=RecordPolicy.SKIP,
    negative=RecordPolicy.MATCH,
    writes_back=True,
    is_confined=True,
    config={"environment": "https://example.com/ü", "only_esp_ids": [1, 10**15], "nested": {"empty": {}, "ratio": 0.1}},
)

STATE = FetchState(
    checkpoint={"update_time": 10**15, "paging": {"url": "/next?a=1&b=é", "ts": None}, "fraction": 0.1},
    checkpoint_at_s=NOW_S - 5,
    generation=7,
    generation_complete=False,
    fetched_items=10**9,
    begun_at_s=NOW_S - 500,
    running_since_s=NOW_S,
    last_complete_at_s=NOW_S - 100,
    last_succeeded=False,
    up_to_date=True,
    last_error="graph.facebook.com answered 503: später",
    malformed_items=3,
)


def lease_of(store: CollaborationStore, name: str = "C", *, holder: str = "run 1") -> Lease:
    """Create a collaboration, and take its lease at `NOW_S`."""
    store.create_collaboration(Collaboration(name=name, api="sample", bank="BANK"))
    return store.acquire_lease(name, holder=holder, now_s=NOW_S, lease_s=LEASE_S)


def put(store: CollaborationStore, lease: Lease, *records: Record) -> None:
    store.put_records(lease, records, now_s=NOW_S)


def record(key: str, *, generation: int = 1) -> Record:
    return Record(key=key, data={"value": key}, generation=generation)


def older_keys(store: CollaborationStore, generation: int, *, limit: int = 100) -> list[str]:
    """Read all pages of the records before a generation."""
    keys: list[str] = []
    after = None
    while True:
        page = store.older_records("C", generation=generation, after=after, limit=limit)
        assert len(page.records) <= limit
        keys += [one.key for one in page.records]
        after = page.after
        if after is None:
            return keys


def test_a_collaboration_comes_back_with_all_that_it_was_stored_with(collaboration_store: CollaborationStore) -> None:
    collaboration_store.create_collaboration(WHOLE)
    assert collaboration_store.collaboration(WHOLE.name) == WHOLE
    assert list(collaboration_store.collaborations()) == [WHOLE]
    bare = Collaboration(name="bare", api="sample", bank="B")
    collaboration_store.create_collaboration(bare)
    assert collaboration_store.collaboration("bare") == bare


def test_collaborations_come_by_name(collaboration_store: CollaborationStore) -> None:
    names = ["b", "a b", "B", "é", "a", "1", "👍"]
    for name in names:
        collaboration_store.create_collaboration(Collaboration(name=name, api="sample", bank="B"))
    assert [one.name for one in collaboration_store.collaborations()] == sorted(names)


def test_a_second_collaboration_of_a_name_is_refused_and_changes_nothing(
    collaboration_store: CollaborationStore,
) -> None:
    collaboration_store.create_collaboration(WHOLE)
    with pytest.raises(AlreadyExists, match="Azur"):
        collaboration_store.create_collaboration(replace(WHOLE, api="sample"))
    assert collaboration_store.collaboration(WHOLE.name) == WHOLE


def test_of_collaborations_created_at_once_under_one_name_exactly_one_is(
    collaboration_store: CollaborationStore,
) -> None:
    given = [Collaboration(name="C", api="sample", bank=f"BANK_{n}") for n in range(6)]
    results = at_once([partial(collaboration_store.create_collaboration, one) for one in given])
    created = [one for one, result in zip(given, results, strict=True) if result is None]
    assert len(created) == 1
    assert sum(isinstance(result, AlreadyExists) for result in results) == 5
    assert list(collaboration_store.collaborations()) == created


def test_a_collaboration_that_is_not_there_is_not_found(collaboration_store: CollaborationStore) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        collaboration_store.collaboration("nowhere")
    with pytest.raises(NotFound, match="nowhere"):
        collaboration_store.update_collaboration(Collaboration(name="nowhere", api="sample", bank="B"))
    with pytest.raises(NotFound, match="nowhere"):
        collaboration_store.acquire_lease("nowhere", holder="run", now_s=NOW_S, lease_s=LEASE_S)
    assert collaboration_store.delete_collaboration("nowhere") is False
    assert list(collaboration_store.collaborations()) == []


def test_an_update_replaces_the_collaboration_and_leaves_its_state_lease_and_records(
    collaboration_store: CollaborationStore,
) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, record("k"))
    collaboration_store.save_fetch_state(lease, STATE, now_s=NOW_S, lease_s=LEASE_S)
    changed = replace(WHOLE, name="C")
    collaboration_store.update_collaboration(changed)
    collaboration_store.update_collaboration(changed)
    assert collaboration_store.collaboration("C") == changed
    assert collaboration_store.fetch_state("C") == STATE
    assert collaboration_store.records("C", ["k"]) == {"k": record("k")}
    with pytest.raises(LeaseHeld):
        collaboration_store.acquire_lease("C", holder="run 2", now_s=NOW_S, lease_s=LEASE_S)


def test_a_state_that_was_never_saved_is_a_fresh_one(collaboration_store: CollaborationStore) -> None:
    lease_of(collaboration_store)
    assert collaboration_store.fetch_state("C") == FetchState()


@pytest.mark.parametrize("state", [STATE, FetchState(), FetchState(checkpoint={}), FetchState(last_succeeded=True)])
def test_a_state_comes_back_as_it_was_saved(collaboration_store: CollaborationStore, state: FetchState) -> None:
    lease = lease_of(collaboration_store)
    for _ in range(2):
        lease = collaboration_store.save_fetch_state(lease, state, now_s=NOW_S, lease_s=LEASE_S)
    assert collaboration_store.fetch_state("C") == state


def test_a_deleted_collaboration_takes_its_state_and_lease_along(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    collaboration_store.save_fetch_state(lease, STATE, now_s=NOW_S, lease_s=LEASE_S)
    assert collaboration_store.delete_collaboration("C") is True
    assert collaboration_store.delete_collaboration("C") is False
    with pytest.raises(NotFound):
        collaboration_store.collaboration("C")
    with pytest.raises(LeaseLost):
        put(collaboration_store, lease, record("late"))
    with pytest.raises(LeaseLost):
        collaboration_store.save_fetch_state(lease, STATE, now_s=NOW_S, lease_s=LEASE_S)
    with pytest.raises(LeaseLost):
        collaboration_store.delete_records(lease, ["late"], now_s=NOW_S)
    again = lease_of(collaboration_store, holder="run 2")
    assert again.holder == "run 2"
    assert collaboration_store.fetch_state("C") == FetchState()


def test_records_of_a_deleted_collaboration_keep_its_name_until_they_are_purged_step_by_step(
    collaboration_store: CollaborationStore,
) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, *[record(str(n)) for n in range(5)])
    other = lease_of(collaboration_store, "D")
    put(collaboration_store, other, record("kept"))
    collaboration_store.delete_collaboration("C")
    for limit, removed in [(2, 2), (3, 3)]:
        with pytest.raises(Conflict, match="C"):
            lease_of(collaboration_store)
        assert collaboration_store.purge_records("C", limit=limit) == removed
    assert collaboration_store.purge_records("C", limit=3) == 0
    lease = lease_of(collaboration_store)
    assert collaboration_store.records("C", [str(n) for n in range(5)]) == {}
    assert collaboration_store.records("D", ["kept"]) == {"kept": record("kept")}


def test_a_purge_leaves_a_collaboration_that_is_not_deleted_alone(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, record("k"))
    assert collaboration_store.purge_records("C", limit=9) == 0
    assert collaboration_store.records("C", ["k"]) == {"k": record("k")}


def test_a_lease_is_held_by_one_run_until_it_expires(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    assert lease == Lease(collaboration="C", holder="run 1", expires_at_s=NOW_S + LEASE_S)
    with pytest.raises(LeaseHeld, match="C"):
        collaboration_store.acquire_lease("C", holder="run 2", now_s=NOW_S + LEASE_S - 1, lease_s=LEASE_S)
    taken = collaboration_store.acquire_lease("C", holder="run 2", now_s=NOW_S + LEASE_S, lease_s=5)
    assert taken == Lease(collaboration="C", holder="run 2", expires_at_s=NOW_S + LEASE_S + 5)


def test_a_lease_that_a_wrong_clock_made_is_over(collaboration_store: CollaborationStore) -> None:
    collaboration_store.create_collaboration(Collaboration(name="C", api="sample", bank="C"))
    year_s = 365 * 24 * 3600
    collaboration_store.acquire_lease("C", holder="run 1", now_s=NOW_S + year_s, lease_s=LEASE_S)
    taken = collaboration_store.acquire_lease("C", holder="run 2", now_s=NOW_S, lease_s=LEASE_S)
    collaboration_store.put_records(taken, [record("k")], now_s=NOW_S)


def test_who_holds_a_lease_is_named_with_its_times(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store, holder="process 12 of someone")
    collaboration_store.save_fetch_state(lease, STATE, now_s=NOW_S + 1, lease_s=LEASE_S)
    with pytest.raises(LeaseHeld) as refused:
        collaboration_store.acquire_lease("C", holder="run 2", now_s=NOW_S + 1, lease_s=LEASE_S)
    told = str(refused.value)
    assert "process 12 of someone" in told
    for at_s in (NOW_S, NOW_S + 1 + LEASE_S):
        assert f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC" in told


def test_a_run_may_take_its_own_lease_again(collaboration_store: CollaborationStore) -> None:
    lease_of(collaboration_store)
    again = collaboration_store.acquire_lease("C", holder="run 1", now_s=NOW_S + 10, lease_s=LEASE_S)
    assert again.expires_at_s == NOW_S + 10 + LEASE_S
    with pytest.raises(LeaseHeld):
        collaboration_store.acquire_lease("C", holder="run 2", now_s=NOW_S + LEASE_S + 5, lease_s=LEASE_S)


def test_leases_of_different_collaborations_do_not_meet(collaboration_store: CollaborationStore) -> None:
    assert lease_of(collaboration_store, "C", holder="run 1").holder == "run 1"
    assert lease_of(collaboration_store, "D", holder="run 2").holder == "run 2"


@pytest.mark.parametrize("now_s", [NOW_S, NOW_S + LEASE_S])
def test_of_runs_that_ask_at_once_exactly_one_takes_the_lease(
    collaboration_store: CollaborationStore, now_s: int
) -> None:
    lease = lease_of(collaboration_store, holder="dead")
    if now_s == NOW_S:
        collaboration_store.release_lease(lease)
    results = at_once(
        [
            partial(collaboration_store.acquire_lease, "C", holder=f"run {n}", now_s=now_s, lease_s=LEASE_S)
            for n in range(8)
        ]
    )
    taken = [result for result in results if isinstance(result, Lease)]
    assert len(taken) == 1
    assert sum(isinstance(result, LeaseHeld) for result in results) == 7
    collaboration_store.put_records(taken[0], [record("k")], now_s=now_s)


def test_a_save_renews_the_lease(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    renewed = collaboration_store.save_fetch_state(lease, STATE, now_s=NOW_S + 50, lease_s=LEASE_S)
    assert renewed == Lease(collaboration="C", holder="run 1", expires_at_s=NOW_S + 50 + LEASE_S)
    with pytest.raises(LeaseHeld):
        collaboration_store.acquire_lease("C", holder="run 2", now_s=NOW_S + LEASE_S + 49, lease_s=LEASE_S)
    collaboration_store.put_records(renewed, [record("k")], now_s=NOW_S + LEASE_S + 49)
    collaboration_store.acquire_lease("C", holder="run 2", now_s=NOW_S + LEASE_S + 50, lease_s=LEASE_S)


Write = Callable[[CollaborationStore, Lease, int], object]

WRITES: dict[str, Write] = {
    "saves its state": lambda store, lease, now_s: store.save_fetch_state(
        lease, FetchState(generation=99), now_s=now_s, lease_s=LEASE_S
    ),
    "puts records": lambda store, lease, now_s: store.put_records(lease, [record("k", generation=99)], now_s=now_s),
    "puts no records": lambda store, lease, now_s: store.put_records(lease, [], now_s=now_s),
    "deletes records": lambda store, lease, now_s: store.delete_records(lease, ["k"], now_s=now_s),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_run_writes_until_its_lease_expires_and_then_no_more(
    collaboration_store: CollaborationStore, write: Write
) -> None:
    first = lease_of(collaboration_store)
    put(collaboration_store, first, record("k"))
    with pytest.raises(LeaseLost, match="C"):
        write(collaboration_store, first, NOW_S + LEASE_S)
    assert collaboration_store.fetch_state("C") == FetchState()
    assert collaboration_store.records("C", ["k"]) == {"k": record("k")}
    write(collaboration_store, first, NOW_S + LEASE_S - 1)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_run_whose_lease_was_taken_over_writes_nothing_even_by_a_clock_that_is_behind(
    collaboration_store: CollaborationStore, write: Write
) -> None:
    lost = lease_of(collaboration_store)
    put(collaboration_store, lost, record("k"))
    taken = collaboration_store.acquire_lease("C", holder="run 2", now_s=NOW_S + LEASE_S, lease_s=LEASE_S)
    with pytest.raises(LeaseLost, match="C"):
        write(collaboration_store, lost, NOW_S)
    assert collaboration_store.fetch_state("C") == FetchState()
    assert collaboration_store.records("C", ["k"]) == {"k": record("k")}
    write(collaboration_store, taken, NOW_S + LEASE_S)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_run_that_gave_its_lease_back_writes_nothing(collaboration_store: CollaborationStore, write: Write) -> None:
    lease = lease_of(collaboration_store)
    collaboration_store.release_lease(lease)
    with pytest.raises(LeaseLost):
        write(collaboration_store, lease, NOW_S)
    assert collaboration_store.fetch_state("C") == FetchState()


def test_a_lease_that_was_given_back_is_free(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    renewed = collaboration_store.save_fetch_state(lease, STATE, now_s=NOW_S + 1, lease_s=LEASE_S)
    collaboration_store.release_lease(renewed)
    collaboration_store.release_lease(renewed)
    taken = collaboration_store.acquire_lease("C", holder="run 2", now_s=NOW_S + 1, lease_s=LEASE_S)
    collaboration_store.release_lease(renewed)
    collaboration_store.put_records(taken, [record("k")], now_s=NOW_S + 1)
    assert collaboration_store.fetch_state("C") == STATE


def test_giving_back_the_lease_of_a_deleted_collaboration_does_nothing(
    collaboration_store: CollaborationStore,
) -> None:
    lease = lease_of(collaboration_store)
    collaboration_store.delete_collaboration("C")
    collaboration_store.release_lease(lease)
    assert list(collaboration_store.collaborations()) == []


def test_a_record_comes_back_with_all_that_it_was_stored_with(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    records = [
        Record(
            key="pdq 👩‍👩‍👧 ü 'x' \u0000",
            data={"empty": {}, "list": [[], None, True, 2**53, -1, 0.1, ""], "text": "世界 \u0000"},
            generation=3,
            content_id=10**15,
        ),
        Record(key="k" * 5_000, data={}, generation=0),
        Record(key="half a character \ud83d", data={"text": "half a character \ud83d"}, generation=1, content_id=1),
    ]
    for _ in range(2):
        put(collaboration_store, lease, *records)
    assert collaboration_store.records("C", [one.key for one in records]) == {one.key: one for one in records}


def test_a_put_withholds_nothing(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, replace(record("k"), is_withheld=True))
    assert collaboration_store.records("C", ["k"]) == {"k": record("k")}


def test_a_big_record_comes_back_whole(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    big = [
        Record(key=f"big {n}", data={"text": f"{n}é" * 40_000, "list": list(range(5_000))}, generation=1)
        for n in range(8)
    ]
    put(collaboration_store, lease, *big)
    assert collaboration_store.records("C", [one.key for one in big]) == {one.key: one for one in big}


def test_a_put_replaces_a_record(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, record("k"), record("other"))
    changed = Record(key="k", data={"value": "new"}, generation=2, content_id=5)
    put(collaboration_store, lease, changed)
    assert collaboration_store.records("C", ["k", "other"]) == {"k": changed, "other": record("other")}


def test_records_are_of_their_own_collaboration(collaboration_store: CollaborationStore) -> None:
    first, second = lease_of(collaboration_store, "C"), lease_of(collaboration_store, "D")
    put(collaboration_store, first, record("k", generation=1))
    put(collaboration_store, second, record("k", generation=2))
    collaboration_store.delete_records(second, ["k"], now_s=NOW_S)
    assert collaboration_store.records("C", ["k"]) == {"k": record("k", generation=1)}
    assert collaboration_store.records("D", ["k"]) == {}


def test_missing_records_are_left_out_and_a_key_may_be_asked_for_twice(
    collaboration_store: CollaborationStore,
) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, record("k"))
    assert collaboration_store.records("C", ["k", "missing", "k"]) == {"k": record("k")}
    assert collaboration_store.records("C", []) == {}
    assert collaboration_store.records("nowhere", ["k"]) == {}


def test_deleted_records_are_gone_and_deleting_them_again_changes_nothing(
    collaboration_store: CollaborationStore,
) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, record("a"), record("b"))
    for _ in range(2):
        collaboration_store.delete_records(lease, ["a", "missing"], now_s=NOW_S)
    assert collaboration_store.records("C", ["a", "b"]) == {"b": record("b")}


def test_a_bulk_write_takes_a_full_page_and_no_more(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    records = [record(f"{n:04}") for n in range(MAX_PAGE + 1)]
    keys = [one.key for one in records]
    put(collaboration_store, lease, *records[:-1])
    assert len(collaboration_store.records("C", keys[:-1])) == MAX_PAGE
    page = collaboration_store.older_records("C", generation=2, after=None, limit=MAX_PAGE)
    assert sorted(one.key for one in page.records) == keys[:-1]
    with pytest.raises(InvalidInput, match="1001"):
        put(collaboration_store, lease, *records)
    with pytest.raises(InvalidInput, match="1001"):
        collaboration_store.records("C", keys)
    with pytest.raises(InvalidInput, match="1001"):
        collaboration_store.delete_records(lease, keys, now_s=NOW_S)
    with pytest.raises(InvalidInput, match="1001"):
        collaboration_store.older_records("C", generation=2, after=None, limit=MAX_PAGE + 1)
    assert collaboration_store.records("C", keys[-1:]) == {}, "a refused write writes nothing"
    collaboration_store.delete_records(lease, keys[:-1], now_s=NOW_S)
    assert collaboration_store.records("C", keys[:-1]) == {}


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7, 100])
def test_older_records_are_those_of_generations_before(collaboration_store: CollaborationStore, limit: int) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, *[record(f"key {n}", generation=n % 3) for n in range(9)])
    old = [f"key {n}" for n in range(9) if n % 3 < 2]
    assert sorted(older_keys(collaboration_store, 2, limit=limit)) == old
    assert older_keys(collaboration_store, 0, limit=limit) == []
    assert len(older_keys(collaboration_store, 3, limit=limit)) == 9


def test_the_last_page_of_older_records_asks_for_no_other(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, *[record(str(n)) for n in range(4)])
    first = collaboration_store.older_records("C", generation=2, after=None, limit=2)
    assert first.after is not None
    last = collaboration_store.older_records("C", generation=2, after=first.after, limit=2)
    assert last.after is None
    assert {one.key for one in (*first.records, *last.records)} == {"0", "1", "2", "3"}
    assert collaboration_store.older_records("nowhere", generation=2, after=None, limit=2).records == ()


def test_a_sweep_that_deletes_each_page_before_it_asks_for_the_next_misses_none(
    collaboration_store: CollaborationStore,
) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, *[record(f"key {n}", generation=n % 2) for n in range(10)])
    after = None
    while True:
        page = collaboration_store.older_records("C", generation=1, after=after, limit=2)
        collaboration_store.delete_records(lease, [one.key for one in page.records], now_s=NOW_S)
        after = page.after
        if after is None:
            break
    assert older_keys(collaboration_store, 1) == []
    assert sorted(older_keys(collaboration_store, 2)) == [f"key {n}" for n in range(1, 10, 2)]


def test_a_record_seen_by_a_newer_generation_is_no_longer_an_older_one(
    collaboration_store: CollaborationStore,
) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, record("k", generation=1))
    put(collaboration_store, lease, record("k", generation=2))
    assert older_keys(collaboration_store, 2) == []


def test_a_withheld_record_stays_so_whatever_a_fetch_writes(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, Record(key="k", data={"v": 1}, generation=1, content_id=9), record("other"))
    for _ in range(2):
        collaboration_store.withhold(Provenance(collaboration="C", record_key="k"))
    marked = Record(key="k", data={"v": 1}, generation=1, content_id=9, is_withheld=True)
    assert collaboration_store.records("C", ["k", "other"]) == {"k": marked, "other": record("other")}
    put(collaboration_store, lease, Record(key="k", data={"v": 2}, generation=2, content_id=9))
    assert collaboration_store.records("C", ["k"])["k"] == replace(marked, data={"v": 2}, generation=2)


def test_a_curator_who_withholds_and_a_fetch_that_writes_at_once_lose_nothing(
    collaboration_store: CollaborationStore,
) -> None:
    lease = lease_of(collaboration_store)
    for n in range(5):
        put(collaboration_store, lease, record(f"k{n}"))
        at_once(
            [
                partial(collaboration_store.withhold, Provenance(collaboration="C", record_key=f"k{n}")),
                partial(put, collaboration_store, lease, record(f"k{n}", generation=2)),
            ]
        )
        assert collaboration_store.records("C", [f"k{n}"])[f"k{n}"] == replace(
            record(f"k{n}", generation=2), is_withheld=True
        )


def test_a_record_that_was_deleted_and_comes_again_is_not_withheld(collaboration_store: CollaborationStore) -> None:
    lease = lease_of(collaboration_store)
    put(collaboration_store, lease, record("k"))
    collaboration_store.withhold(Provenance(collaboration="C", record_key="k"))
    collaboration_store.delete_records(lease, ["k"], now_s=NOW_S)
    put(collaboration_store, lease, record("k"))
    assert collaboration_store.records("C", ["k"]) == {"k": record("k")}


def test_withholding_a_record_that_is_not_there_does_nothing(collaboration_store: CollaborationStore) -> None:
    lease_of(collaboration_store)
    collaboration_store.withhold(Provenance(collaboration="C", record_key="missing"))
    collaboration_store.withhold(Provenance(collaboration="nowhere", record_key="k"))
    assert collaboration_store.records("C", ["missing"]) == {}
