"""Content types of python-threatexchange as they are: a `ContentType` class behind our port.

Such a class takes apart what it is given as an argument: a text or a URL as itself, all else as the path of a file.
It gets a temporary file, which is gone when it is done; what it gives back is read the same way.

Limits: of what tells a type, the peer knows nothing; a file's name that ends in that of the type does, and the MIME
type of such names, where it is not one of photos, videos or texts. Files that it writes are its own to remove.

Source: python-threatexchange 1.2.16, content_type/content_base.py and extensions/pdf/content.py.
"""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from countermark.domain.content import ContentForm, Part
from countermark.domain.mime_types import mime_type_of_name
from countermark.domain.signal import ContentType
from countermark.errors import ContentTooLarge, InvalidContent, InvalidInput

MAX_PART_BYTES = 64 * 1024 * 1024
"""The largest file that is read as a part: what is held whole of other content, too."""

_SUFFIX = re.compile(r"\.[a-z0-9]{1,16}")
# What the peer passes as a text, by the names of its classes: they and those that come from them.
_PASSED_AS_TEXT = frozenset({"TextContent", "URLContent"})
# Of these, a MIME type's first half says what an upload is: see `lambdas.uploads`.
_OWN_MIME_TYPES = ("image/", "video/", "text/")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerContentForm:
    """A content type of python-threatexchange that holds no other content."""

    peer: Any
    name: ContentType
    mime_types: frozenset[str]
    suffixes: frozenset[str]
    starts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerContainer(PeerContentForm):
    """A content type of python-threatexchange that has `extract_additional_content`."""

    def parts(self, content: bytes, name: str) -> Iterator[Part]:
        """Yield what the peer finds in a piece of content. What else it raises is for whoever asks to tell.

        Raises:
            InvalidContent: It gives a file that is not there.
            ContentTooLarge: It gives too large a file.
        """
        if _is_text(self.peer):
            yield from (self._part(*each) for each in self.peer.extract_additional_content(content.decode()))
            return
        suffix = PurePosixPath(name).suffix.lower()
        ending = suffix if _SUFFIX.fullmatch(suffix) else f".{self.name}"
        with tempfile.NamedTemporaryFile(prefix="countermark-", suffix=ending) as file:
            file.write(content)
            file.flush()
            yield from (self._part(*each) for each in self.peer.extract_additional_content(file.name))

    def _part(self, kind: Any, argument: Any) -> Part:
        """Return a part, as the peer gives it: its class, and itself or the path of its file."""
        content_type = ContentType(str(kind.get_name()))
        if _is_text(kind):
            return Part(content_type=content_type, content=str(argument).encode("utf-8", "replace"))
        path = Path(argument)
        if not path.is_file():
            raise InvalidContent(f"{self.name} gives a {content_type} that is no file")
        if path.stat().st_size > MAX_PART_BYTES:
            raise ContentTooLarge(f"{self.name} gives a {content_type} of more than {MAX_PART_BYTES} bytes")
        return Part(content_type=content_type, content=path.read_bytes())


def content_form(module: str, peer: type) -> ContentForm:
    """Return the content type that a class of the peer is.

    Raises:
        InvalidInput: It has no name that fits.
    """
    get_name = getattr(peer, "get_name", None)
    if not callable(get_name):
        raise InvalidInput(f"the extension {module}: the content type {peer.__name__} lacks get_name")
    name = ContentType(str(get_name()))
    mime_type = mime_type_of_name(f"content.{name}")
    tells = mime_type and not mime_type.startswith(_OWN_MIME_TYPES)
    # The method of the class that all of them come from finds nothing.
    opening = [each.__name__ for each in peer.__mro__ if "extract_additional_content" in vars(each)]
    return (PeerContainer if opening and opening[0] != "ContentType" else PeerContentForm)(
        peer=peer,
        name=name,
        mime_types=frozenset({mime_type} if tells else ()),
        suffixes=frozenset({f".{name}"}),
    )


def _is_text(peer: Any) -> bool:
    """Tell whether the peer passes content of a class as itself, and not as the path of a file."""
    return any(each.__name__ in _PASSED_AS_TEXT for each in peer.__mro__)
