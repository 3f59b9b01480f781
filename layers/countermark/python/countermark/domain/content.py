"""Content types that extensions bring: what tells them, and what content of them holds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol, runtime_checkable

from countermark.domain.signal import ContentType
from countermark.errors import InvalidInput

BUILT_IN_CONTENT_TYPES = (
    ContentType.PHOTO,
    ContentType.VIDEO,
    ContentType.TEXT,
    ContentType.URL,
    ContentType.FILE,
)
"""Countermark's own, in the order in which they are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Content that lies within other content, as a text or a photo lies in a document; a text is in UTF-8."""

    content_type: ContentType
    content: bytes


class ContentForm(Protocol):
    """A content type that an extension brings, and what tells it. Stateless; its name is an interchange format."""

    @property
    def name(self) -> ContentType:
        """The name on the wire."""

    @property
    def mime_types(self) -> frozenset[str]:
        """The MIME types that tell it, in lower case and without parameters."""

    @property
    def suffixes(self) -> frozenset[str]:
        """The ends of file names that tell it, in lower case, each with its dot."""

    @property
    def starts(self) -> tuple[bytes, ...]:
        """The first bytes that tell it; none where they don't."""


@runtime_checkable
class HoldsParts(ContentForm, Protocol):
    """A content type of an extension whose content holds other content."""

    def parts(self, content: bytes, name: str) -> Iterable[Part]:
        """Yield what a piece of content holds, in its order; `name` is its file's, or "".

        A part may hold others in its turn: whoever asks opens it, and counts parts, bytes and depth.

        Raises:
            InvalidContent: It is not of this type, or damaged; also from the iteration. What came before it counts.
            MissingExtra: A package that is needed is not installed.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentTypes:
    """The content types that are installed: countermark's own, and those of extensions, by name in their order."""

    forms: Mapping[ContentType, ContentForm] = field(default_factory=dict)

    def names(self) -> tuple[ContentType, ...]:
        """Return all names, countermark's own first."""
        return (*BUILT_IN_CONTENT_TYPES, *self.forms)

    def named(self, name: str) -> ContentType:
        """Return the content type of a name.

        Raises:
            InvalidInput: There is none; the error names those that there are.
        """
        names = self.names()
        if name not in names:
            raise InvalidInput(f"no such content type {name!r}: there are {', '.join(names)}")
        return names[names.index(name)]

    def holding(self, content_type: ContentType) -> HoldsParts | None:
        """Return what opens content of a type; None where it holds no other."""
        form = self.forms.get(content_type)
        return form if isinstance(form, HoldsParts) else None

    def by_mime_type(self, mime_type: str) -> ContentType | None:
        """Return the type of an extension that a MIME type tells, with or without parameters; None where none does."""
        told = mime_type.partition(";")[0].strip().lower()
        return next((name for name, form in self.forms.items() if told in form.mime_types), None)

    def by_suffix(self, filename: str) -> ContentType | None:
        """Return the type of an extension that the end of a file's name tells; None where none does."""
        suffix = PurePosixPath(filename).suffix.lower()
        return next((name for name, form in self.forms.items() if suffix in form.suffixes), None)

    def by_start(self, head: bytes, filename: str = "") -> ContentType | None:
        """Return the type of an extension that the first bytes tell; of several, the one that the name tells, too."""
        told = [name for name, form in self.forms.items() if head.startswith(form.starts)]
        by_name = self.by_suffix(filename)
        return by_name if by_name in told else next(iter(told), None)
