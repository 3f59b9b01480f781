"""Forms as clients write them, at every route that takes one: which part is the file, and which is a field."""

import pytest

from tests.api.house import BOUNDARY, Answer, Caller, House
from tests.api.photos import PHOTO

FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}

CLIP = b"\x00\x00\x00\x18ftypmp42 and so on"

NAMELESS = b"Content-Type: image/jpeg\r\n"


def part(disposition: bytes, data: bytes, headers: bytes = b"") -> bytes:
    head = b"Content-Disposition: form-data; " + disposition + b"\r\n" + headers
    return f"--{BOUNDARY}\r\n".encode() + head + b"\r\n" + data + b"\r\n"


def post(call: Caller, path: str, *parts: bytes) -> Answer:
    return call("POST", path, b"".join(parts) + f"--{BOUNDARY}--\r\n".encode(), headers=FORM)


@pytest.fixture
def known(house: House, call: Caller) -> Caller:
    """A service that knows a photo, and has a bank to fill."""
    call("POST", "/c/banks", {"name": "A"})
    call("POST", "/c/bank/A/content?types=pdq", [("photo", PHOTO)])
    house.build_index()
    return call


FILES = {
    "a name": part(b'name="photo"; filename="a.jpg"', PHOTO),
    "an extended name": part(b"name=\"photo\"; filename*=utf-8''caf%C3%A9.jpg", PHOTO),
    "both names": part(b'filename="a"; filename*=utf-8\'\'b; name="photo"', PHOTO),
    "a name in pieces": part(b'name="photo"; filename*0="a"; filename*1=".jpg"', PHOTO),
    "a broken encoding": part(b"name=photo; filename*=utf-8''%F", PHOTO),
    "a name in Latin-1": part(b'name="photo"; filename="caf\xe9.jpg"', PHOTO),
    "a path of Windows": part(b'name="photo"; filename="C:\\photos\\"', PHOTO),
    "a quote": part(b'name="photo"; filename="my "best" photo.jpg"', PHOTO),
    "an open quote": part(b'name="photo"; filename="photo', PHOTO),
    "another kind's name": part(b'name="photo"; filename="a.mp4"', PHOTO),
    "a name with a parameter": part(b'name="photo"; filename="a"; name="video"', PHOTO),
    "an empty name": part(b'name="photo"; filename=""', PHOTO),
    "no value": part(b'name="photo"; filename=', PHOTO),
    "no name, a type": part(b'name="photo"', PHOTO, NAMELESS),
    "no name, any type": part(b'name="photo"', PHOTO, b"Content-Type: application/octet-stream\r\n"),
    "no name, a wrong type": part(b'name="photo"', PHOTO, b"Content-Type: text/plain\r\n"),
    "no name, no type": part(b'name="photo"', PHOTO),
    "no quotes": part(b"name=photo", PHOTO),
    "two lines": part(b'name="photo";\r\n filename="a.jpg"', PHOTO),
}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES.keys())
def test_the_name_of_a_file_or_its_lack_decides_nothing(known: Caller, file: bytes) -> None:
    fields = part(b'name="did"', b"did:plc:x"), part(b'name="text"', b"of a post"), part(b'name="url"', b"http://x/")
    [pdq] = known("POST", "/h/hash?types=pdq", [("photo", PHOTO)]).json().values()
    assert post(known, "/h/hash?types=pdq", *fields, file).json() == {"pdq": pdq}
    assert post(known, "/m/lookup?types=pdq", file, *fields).json()["pdq"]["A"][0]["bank_content_id"] == 1
    note = part(b'name="note"', b"seen twice", b"Content-Type: text/plain; charset=utf-8\r\n")
    metadata = part(b'name="metadata"', b'{"content_id": "7"}', b"Content-Type: application/json\r\n")
    banked = post(known, "/c/bank/A/content?types=pdq", note, file, metadata)
    assert banked.json()["signals"] == {"pdq": pdq}
    shown = known("GET", f"/c/bank/A/content/{banked.json()['id']}").json()
    assert (shown["note"], shown["metadata"]["content_id"]) == ("seen twice", "7")


def test_metadata_in_a_file_are_metadata(known: Caller) -> None:
    metadata = part(b'name="metadata"; filename="about.json"', b'{"content_id": "7"}', b"Content-Type: text/json\r\n")
    note = part(b'name="note"; filename="note.txt"', b"seen twice")
    photo = part(b'name="photo"; filename="a.jpg"', PHOTO)
    banked = post(known, "/c/bank/A/content?types=pdq", metadata, photo, note)
    shown = known("GET", f"/c/bank/A/content/{banked.json()['id']}").json()
    assert (shown["note"], shown["metadata"]["content_id"]) == ("seen twice", "7")
    assert post(known, "/m/lookup?types=pdq", metadata, photo).status == 200


def test_where_no_file_was_chosen_there_is_none(known: Caller) -> None:
    none = part(b'name="video"; filename=""', b"", b"Content-Type: application/octet-stream\r\n")
    photo = part(b'name="photo"; filename="a.jpg"', PHOTO)
    assert post(known, "/m/lookup?types=pdq", none, photo).json()["pdq"]["A"]
    assert post(known, "/m/lookup", none).json() == {"message": "Missing multipart/form-data file upload"}


@pytest.mark.parametrize(
    "field",
    [
        part(b'name="photo"', b"words"),
        part(b'name="photo"', b"words", b"Content-Type: text/plain\r\n"),
        part(b'name="photo"', b'{"a": 1}', b"Content-Type: application/json\r\n"),
        part(b'name="url"', b"https://example.org/"),
        part(b'name="painting"', PHOTO, NAMELESS),
        part(b'name="note"; filename="a"', PHOTO, NAMELESS),
        part(b'name="metadata"', b"{}"),
    ],
)
def test_a_field_is_no_file(known: Caller, field: bytes) -> None:
    for path in ("/h/hash", "/m/lookup"):
        answer = post(known, path, field)
        assert (answer.status, answer.json()) == (400, {"message": "Missing multipart/form-data file upload"})


def test_only_one_part_is_the_file(known: Caller) -> None:
    named, nameless = part(b'name="photo"; filename="a"', PHOTO), part(b'name="video"', CLIP, NAMELESS)
    for path in ("/h/hash", "/m/lookup", "/c/bank/A/content"):
        answer = post(known, path, named, nameless)
        assert (answer.status, answer.json()) == (400, {"message": "Only one file allowed per request"})


@pytest.mark.parametrize("headers", [b"", b"Content-Type: text/plain; charset=utf-8\r\n"])
def test_a_text_is_content_where_there_is_no_file(known: Caller, headers: bytes) -> None:
    text = part(b'name="text"', "grüß Gott".encode(), headers)
    assert post(known, "/h/hash", text, part(b'name="note"', b"x")).json() == {"raw_text": "grüß Gott"}
    assert post(known, "/m/lookup", text).json() == {"raw_text": {}, "trend_query": {}}
    assert post(known, "/c/bank/A/content", text).json()["signals"] == {"raw_text": "grüß Gott"}
