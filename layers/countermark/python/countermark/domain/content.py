"""Content types of extensions: how to recognise their content, and how to find the parts inside it."""

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
"""Countermark's content types, in the order in which lists show them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Content inside other content, for example a text or a photo in a document. A text is in UTF-8."""

    content_type: ContentType
    content: bytes


class ContentForm(Protocol):
    """A content type of an extension, and how to recognise it. It has no state. Its name is used on the wire."""

    @property
    def name(self) -> ContentType:
        """The name on the wire."""

    @property
    def mime_types(self) -> frozenset[str]:
        """The MIME types of this content type, in lower case and without parameters."""

    @property
    def suffixes(self) -> frozenset[str]:
        """The suffixes of file names of this type, in lower case, each with its dot."""

    @property
    def starts(self) -> tuple[bytes, ...]:
        """The byte strings with which files of this type begin. Empty if the first bytes do not identify the type."""


@runtime_checkable
class HoldsParts(ContentForm, Protocol):
    """A content type of an extension, for content that contains other content."""

    def parts(self, content: bytes, name: str) -> Iterable[Part]:
        """Yield the parts of a content, in the order of the content. `name` is the name of the content's file, or "".

        A part can contain further parts. The caller opens them, and limits the number of parts, bytes and levels.

        Raises:
            InvalidContent: The content is not of this type, or is damaged. This can also be raised after some parts
                were yielded. These parts remain valid.
            MissingExtra: A required package is not installed.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentTypes:
    """The installed content types: countermark's types and the types of extensions.

    `forms` maps the name of each extension's type to its form, in the order in which lists show the types.
    """

    forms: Mapping[ContentType, ContentForm] = field(default_factory=dict)

    def names(self) -> tuple[ContentType, ...]:
        """Return the names of all types, countermark's types first."""
        return (*BUILT_IN_CONTENT_TYPES, *self.forms)

    def named(self, name: str) -> ContentType:
        """Return the content type with a name.

        Raises:
            InvalidInput: The type does not exist. The error lists the existing types.
        """
        names = self.names()
        if name not in names:
            raise InvalidInput(f"no such content type {name!r}: there are {', '.join(names)}")
        return names[names.index(name)]

    def holding(self, content_type: ContentType) -> HoldsParts | None:
        """Return the form that finds the parts in content of a type; None if such content has no parts."""
        form = self.forms.get(content_type)
        return form if isinstance(form, HoldsParts) else None

    def by_mime_type(self, mime_type: str) -> ContentType | None:
        """Return the extension's type for a MIME type, with or without parameters; None if no extension has it."""
        essence = mime_type.partition(";")[0].strip().lower()
        return next((name for name, form in self.forms.items() if essence in form.mime_types), None)

    def by_suffix(self, filename: str) -> ContentType | None:
        """Return the extension's type for the suffix of a file name; None if no extension has it."""
        suffix = PurePosixPath(filename).suffix.lower()
        return next((name for name, form in self.forms.items() if suffix in form.suffixes), None)

    def by_start(self, head: bytes, filename: str = "") -> ContentType | None:
        """Return the extension's type for the first bytes of a file; None if no extension has it.

        If several types match, return the type that also matches the suffix of the file name, or else the first type.
        """
        matching = [name for name, form in self.forms.items() if head.startswith(form.starts)]
        by_name = self.by_suffix(filename)
        return by_name if by_name in matching else next(iter(matching), None)
