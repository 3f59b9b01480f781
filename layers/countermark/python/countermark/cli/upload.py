"""`countermark upload`: hash and match files as a deployment does with uploads, and publish the events."""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from countermark.cli import output
from countermark.cli.content import Complaint, Complaints, ContentCommand, content_type_argument, detect_content_type
from countermark.cli.session import Session
from countermark.domain import event_json
from countermark.domain.event import ContentHashed, Event, MatchFound
from countermark.domain.signal import ContentType, Signal
from countermark.errors import CountermarkError, InvalidInput

if TYPE_CHECKING:
    from countermark.flows.hash import TypesOf
    from countermark.local.state import LocalState


@click.command(cls=ContentCommand)
@content_type_argument
@click.argument(
    "files",
    metavar="FILE…",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--content-id",
    metavar="ID",
    help="Your id of the content. If a bank's ratio is below 1, the id decides whether it matches.",
)
@click.pass_obj
def command(session: Session, *, content_type: ContentType, files: tuple[Path, ...], content_id: str | None) -> None:
    """Process files as uploads: hash and match each FILE, and publish events.

    A deployment processes each object in its upload bucket in the same way. `countermark match` only looks up.
    The events are stored in the state: `ContentHashed` for each file, and `MatchFound` for each file that matches. Each
    `MatchFound` is printed as a line of JSON.

    A file that was uploaded in the last two weeks, and has not changed since, is skipped. If a file cannot be examined,
    or was not compared with all signals, an error is printed on standard error. The other files are still processed,
    and the exit code is 2.

    \b
    Examples:
      countermark upload photo upload.jpg
      countermark upload file --content-id post-17 upload.mp4
    """
    complaints = Complaints()
    with session.state() as state:
        uploads = Uploads(session, state, content_type)
        for path in files:
            try:
                uploads.upload(path, content_id)
            except CountermarkError as error:
                complaints.add(Complaint.of(str(path), error))
            for text in uploads.incomplete:
                complaints.add(Complaint(text=f"{path}{text}", is_outside=False))
            for event in uploads.matches:
                output.print_result(output.json_text(event_json.to_json(event)[1]))
            uploads.incomplete, uploads.matches = [], []
    complaints.raise_all()


class Uploads:
    """Hashes files, and matches each file as soon as it is hashed.

    This class replaces a deployment's event bus and queue. `publish` stores events and matches hashed content before
    the hash stage records the upload, so that an interrupted upload can be repeated. `matches` are the published
    matches. `incomplete` are texts about parts of the file that were not examined or not compared. Each text starts
    with the place of the part in the file.
    """

    def __init__(self, session: Session, state: "LocalState", content_type: ContentType) -> None:
        from countermark.flows.cached import BankDirectory
        from countermark.indexes.reader import IndexReader

        session.build_index(state, report_to=session.detail)
        self._session = session
        self._state = state
        self._content_type = content_type
        self._reader = IndexReader(state.index, session.signal_types())
        self._directory = BankDirectory(state.banks)
        self._path = Path()
        self.matches: list[MatchFound] = []
        self.incomplete: list[str] = []

    def upload(self, path: Path, content_id: str | None) -> None:
        """Process a file, unless this file was processed before.

        Raises:
            InvalidInput: The file cannot be read, or its content type is unknown.
        """
        from countermark.flows.hash import hash_upload

        self._path = path.absolute()
        with self._open() as stream:
            version = os.fstat(stream.fileno())
            if not stat.S_ISREG(version.st_mode):
                raise InvalidInput("not a file: a pipe or a device cannot be uploaded, because it has no version")
            report = hash_upload(
                stream,
                content_key=f"{self._path.as_uri()}#{version.st_ino}-{version.st_ctime_ns}-{version.st_size}",
                content_type=self._detect_type(stream),
                content_id=content_id,
                types_of=self._types_of(self._state.banks.signal_type_ratios()),
                content_types=self._session.content_types(),
                name=path.name,
                publisher=self,
                ledger=self._state.ledger,
                now_s=self._session.now_s(),
            )
        if report is None:
            self._session.note(f"{path}: skipped, because it was uploaded before")
            return
        self.incomplete += [
            f"{place}: no {name}: {why.reason}" for place, name, why in report.not_examined(with_queries=True)
        ]

    def publish(self, events: Sequence[Event]) -> None:
        """Store events, and match the content that was hashed."""
        from countermark.flows.match import match_hashed

        self._state.publisher.publish(events)
        for event in events:
            if isinstance(event, MatchFound):
                self.matches.append(event)
            elif isinstance(event, ContentHashed):
                match_hashed(
                    event,
                    reader=self._reader,
                    banks=self._state.banks,
                    directory=self._directory,
                    publisher=self,
                    ledger=self._state.ledger,
                    caller=self._session.caller(),
                    now_s=self._session.now_s(),
                    on_match=self._state.on_match,
                    read_queries=self._read_queries,
                    on_partial=partial(self._note_partial, event),
                )

    def _note_partial(self, event: ContentHashed, why: Mapping[str, str]) -> None:
        place = event.content_key.rpartition("#")[2].partition("/")
        for name, reason in why.items():
            text = f"{''.join(place[1:])}: {name}: {reason}"
            if name in event.partial:
                self._session.note(f"{self._path}{text}")
            else:
                self.incomplete.append(text)

    def _read_queries(self, event: ContentHashed) -> Iterable[Signal]:
        """Hash the file again, and return its queries. The event does not contain queries that are too large for it."""
        from countermark.flows.hash import hash_with_parts

        with self._open() as stream:
            kind, types_of = self._detect_type(stream), self._types_of({})
            report = hash_with_parts(stream, kind, types_of, self._session.content_types(), name=self._path.name)
        place = "".join(event.content_key.rpartition("#")[2].partition("/")[1:])
        return dict(report.walk())[place].queries

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise InvalidInput(f"{error.strerror}") from error

    def _detect_type(self, stream: BinaryIO) -> ContentType:
        if self._content_type != ContentType.FILE:
            return self._content_type
        return detect_content_type(stream, self._path.name, self._session.content_types())

    def _types_of(self, ratios: Mapping[str, float]) -> "TypesOf":
        from countermark.flows.hash import applicable_types

        return partial(applicable_types, self._session.signal_types(), ratios=ratios)
