"""Content types of python-threatexchange, over classes in its form: what is passed to them, and what they give."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from countermark.domain.content import HoldsParts, Part
from countermark.domain.signal import ContentType
from countermark.errors import ContentTooLarge, CountermarkError, InvalidContent, InvalidInput, MissingExtra
from countermark.extensions import threatexchange_content as module
from countermark.extensions.registries import implementation_class
from countermark.extensions.threatexchange import adapt_manifest
from countermark.flows.opening import read_parts


class PeerContent:
    """What all content types of the peer come from; it is called `ContentType` there."""

    given: ClassVar[list[Any]] = []

    @classmethod
    def get_name(cls) -> str:
        return cls.__name__.removesuffix("Content").lower()

    @classmethod
    def extract_additional_content(cls, content_arg: str) -> list[Any]:
        return []


PeerContent.__name__ = "ContentType"


class TextContent(PeerContent):
    """A text, which the peer passes as itself."""


class PhotoContent(PeerContent):
    """A photo, which the peer passes as the path of a file."""


class PdfContent(PeerContent):
    """Gives what a test wants it to give, of the file that it is given."""

    gives: ClassVar[list[Any]] = []

    @classmethod
    def extract_additional_content(cls, content_arg: str) -> list[Any]:
        path = Path(content_arg)
        cls.given[:] = [path, path.read_bytes()]
        return cls.gives


def form(peer: type) -> Any:
    manifest = SimpleNamespace(signal_types=(), content_types=(peer,), apis=())
    [made] = adapt_manifest("ext", manifest).content_types
    return made


def parts(gives: list[Any], *, name: str = "a.PDF", content: bytes = b"%PDF") -> list[Part]:
    PdfContent.gives = gives
    return list(read_parts(form(PdfContent), content, name))


def test_a_content_type_is_what_the_peer_calls_it_and_files_end_in_its_name() -> None:
    made = form(PdfContent)
    assert (made.name, made.suffixes, made.starts) == (ContentType("pdf"), {".pdf"}, ())
    assert made.mime_types == {"application/pdf"}
    assert implementation_class(made) is PdfContent


@pytest.mark.parametrize("name", ["gif", "mp4", "html", "post"])
def test_a_mime_type_of_photos_videos_and_texts_is_not_taken_from_countermark(name: str) -> None:
    assert form(type(f"{name}Content", (PdfContent,), {})).mime_types == frozenset()


def test_one_that_takes_nothing_apart_is_not_opened() -> None:
    assert not isinstance(form(type("AudioContent", (PeerContent,), {})), HoldsParts)
    bare = type("BareContent", (), {"get_name": staticmethod(lambda: "bare")})
    assert not isinstance(form(bare), HoldsParts)


def test_it_is_given_a_file_that_is_gone_afterwards(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"pixels")
    found = parts([(TextContent, "wörds"), (PhotoContent, str(photo)), (PhotoContent, photo)], content=b"all of it")
    assert found == [
        Part(content_type=ContentType.TEXT, content="wörds".encode()),
        Part(content_type=ContentType.PHOTO, content=b"pixels"),
        Part(content_type=ContentType.PHOTO, content=b"pixels"),
    ]
    path, content = PdfContent.given
    assert content == b"all of it"
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.PDF", ".pdf"), ("a.tmp", ".tmp"), ("", ".pdf"), ("a", ".pdf"), ("a.p/f", ".pdf"), ("a.pdf\n", ".pdf")],
)
def test_the_file_ends_as_the_contents_own_or_else_in_the_types_name(name: str, suffix: str) -> None:
    parts([], name=name)
    assert PdfContent.given[0].suffix == suffix


def test_one_that_is_a_text_is_given_the_text() -> None:
    class PostContent(TextContent):
        """A post: its words, one by one."""

        @classmethod
        def extract_additional_content(cls, content_arg: str) -> list[Any]:
            return [(TextContent, word) for word in content_arg.split()]

    made = form(PostContent)
    assert [part.content for part in made.parts(b"known words", "")] == [b"known", b"words"]
    with pytest.raises(InvalidContent, match="the parts of post cannot be read: UnicodeDecodeError"):
        list(read_parts(made, b"\xff", ""))


@pytest.mark.parametrize(
    ("gives", "error", "message"),
    [
        ([(PhotoContent, "/there/is/nothing")], InvalidContent, "pdf returned a photo that is not a file"),
        ([(PhotoContent, None)], InvalidContent, "the parts of pdf cannot be read: TypeError"),
        (["ab"], InvalidContent, "the parts of pdf cannot be read: AttributeError"),
        (None, InvalidContent, "the parts of pdf cannot be read: TypeError"),
        ([(type("A-b", (TextContent,), {}), "x")], InvalidContent, "the parts of pdf cannot be read: InvalidInput"),
    ],
)
def test_what_is_not_of_its_form_is_told(gives: Any, error: type[CountermarkError], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        parts(gives)


@pytest.mark.parametrize("limit_bytes", [5, 6])
def test_a_file_that_it_gives_is_read_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_bytes: int
) -> None:
    monkeypatch.setattr(module, "MAX_PART_BYTES", limit_bytes)
    photo = tmp_path / "photo"
    photo.write_bytes(b"pixels")
    if limit_bytes == 6:
        assert len(parts([(PhotoContent, photo)])) == 1
        return
    with pytest.raises(ContentTooLarge, match="pdf returned a photo of more than 5 bytes"):
        parts([(PhotoContent, photo)])


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (RuntimeError("secret words"), InvalidContent, "the parts of pdf cannot be read: RuntimeError"),
        (ModuleNotFoundError("No module", name="pdfminer"), MissingExtra, "pdf needs a package .*: pdfminer"),
    ],
)
def test_what_it_raises_is_told_by_its_kind_alone(
    raised: Exception, error: type[CountermarkError], message: str
) -> None:
    class Failing(PdfContent):
        """Fails on everything."""

        @classmethod
        def get_name(cls) -> str:
            return "pdf"

        @classmethod
        def extract_additional_content(cls, content_arg: str) -> list[Any]:
            raise raised

    with pytest.raises(error, match=f"^{message}$"):
        list(read_parts(form(Failing), b"", ""))


def test_one_without_a_name_that_fits_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the extension ext: the content type Nameless lacks get_name"):
        form(type("Nameless", (), {}))
    with pytest.raises(InvalidInput, match="invalid content type name"):
        form(type("Odd", (), {"get_name": staticmethod(lambda: "a b")}))
