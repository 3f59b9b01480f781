"""A file of signals, on this machine or on S3.

Operator: the owner of the file. Credentials: none. The file is UTF-8 text with or without a byte order mark, or UTF-16
or UTF-32 text with one. Each line contains `type signal`, or only the signal if the configuration names the signal
type. Blank lines and lines that begin with `#` are ignored. Lines end in LF, CRLF or CR. Each fetch compares with the
whole file, so a deleted line removes its record. Equal lines are one record.

Limits: a line has at most 64 KiB in UTF-8, including its line ending. A longer line counts as malformed and is skipped,
like all malformed lines.
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
"""The maximum length of a line. A raw_text signal of a long post fits, and a file without line endings cannot fill the
memory."""

LINES_PER_DELTA = 1_000
"""The number of lines in one delta, which the stores write in one step."""

_CHUNK_BYTES = 1024 * 1024

_LINES_VERSION = 2
"""The version of the rules that split a file into lines. Version 1 supported only LF and UTF-8, so files with other
encodings or line endings must be read again."""


class LocalFileExchange:
    """Yields the lines of a file, again from the start each time the file changes. Only `joined` passes `config`."""

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
        """The file name, and optionally the signal type of all its lines."""
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
            InvalidInput: The file name is missing, or the reader does not read from its place. Or a field is unknown or
                invalid.
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
        """Return this exchange with a configuration, which is checked first.

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
        """Begin a fetch. It yields nothing if the file has not changed and was read to its end.

        If the file has changed, the fetch restarts. Otherwise, it continues after the last line that was read. The
        checkpoint holds the file's digest and the number of lines read. None as the number means all lines.

        Raises:
            NotFound: The file does not exist.
            ExchangeFailed: From the deltas: the file changed while it was read.
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
        """Return the line of a signal. A line can only state a true positive, without tags or a reason.

        Raises:
            InvalidInput: The opinion has another verdict, tags or a reason. Or the signal is not of the file's type, or
                cannot be written as one line.
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
        """Return the digest of the configuration and of the file's bytes. The file is read once."""
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
        """Return the record of a line, or the number of malformed items in a line without a record.

        That number is 0 for a blank or comment line, and 1 for any other line.
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
    """Return a digest that already includes the configuration and the version of the line rules.

    So the file is read again after a change of its configuration, and after an update of countermark that reads lines
    differently.
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
    """Return a line's record key. It is a digest, because a text can be longer than the keys of the stores."""
    return hashlib.sha256(f"{record['signal_type']} {record['signal']}".encode()).hexdigest()
