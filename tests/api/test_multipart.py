"""Forms, as bytes."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.api import multipart
from countermark.api.multipart import MAX_HEADER_BYTES, Part, is_multipart, parameters, parse
from countermark.errors import InvalidInput

TYPE = "multipart/form-data; boundary=xx"


def part(data: bytes, head: bytes = b'Content-Disposition: form-data; name="photo"; filename="a"') -> bytes:
    return b"--xx\r\n" + head + b"\r\n\r\n" + data + b"\r\n"


def parsed(body: bytes, content_type: str = TYPE, max_parts: int = 10) -> list[Part]:
    return parse(body, content_type, max_parts=max_parts)


def test_files_have_a_filename_and_fields_have_none() -> None:
    body = part(b"\x00\xff") + part(b"hi", b'content-disposition: form-data; name="note"') + b"--xx--\r\n"
    assert parsed(body) == [
        Part(name="photo", filename="a", data=b"\x00\xff"),
        Part(name="note", filename=None, data=b"hi"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"--xxy",
        b"--xx--y",
        b"a--xx\r\n",
        b"\r\n--xxy\r\n",
        b"\n--xx\n",
        b"\r\n\r\n",
        b"-",
        b"\r",
        b"\r\n--x",
    ],
)
def test_content_may_hold_what_looks_like_a_boundary(data: bytes) -> None:
    assert [each.data for each in parsed(part(data) + part(b"next") + b"--xx--")] == [data, b"next"]


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters='"\\\r\n'), min_size=1), st.binary()),
        max_size=5,
    )
)
def test_what_was_sent_is_what_is_parsed(fields: list[tuple[str, bytes]]) -> None:
    boundary = "b0undary"
    if any(re.search(rb"(\A|\r\n)--b0undary", data) for _, data in fields):
        return
    chunks = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in fields
    ]
    body = b"".join([*chunks, f"--{boundary}--\r\n".encode()])
    found = parsed(body, f"multipart/form-data; boundary={boundary}")
    assert [(each.name, each.data) for each in found] == fields


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    for data in (body, b"--xx\r\n" + body, b"--xx\r\n" + body + b"\r\n--xx--"):
        try:
            parsed(data)
        except InvalidInput:
            continue


def test_text_before_and_after_the_form_is_passed_over() -> None:
    assert parsed(b"preamble\r\n" + part(b"x") + b"--xx--\r\nepilogue")[0].data == b"x"


def test_blanks_after_a_boundary_and_a_quoted_boundary_are_taken() -> None:
    assert parsed(b"--xx \t\r\n" + part(b"x").removeprefix(b"--xx\r\n") + b"--xx-- \r\n")[0].data == b"x"
    assert parsed(part(b"x") + b"--xx--", 'Multipart/Form-Data; charset=utf-8; Boundary="xx"')[0].data == b"x"


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        f"multipart/form-data; boundary={'x' * 71}",
        'multipart/form-data; boundary="é"',
        'multipart/form-data; boundary="x "',
    ],
)
def test_a_form_without_a_proper_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidInput, match="boundary"):
        parsed(part(b"x") + b"--xx--", content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nothing",
        part(b"x"),
        b"--xx\r\n",
        b"--xx\r\nno headers\r\n--xx--",
        part(b"x", b"Content-Type: image/png") + b"--xx--",
        part(b"x", b"Content-Disposition: form-data") + b"--xx--",
        part(b"x", b'Content-Disposition: form-data; name="\xff"') + b"--xx--",
        part(b"x", b'Content-Disposition: form-data; filename="a.jpg"') + b"--xx--",
        part(b"x", b"X: " + b"x" * MAX_HEADER_BYTES) + b"--xx--",
    ],
)
def test_a_form_that_is_cut_off_or_malformed_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        parsed(body)


def test_a_form_may_have_as_many_parts_as_the_limit_and_no_more() -> None:
    assert len(parsed(part(b"x") * 3 + b"--xx--", max_parts=3)) == 3
    with pytest.raises(InvalidInput, match="at most 3 parts"):
        parsed(part(b"x") * 4 + b"--xx--", max_parts=3)


def test_a_field_that_is_not_text_is_refused_when_it_is_read_as_text() -> None:
    assert Part(name="note", filename=None, data="ä".encode()).text == "ä"
    with pytest.raises(InvalidInput, match="'note' is not UTF-8"):
        _ = Part(name="note", filename=None, data=b"\xff").text


def test_parameters_are_read_with_their_quotes_and_escapes() -> None:
    assert parameters('form-data; name="a\\"b"; FileName=c.jpg') == {"name": 'a"b', "filename": "c.jpg"}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b'; filename="a.jpg"', "a.jpg"),
        (b"; filename=a.jpg", "a.jpg"),
        (b"; filename=my photo.jpg", "my photo.jpg"),
        (b'; filename=""', ""),
        (b"; filename=", ""),
        (b'; filename="caf\xc3\xa9.jpg"', "café.jpg"),
        (b'; filename="caf\xe9.jpg"', "café.jpg"),
        (b'; filename="a\\"b.jpg"', 'a"b.jpg'),
        (b'; filename="a\\\\b.jpg"', "a\\b.jpg"),
        (b'; filename="C:\\photos\\a.jpg"', "C:\\photos\\a.jpg"),
        (b'; filename="C:\\photos\\"', "C:\\photos\\"),
        (b'; filename="my "best" photo.jpg"', 'my "best" photo.jpg'),
        (b'; filename="a;b.jpg"', "a;b.jpg"),
        (b'; filename="no end', "no end"),
        (b'; filename="a.jpg', "a.jpg"),
        (b";\r\n\tfilename=a.jpg", "a.jpg"),
        (b"; FILENAME*=UTF-8''caf%C3%A9.jpg", "café.jpg"),
        (b"; filename*=utf-8'fr'caf%C3%A9.jpg", "café.jpg"),
        (b"; filename*=\"utf-8''caf%C3%A9.jpg\"", "café.jpg"),
        (b"; filename*=iso-8859-1''caf%E9.jpg", "café.jpg"),
        (b"; filename*=zlib''caf%C3%A9.jpg", "café.jpg"),
        (b"; filename*=utf-8''a%ZZ%", "a%ZZ%"),
        (b"; filename*=caf%C3%A9.jpg", "café.jpg"),
        (b"; filename*=it's.jpg", "it's.jpg"),
        (b"; filename*=", ""),
        (b"; filename=\"cafe.jpg\"; filename*=utf-8''caf%C3%A9.jpg", "café.jpg"),
        (b"; filename*0=my_; filename*1=photo.jpg", "my_photo.jpg"),
        (b"; filename*0*=utf-8''caf%C3; filename*1*=%A9; filename*2=.jpg", "café.jpg"),
        (b"; filename*1=b; filename*0=a", "ab"),
        (b"; filename*0=a; filename*2=c", "a"),
        (b'; filename="a"; name="note"', "a"),
    ],
)
def test_the_name_of_a_file_is_read_as_clients_write_it(written: bytes, read: str) -> None:
    head = b'Content-Disposition: form-data; name="photo"' + written
    [found] = parsed(part(b"\xff", head) + b"--xx--")
    assert found == Part(name="photo", filename=read, data=b"\xff")


@given(st.binary(max_size=60).filter(lambda text: b"\r" not in text and b"\n" not in text))
def test_whatever_a_file_is_called_it_is_a_file(filename: bytes) -> None:
    for sign, quote in ((b"=", b'"'), (b"=", b""), (b"*=", b""), (b"*=utf-8''", b""), (b"*0*=", b"")):
        head = b'Content-Disposition: form-data; name="photo"; filename' + sign + quote + filename + quote
        [found] = parsed(part(b"\xff", head) + b"--xx--")
        assert (found.name, found.filename is None, found.data) == ("photo", False, b"\xff")


def test_a_long_line_of_odd_parameters_is_read_in_no_time() -> None:
    for piece in (b'; a="', b";    ", b'; a="\\', b"; a*0*=", b'"; a=" '):
        head = b'Content-Disposition: form-data; name="photo"; filename=' + piece * (
            MAX_HEADER_BYTES // len(piece) - 20
        )
        [found] = parsed(part(b"\xff", head) + b"--xx--")
        assert found.name == "photo"


def test_the_media_type_of_a_part_is_read() -> None:
    head = b'Content-Type: Image/JPEG; q="1"\r\nContent-Disposition: form-data; name="photo"'
    assert parsed(part(b"x", head) + b"--xx--") == [
        Part(name="photo", filename=None, data=b"x", media_type="image/jpeg")
    ]


def test_only_a_form_of_parts_is_one() -> None:
    assert is_multipart("Multipart/Form-Data; boundary=x")
    assert not is_multipart("application/x-www-form-urlencoded")
    assert not is_multipart("")


PIECES = st.sampled_from(
    [b"--x", b"--x--", b"\r\n", b"--", b"x", b" ", b"\t", b"a", b"\n", b"\r", b"-x", b"--xx", b"-"]
)


@settings(max_examples=2_000, deadline=None)
@given(pieces=st.lists(PIECES, max_size=14), delimiter=st.sampled_from([b"--x", b"----", b"--x-"]))
def test_boundaries_are_found_where_the_grammar_has_them(pieces: list[bytes], delimiter: bytes) -> None:
    """RFC 2046 as one expression, which is slow on content, says what a boundary is."""
    body = b"".join(pieces)
    line = re.compile(rb"(?:\A|\r\n)" + re.escape(delimiter) + rb"(--)?[ \t]*(?:\r\n|\Z)")
    for start in range(len(body) + 1):
        expected = line.search(body, start)
        found = multipart._boundary(body, delimiter, start)
        assert found == (expected and (expected.start(), expected.end(), expected.group(1) is not None))
