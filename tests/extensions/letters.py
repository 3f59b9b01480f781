"""E-mails as content: what is written in one, and what is attached to it."""

import email.message
import email.policy
from collections.abc import Iterator
from dataclasses import dataclass

from countermark.domain.content import Part
from countermark.domain.signal import ContentType
from countermark.errors import InvalidContent
from countermark.extensions import Manifest
from countermark.signals.digest import DigestType

LETTER = ContentType("letter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """An e-mail. Another e-mail within it is opened in its turn."""

    name: ContentType = LETTER
    mime_types: frozenset[str] = frozenset({"message/rfc822"})
    suffixes: frozenset[str] = frozenset({".eml"})
    starts: tuple[bytes, ...] = (b"Return-Path:", b"Received:")

    def parts(self, content: bytes, name: str) -> Iterator[Part]:
        letter = email.message_from_bytes(content, policy=email.policy.default)
        if "from" not in letter:
            raise InvalidContent("it says of nobody that it is from them, so it is no e-mail")
        yield from _parts(letter)


def _parts(letter: email.message.MIMEPart) -> Iterator[Part]:
    for part in letter.iter_parts() if letter.is_multipart() else [letter]:
        if part.get_content_type() == "message/rfc822":
            yield Part(content_type=LETTER, content=part.get_content().as_bytes())
        elif part.is_multipart():
            yield from _parts(part)
        elif part.get_content_maintype() == "text":
            yield Part(content_type=ContentType.TEXT, content=part.get_content().encode())
        else:
            # Its bytes tell what it is: what the sender says of it may be anything.
            yield Part(content_type=ContentType.FILE, content=part.get_content())


LETTER_SHA256 = DigestType(
    name="letter_sha256",
    content_types=frozenset({LETTER}),
    algorithm="sha256",
    examples=("004de383fa93d33da10aa50d2466a3e503e37e9579bfa3192ba706f0a44693fb",),
)

COUNTERMARK_MANIFEST = Manifest(signal_types=(LETTER_SHA256,), content_types=(Letter(),))
