"""A file of signals: on this machine, or on S3.

Who runs it: whoever writes the file. Credentials: none. The file is UTF-8 text, with a byte order mark or
without, or UTF-16 or UTF-32 with one. It has one `type signal` a line, or just the signal where the configuration
names the signal type; blank lines and lines that begin with `#` are passed over. Lines end in LF, CRLF or CR. The
whole file counts each time: a line that is gone is a removal. Equal lines are one record.

Limits: a line of at most 64 KiB in UTF-8, its end included; a longer one is malformed, and passed over like every
malformed line.
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
"""The longest line: a raw_text of a long post fits, a file without line ends does not fill the memory."""

LINES_A_DELTA = 1_000
"""How many lines one delta covers: what the stores write in one step."""

_CHUNK_BYTES = 1024 * 1024

_LINES_VERSION = 2
"""Which rules split a file into lines: 1 knew LF and UTF-8 alone, so files of others are to be read again."""


class LocalFileExchange:
    """Yields the lines of a file, again from the start whenever the file has changed. `config` is for `joined`."""

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
        """The file, and the signal type of its lines where they do not name one."""
        return (
            Field(name="filename", type="str", required=True, help="a path, or an s3:// URL"),
            Field(
                name="signal_type",
                type="str",
                required=False,
                help="the signal type of every line; without it each line begins with its own",
                choices=tuple(self._signal_types),
            ),
        )

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the checked configuration.

        Raises:
            InvalidInput: The file name is missing or in a place that is not read, or a field is unknown or wrong.
        """
        parsed = parse_fields(self.kind, self.config_fields, config)
        if isinstance(self._reader, ChecksPlaces):
            self._reader.check(str(parsed["filename"]))
        return parsed

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Refuse: it needs none.

        Raises:
            InvalidInput: Always.
        """
        refuse_credentials(self.kind)

    def joined(self, config: Mapping[str, JSON]) -> "LocalFileExchange":
        """Return the exchange with a configuration, which is checked first.

        Raises:
            InvalidInput: A field is missing, unknown or wrong.
        """
        return LocalFileExchange(self._reader, self._signal_types, config=self.parse_config(config))

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch: nothing where the file is the checkpoint's, else from its start, or resumed.

        The checkpoint holds the file's digest and the number of lines that were read; no number means
        all of them.

        Raises:
            NotFound: There is no such file.
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
        """Return none: a file carries no opinions."""
        return ()

    def line(self, signal: Signal, opinion: SharedOpinion) -> str:
        """Return the line of a signal that is a true positive: a file can say nothing else, and no tags.

        Raises:
            InvalidInput: The opinion is another one, or the signal is not of the file's type or has no line.
        """
        if opinion.verdict is not Verdict.TRUE_POSITIVE or opinion.tags or opinion.reason is not None:
            raise InvalidInput(f"{self.kind} takes signals only: a file has no room for other opinions or tags")
        default_type = self._config["signal_type"]
        if default_type not in {None, signal.type}:
            raise InvalidInput(f"the file holds signals of type {default_type!r}, not {signal.type!r}")
        line = signal.value if default_type is not None else f"{signal.type} {signal.value}"
        record = self._record(line.encode(), default_type)
        if "\n" in line or "\r" in line or record != {"signal_type": signal.type, "signal": signal.value}:
            raise InvalidInput(f"this signal of type {signal.type!r} cannot stand in a line of a file")
        return line

    def _digest(self, filename: str, default_type: JSON) -> str:
        """Return the digest of the configuration and of the file's bytes, in one pass."""
        with self._reader.open(filename) as stream:
            digest = _started(filename, default_type)
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
            return digest.hexdigest()

    def _deltas(self, filename: str, default_type: JSON, digest: str, lines_done: int) -> Iterator[Delta]:
        with self._reader.open(filename) as stream:
            seen = _started(filename, default_type)
            changes: dict[str, Mapping[str, JSON] | None] = {}
            malformed_items = 0
            number = 0
            digested = cast(BinaryIO, _Digested(stream, seen))
            for number, line in enumerate(lines(digested, max_bytes=MAX_LINE_BYTES), start=1):
                if number <= lines_done:
                    continue
                record = self._record(line, default_type)
                if isinstance(record, dict):
                    changes[_key(record)] = record
                else:
                    malformed_items += record
                if number % LINES_A_DELTA == 0:
                    yield Delta(
                        changes=changes,
                        checkpoint={"digest": digest, "lines": number},
                        malformed_items=malformed_items,
                    )
                    changes, malformed_items = {}, 0
            if seen.hexdigest() != digest:
                raise ExchangeFailed(f"{filename} changed while it was read; the next fetch reads it again")
            yield Delta(changes=changes, checkpoint={"digest": digest, "lines": None}, malformed_items=malformed_items)

    def _record(self, line: bytes, default_type: JSON) -> dict[str, JSON] | int:
        """Return the record of a line; without one, how many malformed items the line counts for."""
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


def _started(filename: str, default_type: JSON) -> "hashlib._Hash":
    """Return a digest that has taken the configuration and how lines are read.

    With another configuration, or by a version of countermark that reads lines differently, the file is read again.
    """
    return hashlib.sha256(f"{filename}\0{default_type}\0{_LINES_VERSION}\0".encode())


class _Digested:
    """A stream that feeds a digest with what is read from it."""

    def __init__(self, stream: BinaryIO, seen: "hashlib._Hash") -> None:
        self._stream = stream
        self._seen = seen

    def read(self, size: int) -> bytes:
        """Return the next bytes, as the stream does."""
        chunk = self._stream.read(size)
        self._seen.update(chunk)
        return chunk


def _key(record: Mapping[str, JSON]) -> str:
    """Return a line's record key: of fixed length, as a text may be longer than a store's key."""
    return hashlib.sha256(f"{record['signal_type']} {record['signal']}".encode()).hexdigest()
