"""Content types: their names, and what tells those of extensions."""

import copy
import json

import pytest

from countermark.domain.content import BUILT_IN_CONTENT_TYPES, ContentTypes
from countermark.domain.signal import ContentType
from countermark.errors import InvalidInput
from tests.extensions.letters import LETTER, Letter

MAIL = ContentType("mail")
TYPES = ContentTypes(
    forms={
        LETTER: Letter(),
        MAIL: Letter(name=MAIL, mime_types=frozenset({"text/mail"}), suffixes=frozenset({".mail"})),
    }
)


@pytest.mark.parametrize("name", ["a", "a1_b", "x" * 64])
def test_a_name_is_a_type_and_its_own_text(name: str) -> None:
    made = ContentType(name)
    assert (made, f"{made}", json.dumps([made]), copy.deepcopy(made)) == (name, name, f'["{name}"]', made)
    assert isinstance(copy.deepcopy(made), ContentType)


@pytest.mark.parametrize("name", ["", "A", "1a", "_a", "a-b", "a b", "a\n", "ä", "x" * 65])
def test_what_fits_into_no_url_is_no_name(name: str) -> None:
    with pytest.raises(InvalidInput, match="invalid content type name"):
        ContentType(name)


def test_countermarks_own_come_first_and_are_always_there() -> None:
    assert ContentTypes().names() == BUILT_IN_CONTENT_TYPES == ("photo", "video", "text", "url", "file")
    assert TYPES.names() == (*BUILT_IN_CONTENT_TYPES, "letter", "mail")
    assert TYPES.named("photo") is ContentType.PHOTO
    assert TYPES.named("letter") is LETTER


def test_a_type_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(
        InvalidInput, match="no such content type 'pdf': there are photo, video, text, url, file, letter"
    ):
        TYPES.named("pdf")


def test_only_a_type_that_holds_parts_is_opened() -> None:
    assert TYPES.holding(LETTER) == Letter()
    assert TYPES.holding(ContentType.PHOTO) is None


@pytest.mark.parametrize(
    ("mime_type", "expected"),
    [
        ("message/rfc822", LETTER),
        ("Message/RFC822 ; x=y", LETTER),
        ("text/mail", MAIL),
        ("text/plain", None),
        ("", None),
    ],
)
def test_a_mime_type_tells(mime_type: str, expected: ContentType | None) -> None:
    assert TYPES.by_mime_type(mime_type) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b.EML", LETTER), ("b.mail", MAIL), ("eml", None), ("", None), ("b.eml.txt", None)]
)
def test_the_end_of_a_name_tells(name: str, expected: ContentType | None) -> None:
    assert TYPES.by_suffix(name) == expected


@pytest.mark.parametrize(("name", "expected"), [("", LETTER), ("b.txt", LETTER), ("b.mail", MAIL), ("b.eml", LETTER)])
def test_of_types_that_begin_alike_the_name_tells_which(name: str, expected: ContentType) -> None:
    assert TYPES.by_start(b"Received: x", name) == expected
    assert TYPES.by_start(b"Recei", name) is None
    assert ContentTypes().by_start(b"Received: x", name) is None
