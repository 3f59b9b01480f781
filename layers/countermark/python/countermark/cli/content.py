"""The content that a command is given, and its signals.

It is given as paths, `-` for standard input, http(s) URLs, or words after `--`.
"""

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from countermark.cli.session import Session
from countermark.domain.content import OWN_CONTENT_TYPES, ContentTypes
from countermark.domain.signal import ContentType, Signal, SignalType
from countermark.errors import InvalidContent, InvalidInput, InvalidSignal

if TYPE_CHECKING:
    from countermark.flows.hash import HashReport, TypesOf

WORDS = "countermark.words"
"""Where the context keeps the words after `--`."""

MAX_LINE_CHARACTERS = 64 * 1024
"""The longest line of a file of signals: a raw_text of a long post fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One piece of content: its name for messages, and its bytes.

    `path` is that of its file, where it is one. A picture made of a photo has the place where it may be saved, and,
    turned or mirrored, the name of its `variant`.
    """

    name: str
    open: Callable[[], AbstractContextManager[BinaryIO]]
    path: Path | None = None
    variant: str | None = None


class ContentCommand(click.Command):
    """A command that takes content; the words after `--`, joined by spaces, are one more piece of it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set the words aside before click sees `--`, which it would swallow."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[WORDS] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Name the content types that are installed here after the text."""
        super().format_help_text(ctx, formatter)
        *names, last = _installed(ctx)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(f"CONTENT is {', '.join(names)} or {last}.")


class ContentTypeName(click.ParamType[ContentType]):
    """The name of a content type that is installed."""

    name = "content type"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> ContentType:
        """Return the content type; an extension's are those of this session."""
        session: Session = click.get_current_context().find_root().obj
        names = session.content_types().names()
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, names))}.", param, ctx)
        return session.content_types().named(value)


def _installed(context: click.Context) -> Sequence[ContentType]:
    """Return the content types to name in a help text; countermark's own where an extension cannot be loaded."""
    session: Session | None = context.find_root().obj
    try:
        return OWN_CONTENT_TYPES if session is None else session.content_types().names()
    except InvalidInput:
        return OWN_CONTENT_TYPES


content_type_argument = click.argument("content_type", metavar="CONTENT", type=ContentTypeName())
files_argument = click.argument("files", metavar="FILE…", nargs=-1)


def given_content(context: click.Context, files: Sequence[str]) -> list[Given]:
    """Return the content that the command line names, in its order; nothing is opened yet.

    Raises:
        click.UsageError: It names none.
        InvalidInput: It names standard input twice, or a file that is not there.
    """
    given = [_given(name) for name in files]
    words = context.meta.get(WORDS)
    if words:
        text = " ".join(words).encode("utf-8", "surrogateescape")  # bytes of the command line, as they came
        given.append(Given(name="the words after --", open=lambda: nullcontext(io.BytesIO(text))))
    if not given:
        raise click.UsageError("give a file, a URL, - for standard input, or words after --", context)
    if files.count("-") > 1:
        raise InvalidInput("standard input can be read once: give - only once")
    return given


def hashed(
    session: Session,
    given: Iterable[Given],
    content_type: ContentType,
    *,
    only: str | None,
    ratios: Mapping[str, float],
    asks: bool = False,
    variants: dict[Signal, str] | None = None,
) -> Iterator[tuple[Given, tuple[Signal, ...]]]:
    """Yield each piece of content with its signals; complain at the end of what could not be hashed.

    What lies within content comes after it, as a piece of its own: the name ends in its place, `/1`.
    `asks` adds what to ask types with that are never made from content. `ratios` are the enabled ratios that were set:
    a type at 0 makes no signal. Too low a quality is told and is no error: such a picture is plain, and the others are
    done all the same. Into `variants` come the signals of turned photos, each with the name of its variant.

    Raises:
        InvalidInput: `only` names no signal type, or one that does not apply to that content.
        InvalidContent: Some content is not what it is said to be, or too large: after all were yielded.
        Unavailable: A URL could not be fetched now.
    """
    from countermark.flows.hash import hash_opened

    content_types = session.content_types()
    types_of = _types_of(session, content_type, only=only, ratios=ratios)
    complaints = []
    for each in given:
        try:
            with each.open() as stream:
                kind = _kind_of(stream, each.name, content_types) if content_type == ContentType.FILE else content_type
                opened = hash_opened(
                    stream, kind, types_of, content_types, name=each.name, with_variants=variants is not None
                )
        except InvalidContent as error:
            complaints.append(f"{each.name}: {error}")
            continue
        for place, report in opened.walk():
            piece = replace(each, name=f"{each.name}{place}")
            complaints += _faults(session, piece, report, asks=asks)
            if variants is not None:
                variants.clear()
                variants |= {signal: name for name, signal in reversed(report.turned) if signal not in report.signals}
            turned = tuple(dict.fromkeys(signal for _, signal in report.turned if signal not in report.signals))
            yield piece, report.signals + turned + (report.queries if asks else ())
    if complaints:
        raise InvalidContent("\n".join(complaints))


def _types_of(
    session: Session, content_type: ContentType, *, only: str | None, ratios: Mapping[str, float]
) -> "TypesOf":
    """Return what says which signal types are wanted of content, and of what lies within it.

    Raises:
        InvalidInput: `only` names no signal type, or one that cannot apply to that content.
    """
    from countermark.flows.hash import applicable

    signal_types, content_types = session.signal_types(), session.content_types()
    wanted = None if only is None else [only]
    told = tuple(kind for kind in content_types.names() if kind not in {ContentType.TEXT, ContentType.URL})
    kinds = told if content_type == ContentType.FILE else (content_type,)
    if not any(content_types.holding(kind) for kind in kinds):
        if wanted is not None and not any(applicable(signal_types, kind, only=wanted) for kind in kinds):
            raise InvalidInput(f"{only} does not apply to {content_type}")
        if not any(applicable(signal_types, kind, only=wanted, ratios=ratios) for kind in kinds):
            session.note(f"no signal type makes signals from {content_type}")
    return partial(applicable, signal_types, only=wanted, ratios=ratios)


def _faults(session: Session, piece: Given, report: "HashReport", *, asks: bool) -> Iterator[str]:
    """Yield what of a piece of content was not hashed and should have been; note what is too plain."""
    unasked = {name: why for name, why in report.unasked.items() if asks and why not in report.unhashable.values()}
    for name, why in {**report.unhashable, **unasked}.items():
        if why.code == "low_quality":
            session.note(f"{piece.name}: no {name} signal: {why.reason}")
        else:
            yield f"{piece.name}: no {name} signal: {why.reason}"
    if report.unopened is not None:
        yield f"{piece.name}: not opened in full: {report.unopened.reason}"


def read_signals(
    given: Iterable[Given],
    content_type: ContentType,
    *,
    only: str | None,
    signal_types: Mapping[str, SignalType],
) -> Iterator[tuple[Given, tuple[Signal, ...]]]:
    """Yield each file with the signals in its lines, which are of one type.

    Raises:
        InvalidInput: The type is not clear, or a line is not a signal of it.
    """
    from countermark.flows.hash import applicable
    from countermark.flows.match import parse_query

    types = applicable(signal_types, content_type, only=None if only is None else [only])
    names = [signal_type.name for signal_type in types]
    if not names:
        raise InvalidInput(f"{only} does not apply to {content_type}" if only else f"{content_type} has no signal type")
    if len(names) > 1:
        raise InvalidInput(
            f"{content_type} has more than one signal type: with -H give one with -S: {', '.join(names)}"
        )
    for each in given:
        try:
            yield each, tuple(parse_query(signal_types, names[0], line) for line in signal_lines(each))
        except InvalidSignal as error:
            raise InvalidInput(f"{each.name}: {error}") from error


def signal_lines(given: Given) -> Iterator[str]:
    """Yield the signals of a file with one a line; blank lines are passed over.

    Raises:
        InvalidInput: It cannot be read, is not UTF-8, or has a line that is too long.
    """
    with given.open() as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig")
        try:
            while line := text.readline(MAX_LINE_CHARACTERS + 1):
                if len(line) > MAX_LINE_CHARACTERS:
                    raise InvalidInput(f"{given.name}: a line has at most {MAX_LINE_CHARACTERS} characters")
                if line.strip():
                    yield line.strip()
        except UnicodeDecodeError:
            raise InvalidInput(f"{given.name}: a file of signals is UTF-8 text") from None
        finally:
            text.detach()  # whoever opened the stream closes it


def _kind_of(stream: BinaryIO, name: str, content_types: ContentTypes) -> ContentType:
    """Return what a file is, and leave the stream where it stood.

    Raises:
        InvalidContent: It is neither a photo nor a video, nor of an extension's type.
    """
    from countermark.signals.content_type import HEAD_BYTES, content_type_of

    if isinstance(stream, io.BufferedReader) and not stream.seekable():
        head = stream.peek()  # of a pipe, what has come so far: enough for all but a long animation
    else:
        head = stream.read(HEAD_BYTES)
        stream.seek(-len(head), io.SEEK_CUR)
    return content_type_of(head, name, content_types)


def _given(name: str) -> Given:
    if name == "-":
        if sys.stdin is None:
            raise InvalidInput("standard input is closed")
        return Given(name="standard input", open=lambda: nullcontext(sys.stdin.buffer))
    if name.startswith(("http://", "https://")):
        return Given(name=name, open=lambda: _from_url(name))
    path = Path(name)
    try:
        if path.is_dir():
            raise InvalidInput(f"{name} is a directory")
        if not path.exists():
            raise InvalidInput(f"no such file: {name}")
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    return Given(name=name, open=lambda: _from_path(path), path=path)


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
