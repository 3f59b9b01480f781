"""E-mails as content: the texts in them, and the files that are attached."""

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
    """An e-mail. E-mails in it are opened as well."""

    name: ContentType = LETTER
    mime_types: frozenset[str] = frozenset({"message/rfc822"})
    suffixes: frozenset[str] = frozenset({".eml"})
    starts: tuple[bytes, ...] = (b"Return-Path:", b"Received:")

    def parts(self, content: bytes, name: str) -> Iterator[Part]:
        letter = email.message_from_bytes(content, policy=email.policy.default)
        if "from" not in letter:
            raise InvalidContent("it has no header From, so it is not an e-mail")
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
            # Identified by its bytes, because the sender can label it as anything.
            yield Part(content_type=ContentType.FILE, content=part.get_content())


LETTER_SHA256 = DigestType(
    name="letter_sha256",
    content_types=frozenset({LETTER}),
    algorithm="sha256",
    examples=("004de383fa93d33da10aa50d2466a3e503e37e9579bfa3192ba706f0a44693fb",),
)

COUNTERMARK_MANIFEST = Manifest(signal_types=(LETTER_SHA256,), content_types=(Letter(),))
