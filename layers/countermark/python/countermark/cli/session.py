"""One run of the command line: its state, its output, and the adapters that it uses for the ports.

This is the composition root. Modules that are slow to import are imported by the methods that need them.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from countermark.cli import output

if TYPE_CHECKING:
    from countermark.domain.caller import Caller
    from countermark.domain.content import ContentTypes
    from countermark.domain.event import Event
    from countermark.domain.exchange import Exchange
    from countermark.domain.signal import SignalType
    from countermark.domain.transport import Transport
    from countermark.extensions.registries import Registries
    from countermark.flows.curate import Curator
    from countermark.flows.fetch import Fetcher
    from countermark.flows.index import IndexReport
    from countermark.flows.opinions import OpinionSender
    from countermark.local.content import FileContentReader
    from countermark.local.extensions import ExtensionList
    from countermark.local.state import LocalState


@dataclass(slots=True, kw_only=True)
class Session:
    """The context of a command.

    Collaborations that were created over the API can only read and write files below `files_directories`. They cannot
    use files in the state directory.
    """

    directory: Path
    verbosity: int = 0
    is_quiet: bool = False
    shows_progress: bool = True
    on_event: "Callable[[Event], None] | None" = None
    files_directories: Sequence[Path] = ()
    _has_changed: bool = False
    _registries: "Registries | None" = None

    def note(self, text: str) -> None:
        """Print a note, unless the run is quiet."""
        if not self.is_quiet:
            output.print_note(text)

    def detail(self, text: str) -> None:
        """Print a note that only `-v` shows."""
        if self.verbosity:
            self.note(text)

    def complain(self, text: str) -> None:
        """Print a problem that does not end the command."""
        output.print_note(text)

    def report_internal_error(self, text: str, error: Exception) -> None:
        """Print an unexpected error that does not end the command.

        The text of the error can contain a secret, so it is only shown with `-v`.
        """
        if self.verbosity:
            import traceback

            self.complain(f"{text}:")
            output.print_notes("".join(traceback.format_exception(error)).rstrip())
        else:
            self.complain(f"{text}: internal error: {type(error).__name__}; for a traceback: countermark -v …")

    @staticmethod
    def now_s() -> int:
        """Return the time in epoch seconds."""
        return int(time.time())

    @staticmethod
    def holder() -> str:
        """Return the name of this process for its leases. It helps a user who waits for a lease to find the process."""
        user, host = _user_and_host()
        return f"process {os.getpid()} of {user} on {host}"

    @staticmethod
    def caller() -> "Caller":
        """Return the user who runs this command, or a server without keys."""
        from countermark.domain.caller import local_caller

        return local_caller(*_user_and_host())

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[str], None]]:
        """Show on a terminal that work is in progress. Yield the function that changes the label."""
        if self.is_quiet or not self.shows_progress or not sys.stderr.isatty():
            yield lambda _: None
            return
        from rich.console import Console
        from rich.markup import escape

        def shown(text: str) -> str:
            return escape(output.printable(text))

        with Console(stderr=True).status(shown(label)) as status:
            yield lambda text: status.update(shown(text))

    @contextmanager
    def state(self) -> Iterator["LocalState"]:
        """Open the state, and create it if it does not exist.

        Credentials of exchanges are read from the store, then from the environment, and then from the dot files. The
        first that exist are used. A run that changed banks removes the contents of deleted banks at its end, including
        contents that a killed run left.

        Raises:
            InvalidInput: The path of the state is not a directory.
            Unavailable: The state cannot be read or written, or a newer countermark created it.
        """
        from countermark.local.credentials import CredentialChain
        from countermark.local.state import LocalState

        with LocalState.open(self.directory, on_event=self._remember) as state:
            for notice in state.notices:
                self.note(notice)
            state.secrets = CredentialChain(
                store=state.secrets,
                exchanges=cache(self.exchanges),
                environ=os.environ,
                home=Path(os.path.expanduser("~")),  # noqa: PTH111  # unlike Path.home, it works without a home
            )
            yield state
            if self._has_changed:
                self.purge(state)

    def remove_state(self) -> Sequence[str]:
        """Remove the state. Remove its directory too, unless other files are in it. Return the names of these files.

        Raises:
            InvalidInput: The directory has no countermark state.
            Conflict: Another process has the state open.
            OSError: The state could not be removed.
        """
        from countermark.local.directory import remove

        return remove(self.directory)

    def signal_type_ratios(self) -> Mapping[str, float]:
        """Return the ratios that were set, by signal type. Does not create a state."""
        from countermark.local.directory import DATABASE_FILE

        if not (self.directory / DATABASE_FILE).exists():
            return {}
        with self.state() as state:
            return state.banks.signal_type_ratios()

    def exchanges(self, *, is_confined: bool = False) -> "Mapping[str, Exchange]":
        """Return the exchanges by kind.

        Confined exchanges have the restrictions of collaborations that were created over the API.
        """
        reader = self.content_reader(is_confined=is_confined)
        return self.registries().exchanges(reader=reader, transport=self.transport())

    def content_reader(self, *, is_confined: bool = False) -> "FileContentReader":
        """Return the reader that opens the files of collaborations."""
        from countermark.local.content import FileContentReader

        if not is_confined:
            return FileContentReader()
        return FileContentReader(within=self.files_directories, apart_from=[self.directory])

    def signal_types(self) -> "Mapping[str, SignalType]":
        """Return the signal types by name: countermark's and those of extensions.

        Raises:
            InvalidInput: An extension cannot be loaded.
        """
        return self.registries().signal_types

    def content_types(self) -> "ContentTypes":
        """Return the content types: countermark's and those of extensions.

        Raises:
            InvalidInput: An extension cannot be loaded.
        """
        return self.registries().content_types

    def registries(self) -> "Registries":
        """Return the installed types and exchanges. They are loaded at the first call.

        Raises:
            InvalidInput: An extension cannot be loaded.
        """
        from countermark.errors import InvalidInput
        from countermark.extensions.registries import registries

        if self._registries is None:
            try:
                self._registries = registries(self.extension_list().modules())
            except InvalidInput as error:
                raise InvalidInput(f"{error}; see countermark config extensions remove") from error
        return self._registries

    def extension_list(self) -> "ExtensionList":
        """Return the list of extensions. Reading it does not create a state."""
        from countermark.local.extensions import ExtensionList

        return ExtensionList(self.directory)

    def transport(self) -> "Transport":
        """Return the transport that sends requests to exchanges."""
        from countermark.transport.exchange_client import ExchangeTransport

        return ExchangeTransport()

    def curator(self, state: "LocalState", *, caller: "Caller | None" = None) -> "Curator":
        """Return a curator for changes of banks, at the current time. The caller defaults to this user."""
        from countermark.flows.curate import Curator

        return Curator.of(state, caller=caller or self.caller(), now_s=self.now_s())

    def opinion_sender(self, state: "LocalState", *, caller: "Caller | None" = None) -> "OpinionSender":
        """Return the sender that prepares opinions for exchanges. The caller defaults to this user."""
        from countermark.flows.opinions import OpinionSender

        return OpinionSender.of(state, exchanges=self.exchanges(), caller=caller or self.caller())

    def fetcher(self, state: "LocalState", *, caller: "Caller | None" = None) -> "Fetcher":
        """Return the fetcher of collaborations. The caller defaults to this user."""
        from countermark.flows.fetch import Fetcher

        return Fetcher.of(
            state,
            exchanges=self.exchanges(),
            signal_types=self.signal_types(),
            clock=self.now_s,
            holder=self.holder(),
            caller=caller or self.caller(),
            confined_exchanges=self.exchanges(is_confined=True),
        )

    def build_index(
        self, state: "LocalState", *, is_full: bool = False, report_to: Callable[[str], None] | None = None
    ) -> None:
        """Build the index until it is up to date with the banks.

        `report_to` is called with a summary of the build. By default, the summary is printed as a note.

        Raises:
            PublishConflict: Other processes repeatedly published an index during the build.
            IndexDamaged: The published index fails a check. A full build repairs it.
        """
        from countermark.domain.index import IndexLimits
        from countermark.flows.index import build_index

        reports: list[IndexReport] = []
        with self.progress("Bringing the index up to date") as show:

            def on_progress(contents_read: int) -> None:
                contents_read += sum(report.contents_read for report in reports)
                show(f"Bringing the index up to date - {contents_read} contents read")

            # A full build is requested once. The following builds continue it.
            while not reports or reports[-1].has_more:
                reports.append(
                    build_index(
                        state.banks,
                        state.index,
                        self.signal_types(),
                        now_s=self.now_s(),
                        full=is_full and not reports,
                        # No other work waits for the end of a step here, so a step can be large.
                        limits=IndexLimits(repair_changes=IndexLimits().changes),
                        on_progress=on_progress,
                    )
                )
        self._report_builds(reports, report_to or self.note)

    def build_slice(self, state: "LocalState", *, is_over: Callable[[], bool]) -> bool:
        """Publish new content, then do larger work until `is_over` returns True. Return whether work remains.

        Segments are not merged, because `compact_index` does that in parallel. Raises the same errors as `build_index`.
        """
        from countermark.flows.index import build_index

        report = build_index(
            state.banks, state.index, self.signal_types(), now_s=self.now_s(), is_over=is_over, compacts=False
        )
        self._report_builds([report], self.detail)
        return report.has_more

    def purge_slice(self, state: "LocalState", *, is_over: Callable[[], bool]) -> bool:
        """Remove data of deleted banks and collaborations until `is_over` returns True.

        Return whether more data may remain.
        """
        from countermark.domain.caller import stage_caller
        from countermark.flows.curate import resume_purges

        return resume_purges(self.curator(state, caller=stage_caller("curate")), is_over=is_over)

    def compact_index(self, state: "LocalState") -> bool:
        """Merge segments of the index if a merge is due, and count their contents. Return whether any were merged."""
        from countermark.flows.index import compact_index

        return compact_index(state.banks, state.index, self.signal_types(), now_s=self.now_s())

    def refresh_index(self, state: "LocalState", *, skip_index_rebuild: bool = False) -> None:
        """Build the index after a change of a bank, so that added or enabled contents match from now on."""
        if not skip_index_rebuild:
            self.build_index(state)

    def purge(self, state: "LocalState") -> None:
        """Remove the data of deleted banks and collaborations, including data that a killed run left."""
        from countermark.flows.curate import resume_purges

        if state.banks.unfinished_purges() or state.collaborations.unfinished_purges():
            label = "Removing deleted data"
            with self.progress(label) as show:
                resume_purges(
                    self.curator(state),
                    is_over=lambda: False,
                    on_progress=lambda removed: show(f"{label} - {removed} contents and records"),
                )
        while state.reclaim(is_over=lambda: False):
            pass

    def _remember(self, event: "Event") -> None:
        from countermark.domain.event import BankChanged

        self._has_changed |= isinstance(event, BankChanged)
        if self.on_event is not None:
            self.on_event(event)

    def _report_builds(self, reports: "Sequence[IndexReport]", report_to: Callable[[str], None]) -> None:
        changed = dict.fromkeys(
            name
            for report in reports
            for name, each in report.types.items()
            if each.added or each.removed or each.rebuilt
        )
        for name in changed:
            added = sum(report.types[name].added for report in reports if name in report.types)
            removed = sum(report.types[name].removed for report in reports if name in report.types)
            self.detail(f"Index for {name}: {added} added, {removed} removed")
        for report in reports:
            if report.origin_mismatch is not None:
                self.note(f"{report.origin_mismatch}: the index was built again from the start")
            for name, each in report.types.items():
                if each.refused:
                    self.note(f"Index for {name}: {each.refused} contents with a malformed signal were left out")
        report_to(f"Index ready: {', '.join(changed)}" if changed else "Index ready: nothing had changed")


def _user_and_host() -> tuple[str, str]:
    """Return the names of the user and of the machine."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        user = f"user {os.getuid()}"
    return user, socket.gethostname()
