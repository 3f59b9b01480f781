"""The curate stage: what may be changed, who is nudged, and what is left when nobody can be."""

from collections.abc import Iterator, Sequence

import pytest

from countermark.domain.bank import BankChange, ContentChange, ContentDraft
from countermark.domain.collaboration import Collaboration, Record
from countermark.domain.event import BankChanged, Event
from countermark.domain.json import JSON
from countermark.errors import AlreadyExists, Conflict, InvalidInput, NotFound, Unavailable
from countermark.flows import curate
from countermark.local.banks import SqliteBankStore
from countermark.local.collaborations import SqliteCollaborationStore
from countermark.local.database import Database
from countermark.signals import SIGNAL_TYPES
from tests.callers import CALLER

NOW_S = 1_800_000_000
PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"


class Bus:
    """Keeps what it is told; refuses where it is `away`."""

    def __init__(self) -> None:
        self.events: list[BankChanged] = []
        self.is_away = False

    def publish(self, events: Sequence[Event]) -> None:
        if self.is_away:
            raise Unavailable("the bus is away")
        self.events += [event for event in events if isinstance(event, BankChanged)]


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def curator(bus: Bus) -> Iterator[curate.Curator]:
    with Database.in_memory() as database:
        yield curate.Curator(
            banks=SqliteBankStore(database),
            collaborations=SqliteCollaborationStore(database),
            publisher=bus,
            caller=CALLER,
            now_s=NOW_S,
        )


def test_what_a_build_reads_nudges_it(curator: curate.Curator, bus: Bus) -> None:
    curate.create_bank(curator, "A")
    assert bus.events == []
    content = curate.add_content(curator, "A", ContentDraft(signals={"pdq": PDQ}))
    curate.update_content(curator, "A", content.id, ContentChange(disable_until_ts=0))
    curate.update_bank(curator, "A", BankChange(matching_enabled_ratio=0))
    curate.set_signal_type_ratio(curator, SIGNAL_TYPES, "pdq", 0)
    curate.delete_content(curator, "A", content.id)
    assert [event.reason for event in bus.events] == ["content", "content", "bank", "signal_type", "content"]
    assert len({event.id for event in bus.events}) == 5


def test_a_note_or_a_new_name_nudges_nobody(curator: curate.Curator, bus: Bus) -> None:
    curate.create_bank(curator, "A")
    content = curate.add_content(curator, "A", ContentDraft(signals={"pdq": PDQ}))
    bus.events.clear()
    curate.update_content(curator, "A", content.id, ContentChange(note="n"))
    curate.update_bank(curator, "A", BankChange(name="B"))
    assert bus.events == []


def test_a_lost_nudge_loses_no_change(curator: curate.Curator, bus: Bus) -> None:
    curate.create_bank(curator, "A")
    bus.is_away = True
    content = curate.add_content(curator, "A", ContentDraft(signals={"pdq": PDQ}))
    assert curator.banks.contents([content.id])


def test_a_deletion_that_leaves_something_to_purge_says_when_nobody_could_be_told(
    curator: curate.Curator, bus: Bus
) -> None:
    curate.create_bank(curator, "A")
    bus.is_away = True
    with pytest.raises(Unavailable):
        curate.delete_bank(curator, "A")


def test_a_deleted_bank_is_purged_by_whoever_hears_of_it(curator: curate.Curator, bus: Bus) -> None:
    curate.create_bank(curator, "A")
    ids = [curate.add_content(curator, "A", ContentDraft(signals={"pdq": PDQ})).id for _ in range(3)]
    assert curate.delete_bank(curator, "A")
    assert not curate.delete_bank(curator, "A")
    event = bus.events[-1]
    for _ in range(2):  # the nudge may come twice
        assert not curate.purge(curator, event, steps=5)
    assert curator.banks.contents(ids) == {}


def test_a_purge_says_when_more_may_be_left(curator: curate.Curator, bus: Bus) -> None:
    curate.create_bank(curator, "A")
    curate.add_content(curator, "A", ContentDraft(signals={"pdq": PDQ}))
    curate.delete_bank(curator, "A")
    assert curate.purge(curator, bus.events[-1], steps=1)
    assert not curate.purge(curator, bus.events[-1], steps=1)


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (ContentDraft(signals={}), "No signals given"),
        (ContentDraft(signals={"pdq": PDQ}, note="x" * 256), "at most 255 characters"),
        (ContentDraft(signals={"pdq": PDQ}, metadata={"colour": "red"}), "not 'colour'"),
        (ContentDraft(signals={"pdq": PDQ}, metadata={"json": "x" * 32_768}), "at most 32768 bytes"),
        (ContentDraft(signals={"pdq": PDQ}, original_media_uri="x" * 2_001), "at most 2000 characters"),
    ],
)
def test_a_wrong_content_is_refused(curator: curate.Curator, draft: ContentDraft, message: str) -> None:
    curate.create_bank(curator, "A")
    with pytest.raises(InvalidInput, match=message):
        curate.add_content(curator, "A", draft)
    assert not curator.banks.content_page(curator.banks.bank("A").id, limit=1).contents


def test_metadata_may_fill_its_limit(curator: curate.Curator) -> None:
    metadata: dict[str, JSON] = {"json": "x" * (32 * 1024 - len('{"json": ""}'))}
    assert curate.check_metadata(metadata) == metadata


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ({}, "No signals given"),
        ({"x": "y"}, "No such signal type x"),
        ({"pdq": "zz"}, "Invalid pdq signal: .*'zz'"),
    ],
)
def test_wrong_signals_are_refused_in_hmas_words(signals: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        curate.check_signals(SIGNAL_TYPES, signals)


def test_signals_become_canonical() -> None:
    assert curate.check_signals(SIGNAL_TYPES, {"video_md5": " " + "AB" * 16}) == {"video_md5": "ab" * 16}


@pytest.mark.parametrize("content_id", [0, -1, 2**53, 12345])
def test_a_content_that_is_not_there_is_not_found_by_its_id(curator: curate.Curator, content_id: int) -> None:
    curate.create_bank(curator, "A")
    with pytest.raises(NotFound, match=f"content '{content_id}' not found"):
        curate.update_content(curator, "A", content_id, ContentChange(note="n"))


def test_a_collaboration_brings_its_bank_and_takes_it_away(curator: curate.Curator, bus: Bus) -> None:
    collaboration = Collaboration(name="C", api="sample", bank="C")
    curate.create_collaboration(curator, collaboration)
    assert [bank.name for bank in curator.banks.banks()] == ["C"]
    with pytest.raises(AlreadyExists):
        curate.create_collaboration(curator, collaboration)
    assert curate.delete_collaboration(curator, "C")
    assert not curate.delete_collaboration(curator, "C")
    assert curator.banks.banks() == []
    assert bus.events[-1].deleted_collaboration == "C"
    assert not curate.purge(curator, bus.events[-1], steps=2)


def test_a_collaboration_takes_a_bank_of_ones_own_only_on_purpose(curator: curate.Curator) -> None:
    curate.create_bank(curator, "MINE")
    collaboration = Collaboration(name="C", api="sample", bank="MINE")
    with pytest.raises(AlreadyExists):
        curate.create_collaboration(curator, collaboration)
    assert curator.collaborations.collaborations() == []
    curate.create_collaboration(curator, collaboration, shares_bank=True)
    with pytest.raises(InvalidInput, match="used by collaboration 'C'"):
        curate.create_collaboration(curator, Collaboration(name="D", api="sample", bank="MINE"), shares_bank=True)
    with pytest.raises(InvalidInput, match="UPPER_WITH_UNDERSCORE"):
        curate.create_collaboration(curator, Collaboration(name="E", api="sample", bank="e"))


def test_a_collaboration_that_is_still_being_purged_leaves_no_bank_behind(curator: curate.Curator) -> None:
    collaboration = Collaboration(name="C", api="sample", bank="C")
    curate.create_collaboration(curator, collaboration)
    lease = curator.collaborations.acquire_lease("C", holder="h", now_s=NOW_S, lease_s=60)
    curator.collaborations.put_records(lease, [Record(key="k", data={}, generation=1)], now_s=NOW_S)
    curate.delete_collaboration(curator, "C")
    with pytest.raises(Conflict):
        curate.create_collaboration(curator, collaboration)
    assert curator.banks.banks() == []


def test_many_contents_are_banked_in_one_write_and_checked_like_one(curator: curate.Curator, bus: Bus) -> None:
    curate.create_bank(curator, "A")
    ids = curate.add_contents(curator, "A", [ContentDraft(signals={"pdq": PDQ}, note=str(n)) for n in range(3)])
    contents = curator.banks.contents(ids)
    assert [contents[content_id].note for content_id in ids] == ["0", "1", "2"]
    assert len(bus.events) == 1
    with pytest.raises(InvalidInput, match="No signals given"):
        curate.add_contents(curator, "A", [ContentDraft(signals={"pdq": PDQ}), ContentDraft(signals={})])
    assert len(curator.banks.content_page(curator.banks.bank("A").id, limit=10).contents) == 3


def test_a_collaboration_follows_its_bank_to_a_new_name(curator: curate.Curator) -> None:
    curate.create_collaboration(curator, Collaboration(name="C", api="sample", bank="OLD"))
    curate.update_bank(curator, "OLD", BankChange(name="NEW"))
    assert curator.collaborations.collaboration("C").bank == "NEW"


def test_an_unknown_signal_type_has_no_ratio(curator: curate.Curator) -> None:
    with pytest.raises(NotFound, match="No such SignalType 'zzz'"):
        curate.set_signal_type_ratio(curator, SIGNAL_TYPES, "zzz", 1)
    with pytest.raises(InvalidInput):
        curate.set_signal_type_ratio(curator, SIGNAL_TYPES, "pdq", 2)
