"""A file of signals, on this machine or on S3.

Operator: the owner of the file. Credentials: none. The file is UTF-8 text, with or without a byte order mark, or UTF-16
or UTF-32 text with a byte order mark. A line has the form `type signal`. If the configuration specifies the signal
type, a line contains only the signal. Blank lines and lines that begin with `#` are ignored. Lines end in LF, CRLF or
CR. If the file has changed, a fetch reads all lines again, so the record of a deleted line is removed. Equal lines
produce one record.

Limits: a line has at most 64 KiB in UTF-8, including its line ending. A longer line is malformed. Malformed lines are
counted and skipped.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, cast

from countermark.domain.exchange import ChecksPlaces, ContentReader, CredentialSource, Delta, Fetch, Field
from countermark.domain.json import JSON
from countermark.domain.lines import lines
from countermark.domain.opinion import Opinion, SharedOpinion, Verdict
from countermark.domain.signal import Signal, SignalType
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges.config import parse_fields, refuse_credentials

MAX_LINE_BYTES = 64 * 1024
"""The maximum length of a line, in bytes of UTF-8. The raw_text signal of a long post fits into it. The limit prevents
a file without line endings from filling the memory."""

LINES_PER_DELTA = 1_000
"""The number of lines per delta. The stores write a delta in one step."""

_CHUNK_BYTES = 1024 * 1024

_LINES_VERSION = 2
"""The version of the rules that split a file into lines. Version 1 supported only LF and UTF-8, so files with other
encodings or line endings must be read again after an update."""


class LocalFileExchange:
    """Yields the lines of a file. If the file has changed, all lines are yielded again.

    Only `joined` passes `config`.
    """

    kind = "local_file"
    credential_fields: Sequence[Field] | None = None
    credential_source: CredentialSource | None = None

    def __init__(
        self,
        reader: ContentReader,
        signal_types: Mapping[str, SignalType],
        *,
        config: Mapping[str, JSON] | None = None,
    ) -> None:
        self._reader = reader
        self._signal_types = signal_types
        self._config = config or {}

    @property
    def config_fields(self) -> Sequence[Field]:
        """The name of the file, and optionally the signal type of all lines."""
        return (
            Field(name="filename", type="str", required=True, help="a path, or an s3:// URL"),
            Field(
                name="signal_type",
                type="str",
                required=False,
                help="the signal type of every line; without it, each line begins with its own",
                choices=tuple(self._signal_types),
            ),
        )

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the checked configuration.

        Raises:
            InvalidInput: The file name is missing, the reader does not open files in this place, or a field is unknown
                or invalid.
        """
        parsed = parse_fields(self.kind, self.config_fields, config)
        if isinstance(self._reader, ChecksPlaces):
            self._reader.check(str(parsed["filename"]))
        return parsed

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Raise an error, because this exchange needs no credentials.

        Raises:
            InvalidInput: Always.
        """
        refuse_credentials(self.kind)

    def joined(self, config: Mapping[str, JSON]) -> "LocalFileExchange":
        """Check a configuration, and return this exchange with it.

        Raises:
            InvalidInput: A field is missing, unknown or invalid.
        """
        return LocalFileExchange(self._reader, self._signal_types, config=self.parse_config(config))

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch. It yields nothing if the file has not changed since it was read completely.

        If the file has changed, the fetch restarts. If the last fetch did not read all lines, this fetch continues
        after the last line that was read. The checkpoint contains the file's digest and the number of lines that were
        read. The number is None if all lines were read.

        Raises:
            NotFound: The file does not exist.
            ExchangeFailed: During iteration of the deltas: the file changed while it was read.
        """
        filename, default_type = str(self._config["filename"]), self._config["signal_type"]
        digest = self._digest(filename, default_type)
        is_same = checkpoint is not None and checkpoint.get("digest") == digest
        lines_done = checkpoint.get("lines") if is_same and checkpoint is not None else 0
        if lines_done is None:
            return Fetch(restarts=False, deltas=iter(()))
        deltas = self._deltas(filename, default_type, digest, int(str(lines_done)))
        return Fetch(restarts=not is_same, deltas=deltas)

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the one signal of a line."""
        return [Signal(type=str(data["signal_type"]), value=str(data["signal"]))]

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return an empty sequence: a file contains no opinions."""
        return ()

    def line(self, signal: Signal, opinion: SharedOpinion) -> str:
        """Return the line for a signal. A line can express only a true positive without tags or a reason.

        Raises:
            InvalidInput: The opinion is not a true positive, or it has tags or a reason. Or the signal does not have
                the file's signal type, or cannot be written as one line.
        """
        if opinion.verdict is not Verdict.TRUE_POSITIVE or opinion.tags or opinion.reason is not None:
            raise InvalidInput(f"{self.kind} accepts only true positives, without tags or a reason")
        default_type = self._config["signal_type"]
        if default_type not in {None, signal.type}:
            raise InvalidInput(f"the file holds signals of type {default_type!r}, not {signal.type!r}")
        line = signal.value if default_type is not None else f"{signal.type} {signal.value}"
        record = self._record(line.encode(), default_type)
        if "\n" in line or "\r" in line or record != {"signal_type": signal.type, "signal": signal.value}:
            raise InvalidInput(f"this signal of type {signal.type!r} cannot be written as one line of a file")
        return line

    def _digest(self, filename: str, default_type: JSON) -> str:
        """Return the digest of the configuration and the file's bytes. This reads the complete file."""
        with self._reader.open(filename) as stream:
            digest = _new_digest(filename, default_type)
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
            return digest.hexdigest()

    def _deltas(self, filename: str, default_type: JSON, digest: str, lines_done: int) -> Iterator[Delta]:
        with self._reader.open(filename) as stream:
            read_digest = _new_digest(filename, default_type)
            changes: dict[str, Mapping[str, JSON] | None] = {}
            malformed_items = 0
            number = 0
            digesting_stream = cast(BinaryIO, _DigestingStream(stream, read_digest))
            for number, line in enumerate(lines(digesting_stream, max_bytes=MAX_LINE_BYTES), start=1):
                if number <= lines_done:
                    continue
                record = self._record(line, default_type)
                if isinstance(record, dict):
                    changes[_key(record)] = record
                else:
                    malformed_items += record
                if number % LINES_PER_DELTA == 0:
                    yield Delta(
                        changes=changes,
                        checkpoint={"digest": digest, "lines": number},
                        malformed_items=malformed_items,
                    )
                    changes, malformed_items = {}, 0
            if read_digest.hexdigest() != digest:
                raise ExchangeFailed(f"{filename} changed while it was read; the next fetch reads it again")
            yield Delta(changes=changes, checkpoint={"digest": digest, "lines": None}, malformed_items=malformed_items)

    def _record(self, line: bytes, default_type: JSON) -> dict[str, JSON] | int:
        """Return the record of a line. If the line has no record, return the number of malformed items in it.

        The number is 0 for a blank line or a comment, and 1 for a malformed line.
        """
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            return 1
        if not text or text.startswith("#"):
            return 0
        if isinstance(default_type, str):
            name, signal = default_type, text
        else:
            name, _, signal = text.partition(" ")
        if len(line) >= MAX_LINE_BYTES or name not in self._signal_types or not signal.strip():
            return 1
        return {"signal_type": name, "signal": signal.strip()}


def _new_digest(filename: str, default_type: JSON) -> "hashlib._Hash":
    """Return a new digest that already includes the configuration and `_LINES_VERSION`.

    Because of these two parts, the file is read again if its configuration changes, or if a new version of countermark
    splits files into lines differently.
    """
    return hashlib.sha256(f"{filename}\0{default_type}\0{_LINES_VERSION}\0".encode())


class _DigestingStream:
    """A stream that updates a digest with all bytes that are read from it."""

    def __init__(self, stream: BinaryIO, read_digest: "hashlib._Hash") -> None:
        self._stream = stream
        self._digest = read_digest

    def read(self, size: int) -> bytes:
        """Return the next bytes of the stream."""
        chunk = self._stream.read(size)
        self._digest.update(chunk)
        return chunk


def _key(record: Mapping[str, JSON]) -> str:
    """Return a record's key: a digest, because a signal can be longer than the keys that the stores accept."""
    return hashlib.sha256(f"{record['signal_type']} {record['signal']}".encode()).hexdigest()
