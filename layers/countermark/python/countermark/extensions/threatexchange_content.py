"""An adapter for unchanged content types of python-threatexchange, which is called the peer here.

Each content type of the peer is a subclass of its class `ContentType`. The method `extract_additional_content` accepts
content as its argument, and returns the parts of this content. If the content is a text or a URL, the argument is the
text or the URL itself. For other content, the argument is the path of a temporary file, which is deleted afterwards.
The method returns each part in the same form: a text or a URL itself, or the path of a file.

Limits: the peer does not define how to detect a content type. Countermark detects a content type by file names that end
in the content type's name, and by the MIME type for such file names. MIME types of photos, videos and texts are not
used for this. The extension must remove the files that it writes.

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
"""The maximum size of a file that is read as a part, in bytes. Other content in memory has the same limit."""

_SUFFIX = re.compile(r"\.[a-z0-9]{1,16}")
# The peer's classes whose content is passed as a text, and not as the path of a file. Subclasses are included.
_PASSED_AS_TEXT = frozenset({"TextContent", "URLContent"})
# For MIME types with these prefixes, the prefix alone determines the content type of an upload: see `lambdas.uploads`.
_KNOWN_MIME_PREFIXES = ("image/", "video/", "text/")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerContentForm:
    """A content type of python-threatexchange that has no parts."""

    peer: Any
    name: ContentType
    mime_types: frozenset[str]
    suffixes: frozenset[str]
    starts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerContainer(PeerContentForm):
    """A content type of python-threatexchange that has `extract_additional_content`."""

    def parts(self, content: bytes, name: str) -> Iterator[Part]:
        """Yield the parts that the peer extracts.

        The caller must also handle any other exception, because the peer can raise one.

        Raises:
            InvalidContent: The peer returns a path that is not a file.
            ContentTooLarge: The peer returns a file that is larger than `MAX_PART_BYTES`.
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
        """Return a part. `kind` is its class of the peer; `argument` is the part's text, or the path of its file."""
        content_type = ContentType(str(kind.get_name()))
        if _is_text(kind):
            return Part(content_type=content_type, content=str(argument).encode("utf-8", "replace"))
        path = Path(argument)
        if not path.is_file():
            raise InvalidContent(f"{self.name} returned a {content_type} that is not a file")
        if path.stat().st_size > MAX_PART_BYTES:
            raise ContentTooLarge(f"{self.name} returned a {content_type} of more than {MAX_PART_BYTES} bytes")
        return Part(content_type=content_type, content=path.read_bytes())


def content_form(module: str, peer: type) -> ContentForm:
    """Return the adapter for one of the peer's content types.

    Raises:
        InvalidInput: The class has no method `get_name`.
    """
    get_name = getattr(peer, "get_name", None)
    if not callable(get_name):
        raise InvalidInput(f"the extension {module}: the content type {peer.__name__} lacks get_name")
    name = ContentType(str(get_name()))
    mime_type = mime_type_of_name(f"content.{name}")
    determines_type = mime_type and not mime_type.startswith(_KNOWN_MIME_PREFIXES)
    # The base class `ContentType` has this method too, but there the method extracts nothing.
    extracting = [each.__name__ for each in peer.__mro__ if "extract_additional_content" in vars(each)]
    return (PeerContainer if extracting and extracting[0] != "ContentType" else PeerContentForm)(
        peer=peer,
        name=name,
        mime_types=frozenset({mime_type} if determines_type else ()),
        suffixes=frozenset({f".{name}"}),
    )


def _is_text(peer: Any) -> bool:
    """Return whether the peer passes content of a class as text, and not as the path of a file."""
    return any(each.__name__ in _PASSED_AS_TEXT for each in peer.__mro__)
