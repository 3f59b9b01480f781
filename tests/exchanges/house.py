"""One collaboration over SQLite in memory: the real fetch flow around a real client, and what can befall a run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from countermark.domain.collaboration import Collaboration, FetchState
from countermark.domain.exchange import Exchange
from countermark.domain.json import JSON
from countermark.flows import curate
from countermark.flows.fetch import LEASE_S, Fetcher, FetchReport, fetch_collaboration
from countermark.local.banks import SqliteBankStore
from countermark.local.collaborations import SqliteCollaborationStore
from countermark.local.database import Database
from countermark.local.events import SqliteEventPublisher
from countermark.signals import SIGNAL_TYPES
from tests.callers import CALLER
from tests.contracts.test_fetch import Crash, Dying, Fuse
from tests.exchanges.server import ExchangeServer, Fault, dropped, status, truncated

NOW_S = 1_800_000_000
NAME = "C"


class OneSecret:
    """The credentials of one kind."""

    def __init__(self, credentials: Mapping[str, str] | None) -> None:
        self._credentials = credentials

    def credentials(self, kind: str) -> Mapping[str, str] | None:
        return self._credentials

    def set_credentials(self, kind: str, credentials: Mapping[str, str] | None) -> None:
        self._credentials = credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """What befalls one run: it is cut at its first delta, dies at a write, or is answered wrongly.

    Or another run is begun at each of its steps, or takes over at its first one, when its lease has expired.
    """

    is_cut: bool = False
    is_doubled: bool = False
    is_overtaken: bool = False
    dies_at: int | None = None
    dies_after: bool = False
    fault_at: int | None = None
    fault: Fault = dropped


def mishaps() -> st.SearchStrategy[Mishap]:
    """Return a strategy of mishaps; one that lies beyond the run's end is none."""
    faults = st.sampled_from([dropped, truncated, status(503), status(404)])
    return st.one_of(
        st.just(Mishap()),
        st.just(Mishap(is_cut=True)),
        st.just(Mishap(is_doubled=True)),
        st.just(Mishap(is_overtaken=True)),
        st.builds(Mishap, dies_at=st.integers(0, 12), dies_after=st.booleans()),
        st.builds(Mishap, fault_at=st.integers(0, 6), fault=faults),
    )


class House:
    """One collaboration of an exchange."""

    def __init__(
        self,
        database: Database,
        exchange: Exchange,
        config: Mapping[str, JSON],
        credentials: Mapping[str, str] | None,
    ) -> None:
        self.now_s = NOW_S
        self.exchange = exchange
        self.database = database
        self.banks = SqliteBankStore(database)
        self.collaborations = SqliteCollaborationStore(database)
        self.runs = 0
        self.fetcher = Fetcher(
            exchanges={exchange.kind: exchange},
            signal_types=SIGNAL_TYPES,
            collaborations=self.collaborations,
            banks=self.banks,
            secrets=OneSecret(credentials),
            publisher=SqliteEventPublisher(database),
            clock=lambda: self.now_s,
            holder="run",
            caller=CALLER,
        )
        curator = curate.Curator(
            banks=self.banks,
            collaborations=self.collaborations,
            publisher=self.fetcher.publisher,
            caller=CALLER,
            now_s=NOW_S,
        )
        curate.create_collaboration(
            curator, Collaboration(name=NAME, api=exchange.kind, bank=NAME, config=exchange.parse_config(config))
        )

    def configure(self, config: Mapping[str, JSON]) -> None:
        known = self.collaborations.collaboration(NAME)
        self.collaborations.update_collaboration(replace(known, config=self.exchange.parse_config(config)))

    def fetch(self, **changes: Any) -> FetchReport:
        """Run once, with nothing in the way; another run's lease has expired by now."""
        self.runs += 1
        deadline_s = changes.pop("deadline_s", None)
        on_progress = changes.pop("on_progress", None)
        fetcher = replace(self.fetcher, holder=f"run-{self.runs}", **changes)
        return fetch_collaboration(fetcher, NAME, deadline_s=deadline_s, on_progress=on_progress)

    def suffer(self, mishap: Mishap, server: ExchangeServer) -> None:
        """Run once, with a mishap."""
        server.faults_at.clear()
        if mishap.fault_at is not None:
            # Five tries: all of them must fail, or the run would not notice.
            first = len(server.asked) + mishap.fault_at
            server.faults_at.update(dict.fromkeys(range(first, first + 5), mishap.fault))
        changes: dict[str, Any] = {"deadline_s": self.now_s} if mishap.is_cut else {}
        if mishap.dies_at is not None:
            fuse = Fuse(mishap.dies_at, after=mishap.dies_after)
            changes |= {"banks": Dying(fuse, self.banks), "collaborations": Dying(fuse, self.collaborations)}
        if mishap.is_doubled:
            changes["on_progress"] = self._begin_another
        if mishap.is_overtaken:
            changes["on_progress"] = once(self._overtake)
        try:
            self.fetch(**changes)
        except Crash:
            self.now_s += LEASE_S
        server.faults_at.clear()

    def _begin_another(self, _: FetchState) -> None:
        assert self.fetch().outcome == "held"

    def _overtake(self, _: FetchState) -> None:
        self.now_s += LEASE_S
        assert self.fetch().outcome == "complete"

    def state(self) -> FetchState:
        return self.collaborations.fetch_state(NAME)

    def banked(self) -> dict[str, Mapping[str, str]]:
        """Return the signals of the bank by record key; contents without any are left out."""
        signals: dict[str, Mapping[str, str]] = {}
        page = self.banks.content_page(self.banks.bank(NAME).id, limit=1000)
        assert page.before is None
        for content in page.contents:
            assert content.provenance is not None
            assert content.provenance.record_key not in signals, "a record is banked once"
            signals[content.provenance.record_key] = content.signals
        return {key: values for key, values in signals.items() if values}

    def dump(self) -> str:
        """Return all that is stored, as text."""
        with self.database.read() as connection:
            return "\n".join(connection.iterdump())

    def signals(self) -> set[tuple[str, str]]:
        """Return all that the bank matches."""
        return {pair for values in self.banked().values() for pair in values.items()}


def once(happen: Callable[[FetchState], None]) -> Callable[[FetchState], None]:
    """Let something happen at the first call only."""
    left = [happen]
    return lambda state: left.pop()(state) if left else None


@contextmanager
def house_of(exchange: Exchange, config: Mapping[str, JSON], credentials: Mapping[str, str] | None) -> Iterator[House]:
    """Make a house of its own."""
    with Database.in_memory() as database:
        yield House(database, exchange, config, credentials)
