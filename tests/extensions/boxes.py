"""A content type for tests: JSON that says what lies within, whatever that is."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from countermark.domain.content import ContentTypes, Part
from countermark.domain.signal import ContentType
from countermark.errors import ContentTooLarge, InvalidContent, MissingExtra, UnsupportedContent

BOX = ContentType("box")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A list of `[type, text]`; within a box a text is a list in its turn, and "!" raises the error of that name."""

    name: ContentType = BOX
    mime_types: frozenset[str] = frozenset()
    suffixes: frozenset[str] = frozenset({".box"})
    starts: tuple[bytes, ...] = (b"[[",)

    def parts(self, content: bytes, name: str) -> Iterator[Part]:
        """Yield what the list says."""
        errors = {each.__name__: each for each in (InvalidContent, UnsupportedContent, ContentTooLarge, MissingExtra)}
        for kind, held in json.loads(content):
            if kind == "!":
                raise errors[held](f"the reason of {name or 'a part'}")
            text = held if isinstance(held, str) else json.dumps(held)
            yield Part(content_type=ContentType(kind), content=text.encode())


BOXES = ContentTypes(forms={BOX: Box()})


def box(*held: tuple[str, object]) -> bytes:
    """Return a box of what it holds."""
    return json.dumps(held).encode()
