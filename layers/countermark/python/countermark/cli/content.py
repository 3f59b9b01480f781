"""The content on a command line, and its signals.

Content is named by a path, an http(s) URL, or `-` for standard input. The words after `--` are used as content.
"""

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import click

from countermark.cli.session import Session
from countermark.domain.content import BUILT_IN_CONTENT_TYPES, ContentTypes
from countermark.domain.lines import lines
from countermark.domain.signal import ContentType, Signal, SignalType, Unhashable
from countermark.errors import (
    Busy,
    ContentTooLarge,
    CountermarkError,
    InvalidContent,
    InvalidInput,
    InvalidSignal,
    Unavailable,
)

if TYPE_CHECKING:
    from countermark.flows.hash import HashReport, TypesOf

WORDS = "countermark.words"
"""The key in the context's `meta` under which the words after `--` are stored."""

BATCH = 1_000
"""How many signals of a file are matched together. It is the maximum number of signals per request to a deployment."""

MAX_LINE_CHARACTERS = 64 * 1024
"""The maximum length of a line of signals, in characters with the line break. A raw_text signal of a long post fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputItem:
    """One content from the command line: its name for messages, and a function that opens it.

    `path` is the path of a file, or None. For a picture that was made from a photo, `path` is the path to save the
    picture to, and `variant` is the name of the rotation, if any. `argument` is the path or URL from the command line,
    if another process can open it. `argument` is None for a picture that was made from a photo.
    """

    name: str
    open: Callable[[], AbstractContextManager[BinaryIO]]
    path: Path | None = None
    variant: str | None = None
    argument: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A content, or one file within a content, with its signals.

    `variants` maps a signal of a turned or mirrored photo to the name of the rotation. `partial` maps a signal of
    incomplete content to a text that states what is missing. `unhashable` maps a signal type without a signal to the
    reason.
    """

    item: InputItem
    signals: tuple[Signal, ...]
    variants: Mapping[Signal, str] = field(default_factory=dict)
    partial: Mapping[Signal, str] = field(default_factory=dict)
    unhashable: Mapping[str, Unhashable] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A remark about a content. A remark is not an error."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """An error of one content. `is_outside` is true if the cause is outside of this machine, such as a URL."""

    text: str
    is_outside: bool
    needs_memory: bool = False
    """Whether the content exceeded a limit or had to wait for memory. A process with more memory can try again."""

    @classmethod
    def of(cls, name: str, error: CountermarkError) -> "Complaint":
        """Return the complaint for an error of the content with this name."""
        return cls(
            text=f"{name}: {error}",
            is_outside=error.exit_code == Unavailable.exit_code,
            needs_memory=isinstance(error, ContentTooLarge | Busy),
        )


Outcome: TypeAlias = Note | Complaint | Piece
"""One result of hashing a content: signals, a remark or an error. A content has several, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HashOptions:
    """How content is hashed: the parameters of `hash_items`."""

    content_type: ContentType
    only: str | None
    ratios: Mapping[str, float]
    with_queries: bool
    with_variants: bool


@dataclass(slots=True)
class Complaints:
    """The errors of several contents, which are raised after all other contents are processed."""

    _texts: list[str] = field(default_factory=list)
    _is_only_outside: bool = True

    def add(self, complaint: "Complaint") -> None:
        """Store the error of one content."""
        self._texts.append(complaint.text)
        self._is_only_outside = self._is_only_outside and complaint.is_outside

    def raise_all(self) -> None:
        """Raise the stored errors, if any, as one error. The first error is its text. The other errors are its notes.

        Raises:
            InvalidContent: The content caused at least one of the errors.
            Unavailable: All causes are outside of this machine.
        """
        if self._texts:
            first, *others = self._texts
            error: CountermarkError = Unavailable(first) if self._is_only_outside else InvalidContent(first)
            for text in others:
                error.add_note(text)
            raise error


class ContentCommand(click.Command):
    """A command that accepts content. The words after `--`, joined by spaces, are one more content."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Store and remove the words after `--` before click parses the arguments, because click drops the `--`."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[WORDS] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help text, and the names of the installed content types after it."""
        super().format_help_text(ctx, formatter)
        *names, last = _content_type_names(ctx)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(
                f"CONTENT is {', '.join(names)} or {last}. With file, the type of each FILE is detected."
            )


class ContentTypeName(click.ParamType[ContentType]):
    """The name of a content type that is installed."""

    name = "content type"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> ContentType:
        """Return the content type of this name, including those of installed extensions."""
        session: Session = click.get_current_context().find_root().obj
        names = session.content_types().names()
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, names))}.", param, ctx)
        return session.content_types().named(value)


def _content_type_names(context: click.Context) -> Sequence[ContentType]:
    """Return the content types for a help text: only the built-in ones if an extension cannot be loaded."""
    session: Session | None = context.find_root().obj
    try:
        return BUILT_IN_CONTENT_TYPES if session is None else session.content_types().names()
    except InvalidInput:
        return BUILT_IN_CONTENT_TYPES


jobs_option = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Hash files in up to N processes; default: the number of processors.",
)
content_type_argument = click.argument("content_type", metavar="CONTENT", type=ContentTypeName())
files_argument = click.argument("files", metavar="FILE…", nargs=-1)


def parse_inputs(context: click.Context, files: Sequence[str]) -> list[InputItem]:
    """Return the content that the command line names, in the order of its arguments. No file is opened yet.

    Raises:
        click.UsageError: The command line names no content.
        InvalidInput: The command line names standard input twice, or a file that does not exist.
    """
    items = [parse_input(name) for name in files]
    words = context.meta.get(WORDS)
    if words:
        text = " ".join(words).encode("utf-8", "surrogateescape")  # the original bytes of the command line
        items.append(InputItem(name="the words after --", open=lambda: nullcontext(io.BytesIO(text))))
    if not items:
        raise click.UsageError("no content: add a file, a URL, - for standard input, or words after --", context)
    if files.count("-") > 1:
        raise InvalidInput("standard input can be read only once: use - only once")
    return items


def hash_items(
    session: Session,
    items: Iterable[InputItem],
    content_type: ContentType,
    *,
    only: str | None,
    ratios: Mapping[str, float],
    with_queries: bool = False,
    with_variants: bool = False,
    jobs: int | None = None,
) -> Iterator[Piece]:
    """Yield each content with its signals. Raise the errors of single contents together after the last content.

    Files within a content follow the content as separate pieces. The name of such a piece ends in the place of the file
    in the content, such as `/1`. `only` is the name of the only signal type to use. `ratios` are the enabled ratios
    that were set, by signal type: a type with ratio 0 is not used. Some signal types never make signals from content.
    For these types, `with_queries` adds queries. `with_variants` adds the signals of turned and mirrored photos.
    Content of low quality and partly hashed content are not errors, and a note is printed for each. Many files are
    hashed by up to `jobs` processes, by default the number of processors. The order of the contents does not change.

    Raises:
        InvalidInput: `only` is not a signal type, or does not apply to this content type.
        InvalidContent: A content is not of the given content type, is too large, or cannot be read. Raised at the end.
        Unavailable: The only errors are URLs that could not be fetched now. Raised at the end.
    """
    from countermark.cli import workers

    options = HashOptions(
        content_type=content_type, only=only, ratios=ratios, with_queries=with_queries, with_variants=with_variants
    )
    complaints = Complaints()
    with closing(workers.hash_in_order(items, session, options, jobs=jobs)) as outcomes:
        for outcome in outcomes:
            match outcome:
                case Note():
                    session.note(outcome.text)
                case Complaint():
                    complaints.add(outcome)
                case Piece():
                    yield outcome
    complaints.raise_all()


def make_hasher(session: Session, options: HashOptions) -> Callable[[InputItem], Iterator[Outcome]]:
    """Return a function that hashes one content, and yields the outcomes of the content and of the files within it.

    Raises:
        InvalidInput: `options.only` is not a signal type, or does not apply to this content type.
    """
    content_types = session.content_types()
    types_of = _types_of(session, options.content_type, only=options.only, ratios=options.ratios)

    def outcomes(each: InputItem) -> Iterator[Outcome]:
        from countermark.flows.hash import hash_with_parts

        kind = options.content_type
        try:
            with each.open() as stream:
                if kind == ContentType.FILE:
                    kind = detect_content_type(stream, each.name, content_types)
                opened = hash_with_parts(
                    stream, kind, types_of, content_types, name=each.name, with_variants=options.with_variants
                )
        except CountermarkError as error:
            yield Complaint.of(each.name, error)
            return
        missed = {(place, name) for place, name, _ in opened.not_examined(with_queries=options.with_queries)}
        partial_signals = opened.partial_signals()
        for place, report in opened.walk():
            piece = _make_piece(
                replace(each, name=f"{each.name}{place}"), report, partial_signals, with_queries=options.with_queries
            )
            piece_name = piece.item.name
            for name, why in piece.unhashable.items():
                text = f"{piece_name}: no {name} signal: {why.reason}"
                if (place, name) in missed:
                    yield Complaint(text=text, is_outside=False, needs_memory=why.code == "too_large")
                else:
                    yield Note(text=text)
            if report.unopened is not None:
                too_large = report.unopened.code == "too_large"
                text = f"{piece_name}: not opened in full: {report.unopened.reason}"
                yield Complaint(text=text, is_outside=False, needs_memory=too_large)
            for name, missing in {signal.type: why for signal, why in piece.partial.items()}.items():
                yield Note(text=partial_text(piece_name, name, missing))
            yield piece

    return outcomes


def partial_text(item_name: str, type_name: str, why: str) -> str:
    """Return the note about a signal of incomplete content."""
    return f"{item_name}: the {type_name} signal is of a part of it: {why}"


def note_partial(session: Session, item: InputItem, partial: Mapping[str, str]) -> None:
    """Print a note for each signal type that hashed only a part of a content."""
    for name, why in partial.items():
        session.note(partial_text(item.name, name, why))


def _make_piece(
    item: InputItem, report: "HashReport", partial_signals: Mapping[Signal, str], *, with_queries: bool
) -> Piece:
    """Return the signals of one content from its report, without the files within it."""
    variants = {signal: name for name, signal in reversed(report.variant_signals) if signal not in report.signals}
    variant_signals = tuple(dict.fromkeys(signal for _, signal in report.variant_signals if signal in variants))
    signals = report.signals + variant_signals + (report.queries if with_queries else ())
    unhashable: dict[str, Unhashable] = {}
    for name, why in (report.without_signal_or_query() if with_queries else report.unhashable).items():
        # Report a reason only once. An empty text, for example, has no signal and no query for the same reason.
        if name not in report.missing_queries or why not in unhashable.values():
            unhashable[name] = why
    return Piece(
        item=item,
        signals=signals,
        variants=variants,
        partial={signal: partial_signals[signal] for signal in signals if signal in partial_signals},
        unhashable=unhashable,
    )


def _types_of(
    session: Session, content_type: ContentType, *, only: str | None, ratios: Mapping[str, float]
) -> "TypesOf":
    """Return a function that returns the signal types to use for a content type.

    The function is called for a content and for each file within it.

    Raises:
        InvalidInput: `only` is not a signal type, or cannot apply to this content type.
    """
    from countermark.flows.hash import applicable_types

    signal_types, content_types = session.signal_types(), session.content_types()
    type_names = None if only is None else [only]
    detectable = tuple(kind for kind in content_types.names() if kind not in {ContentType.TEXT, ContentType.URL})
    kinds = detectable if content_type == ContentType.FILE else (content_type,)
    if not any(content_types.holding(kind) for kind in kinds):
        if type_names is not None and not any(applicable_types(signal_types, kind, only=type_names) for kind in kinds):
            raise InvalidInput(f"{only} does not apply to {content_type}")
        if not any(applicable_types(signal_types, kind, only=type_names, ratios=ratios) for kind in kinds):
            session.note(f"no signal type makes signals from {content_type}")
    return partial(applicable_types, signal_types, only=type_names, ratios=ratios)


def read_signals(
    items: Iterable[InputItem],
    content_type: ContentType,
    *,
    only: str | None,
    signal_types: Mapping[str, SignalType],
) -> Iterator[Piece]:
    """Yield each file with the signals in its lines. All signals have the same type.

    Raises:
        InvalidInput: The content type has several signal types and `only` is None, or a line is not a valid signal.
    """
    for each, batches in read_batches(items, content_type, only=only, signal_types=signal_types):
        yield Piece(item=each, signals=tuple(chain.from_iterable(batches)))


def read_batches(
    items: Iterable[InputItem],
    content_type: ContentType,
    *,
    only: str | None,
    signal_types: Mapping[str, SignalType],
) -> Iterator[tuple[InputItem, Iterator[Sequence[Signal]]]]:
    """Yield each file with the signals in its lines, in batches of at most `BATCH` signals.

    Each batch is read when the caller requests it, so a file can be larger than the memory. Raises the same errors as
    `read_signals`.
    """
    from countermark.flows.hash import applicable_types

    types = applicable_types(signal_types, content_type, only=None if only is None else [only])
    names = [signal_type.name for signal_type in types]
    if not names:
        raise InvalidInput(f"{only} does not apply to {content_type}" if only else f"{content_type} has no signal type")
    if len(names) > 1:
        raise InvalidInput(
            f"{content_type} has more than one signal type: with -H, choose one with -S: {', '.join(names)}"
        )
    return ((each, _batches(each, names[0], signal_types)) for each in items)


def _batches(item: InputItem, name: str, signal_types: Mapping[str, SignalType]) -> Iterator[Sequence[Signal]]:
    from countermark.flows.match import parse_query

    values = signal_lines(item)
    try:
        while batch := [parse_query(signal_types, name, line) for line in islice(values, BATCH)]:
            yield batch
    except InvalidSignal as error:
        raise InvalidInput(f"{item.name}: {error}") from error


def signal_lines(item: InputItem) -> Iterator[str]:
    """Yield the signals of a file, which has one per line. Blank lines are skipped.

    Lines end in LF, CRLF or CR. The file is in UTF-8, or in the encoding of its byte order mark.

    Raises:
        InvalidInput: The file cannot be read, is not text in its encoding, or has a line that is too long.
    """
    with item.open() as stream:
        for number, line in enumerate(lines(stream, max_bytes=4 * MAX_LINE_CHARACTERS), start=1):
            if len(line.decode(errors="replace")) >= MAX_LINE_CHARACTERS:
                raise InvalidInput(f"{item.name}: line {number} is too long: at most {MAX_LINE_CHARACTERS} characters")
            try:
                text = line.decode()
            except UnicodeDecodeError:
                raise InvalidInput(
                    f"{item.name}: line {number} is not UTF-8 text: save the file of signals as UTF-8"
                ) from None
            if text.strip():
                yield text.strip()


def detect_content_type(stream: BinaryIO, name: str, content_types: ContentTypes) -> ContentType:
    """Return the content type of a file. The stream's position does not change.

    Raises:
        InvalidContent: The file is not a photo, a video, or content of an extension's type.
    """
    from countermark.signals.content_type import HEAD_BYTES, content_type_of

    if isinstance(stream, io.BufferedReader) and not stream.seekable():
        head = stream.peek()  # the bytes that are in the pipe now: enough unless it is a long animation
    else:
        head = stream.read(HEAD_BYTES)
        stream.seek(-len(head), io.SEEK_CUR)
    return content_type_of(head, name, content_types)


def parse_input(name: str) -> InputItem:
    """Return the content that one argument of a command line names.

    Raises:
        InvalidInput: The argument names a file that does not exist, or it names standard input, which is closed.
    """
    if name == "-":
        if sys.stdin is None:
            raise InvalidInput("standard input is closed")
        return InputItem(name="standard input", open=lambda: nullcontext(sys.stdin.buffer))
    if name.startswith(("http://", "https://")):
        return InputItem(name=name, open=lambda: _from_url(name), argument=name)
    path = Path(name)
    try:
        if path.is_dir():
            raise InvalidInput(f"{name} is a directory")
        if not path.exists():
            raise InvalidInput(f"no such file: {name}")
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    return InputItem(name=name, open=lambda: _from_path(path), path=path, argument=name)


@contextmanager
def _from_path(path: Path) -> Iterator[BinaryIO]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from error
    with stream:
        yield stream


@contextmanager
def _from_url(url: str) -> Iterator[BinaryIO]:
    from countermark.transport.fetch import URLFetcher

    yield io.BytesIO(URLFetcher().fetch(url).body)
