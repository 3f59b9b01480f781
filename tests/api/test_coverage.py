"""No match is said only of content that was looked at, and an answer says what of it was not."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from countermark.domain import coverage
from countermark.domain.signal import Partial, Unhashable
from countermark.signals import SIGNAL_TYPES
from tests.api.house import Answer, Caller, House, lambda_caller, open_house
from tests.api.photos import FLAT, HUGE, PHOTO
from tests.extensions.boxes import BOXES, box
from tests.signals.photos import photo, saved
from tests.transport.servers import answer, serving

UNHASHABLE, PARTIAL = coverage.UNHASHABLE, coverage.PARTIAL

PDQ = "0f" * 32


def cut_png() -> bytes:
    file = io.BytesIO()
    Image.effect_mandelbrot((160, 120), (-3, -2.5, 2, 2.5), 100).save(file, "PNG")
    return file.getvalue()[:200]


UNREADABLE = {
    "a text": b"this is no photo",
    "a cut photo": cut_png(),
    "the beginning of a photo": b"\xff\xd8\xff\xe0",
    "a video": b"\x00\x00\x00\x18ftypmp42 and so on",
    "a document": b"%PDF-1.7 and so on",
    "noise": bytes(range(256)),
}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A service with a content type that holds others, a bank, and an index."""
    with open_house(tmp_path / "state") as opened:
        made = replace(opened, services=replace(opened.services, content_types=BOXES, signal_types=dict(SIGNAL_TYPES)))
        made.state.banks.create_bank("A", ratio=1.0)
        made.build_index()
        yield made


@dataclass
class Ending:
    """Makes of any content what it is given."""

    made: Any

    def update(self, chunk: bytes) -> None:
        """Take nothing."""

    def finish(self) -> Any:
        return self.made


class StandIn:
    """A signal type whose hasher comes to what a test says; all else is of the real type."""

    def __init__(self, name: str, made: Any) -> None:
        self._inner, self._made = SIGNAL_TYPES[name], made

    def hasher(self) -> Ending:
        return Ending(self._made)

    def variants_hasher(self) -> Ending:
        return Ending(self._made)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def makes(house: House, **made: Any) -> None:
    """Have signal types make of any content what is given by their names."""
    types = house.services.signal_types
    assert isinstance(types, dict)
    types.update({name: StandIn(name, each) for name, each in made.items()})


def lookup(call: Caller, content: bytes, field: str = "photo", query: str = "") -> Answer:
    return call("POST", f"/m/lookup{query}", [(field, content)])


def bank(house: House, call: Caller, **signals: str) -> None:
    assert call("POST", "/c/bank/A/signal", signals).status == 200
    house.build_index()


def digests(call: Caller, content: bytes) -> dict[str, str]:
    found: dict[str, str] = call("POST", "/h/hash?types=photo_md5,photo_sha256", [("photo", content)]).json()
    return found


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("query", ["", "?types=pdq", "?rotations=true", "?types=pdq,photo_md5&include=detail"])
def test_a_photo_that_cannot_be_read_is_never_said_to_match_nothing(call: Caller, content: bytes, query: str) -> None:
    sent = lookup(call, content, query=query)
    assert sent.status == 400
    assert list(sent.json()) == ["message"]
    assert sent.json()["message"].startswith("no pdq signal: ")
    assert sent.headers[UNHASHABLE] in {"pdq=damaged", "pdq=unsupported"}
    assert lookup(call, content, query="?types=photo_md5").json() == {"photo_md5": {}}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_where_another_type_matches_the_header_says_what_was_not_looked_at(
    house: House, call: Caller, content: bytes
) -> None:
    bank(house, call, photo_md5=digests(call, content)["photo_md5"])
    sent = lookup(call, content)
    assert sent.status == 200
    assert sent.json()["photo_md5"] == {"A": [{"bank_content_id": 1, "distance": "-"}]}
    assert sent.headers[UNHASHABLE] in {"pdq=damaged", "pdq=unsupported"}
    assert lookup(call, content, query="?banks=B").status == 400


def test_content_at_a_url_is_held_to_the_same(house: House, call: Caller) -> None:
    with serving(answer(UNREADABLE["a text"], headers=["Content-Type: image/jpeg"])) as server:
        target = f"/m/lookup?url=http://photos.example:{server.port}/a.jpg"
        sent = call("GET", target)
        assert (sent.status, list(sent.json()), sent.headers[UNHASHABLE]) == (400, ["message"], "pdq=damaged")
        assert call("GET", f"{target}&signal_type=pdq").status == 400
        looked_at = call("GET", f"{target}&signal_type=photo_md5")
        assert (looked_at.status, looked_at.json(), UNHASHABLE in looked_at.headers) == (200, {}, False)
        bank(house, call, photo_md5=digests(call, UNREADABLE["a text"])["photo_md5"])
        matched = call("GET", target)
        assert (matched.status, matched.headers[UNHASHABLE]) == (200, "pdq=damaged")
        assert matched.json()["photo_md5"]["A"]
        assert call("GET", f"{target}&signal_type=pdq").status == 400
        assert call("GET", f"{target}&signal_type=photo_md5").json()["A"]


@pytest.mark.parametrize("name", ["zzz", "video_md5", "raw_text"])
def test_a_signal_type_that_is_not_made_of_the_content_is_no_answer_of_no_match(call: Caller, name: str) -> None:
    with serving(answer(PHOTO, headers=["Content-Type: image/bmp"])) as server:
        target = f"/m/lookup?url=http://photos.example:{server.port}/a.bmp"
        sent = call("GET", f"{target}&signal_type={name}")
        assert (sent.status, name in sent.json()["message"]) == (400, True)
        sent = call("GET", f"{target}&types=photo_md5&signal_type=pdq")
        assert (sent.status, "'pdq'" in sent.json()["message"]) == (400, True)
        assert call("GET", f"{target}&types=photo_md5,pdq&signal_type=pdq").json() == {}


def test_a_photo_of_too_low_a_quality_was_looked_at(call: Caller) -> None:
    sent = lookup(call, FLAT, query="?types=pdq")
    assert (sent.status, sent.json(), sent.headers[UNHASHABLE]) == (200, {"pdq": {}}, "pdq=low-quality")
    hashed = call("POST", "/h/hash?types=pdq", [("photo", FLAT)])
    assert (hashed.status, hashed.json(), hashed.headers[UNHASHABLE]) == (200, {"pdq": ""}, "pdq=low-quality")


def test_what_was_looked_at_in_full_has_no_header(house: House, call: Caller) -> None:
    for path in ("/h/hash", "/m/lookup", "/c/bank/A/content"):
        sent = call("POST", path, [("photo", PHOTO)])
        assert sent.status == 200
        assert not {UNHASHABLE, PARTIAL} & sent.headers.keys()
    sent = call("GET", f"/m/lookup?signal={PDQ}&signal_type=pdq")
    assert not {UNHASHABLE, PARTIAL} & sent.headers.keys()


CODES = {
    "empty": (200, "pdq=empty"),
    "low_quality": (200, "pdq=low-quality"),
    "damaged": (400, "pdq=damaged"),
    "unsupported": (400, "pdq=unsupported"),
    "missing_extra": (400, "pdq=missing-extra"),
    "too_large": (413, "pdq=too-large"),
}


@pytest.mark.parametrize("code", CODES)
def test_each_reason_has_its_answer(house: House, call: Caller, code: Any) -> None:
    status, header = CODES[code]
    makes(house, pdq=Unhashable(code=code, reason="the reason"))
    sent = lookup(call, b"photo")
    assert (sent.status, sent.headers[UNHASHABLE]) == (status, header)
    if status != 200:
        assert list(sent.json()) == ["message"]
        assert "no pdq signal: the reason" in sent.json()["message"]
    bank(house, call, photo_md5=digests(call, b"photo")["photo_md5"])
    sent = lookup(call, b"photo")
    assert (sent.status, sent.headers[UNHASHABLE]) == (200, header)
    assert sent.json()["photo_md5"]["A"]


def test_several_types_are_named_each_with_its_reason(house: House, call: Caller) -> None:
    low = Unhashable(code="low_quality", reason="plain")
    makes(house, pdq=low, photo_md5=Unhashable(code="missing_extra", reason="no package"))
    sent = lookup(call, b"photo")
    assert sent.headers[UNHASHABLE] == "pdq=low-quality,photo_md5=missing-extra"
    assert (sent.status, sent.json()) == (400, {"message": "no photo_md5 signal: no package"})
    makes(house, photo_sha256=Unhashable(code="too_large", reason="huge"))
    sent = lookup(call, b"photo")
    assert sent.status == 413
    assert sent.json()["message"] == "Content too large: no photo_md5 signal: no package; no photo_sha256 signal: huge"


@pytest.mark.parametrize("field", ["photo", "video", "text"])
def test_a_file_without_bytes_is_not_said_to_match_nothing(house: House, call: Caller, field: str) -> None:
    why = Unhashable(code="empty", reason="there are no bytes")
    makes(house, **dict.fromkeys(("pdq", "photo_md5", "photo_sha256", "video_md5", "video_sha256", "raw_text"), why))
    for path in ("/m/lookup", "/h/hash", "/c/bank/A/content"):
        sent = call("POST", path, [(field, b"")])
        assert (sent.status, list(sent.json())) == (400, ["message"]), path
        assert "there are no bytes" in sent.json()["message"]


def test_a_text_of_which_nothing_is_left_was_looked_at(house: House, call: Caller) -> None:
    makes(house, raw_text=Unhashable(code="empty", reason="no letters"))
    sent = lookup(call, "\N{THUMBS UP SIGN}".encode(), "text")
    assert (sent.status, sent.json()) == (200, {"raw_text": {}, "trend_query": {}})
    assert sent.headers[UNHASHABLE] == "raw_text=empty"


def test_a_type_that_is_only_asked_is_reported_as_well(house: House, call: Caller) -> None:
    sent = lookup(call, b"\xff\xfe\xfd", "text")
    assert (sent.status, sent.headers[UNHASHABLE]) == (400, "raw_text=damaged,trend_query=damaged")
    assert "no trend_query signal: " in sent.json()["message"]
    sent = lookup(call, b"\xff\xfe\xfd", "text", "?types=trend_query")
    assert (sent.status, sent.headers[UNHASHABLE]) == (400, "trend_query=damaged")


def test_a_part_that_could_not_be_hashed_is_reported(house: House, call: Caller) -> None:
    held = box(("text", "known words"), ("photo", "no photo"))
    sent = lookup(call, held, "box")
    assert (sent.status, sent.headers[UNHASHABLE]) == (400, "pdq=damaged")
    assert sent.json()["message"].startswith("/2: no pdq signal: ")
    hashed = call("POST", "/h/hash?types=raw_text,pdq", [("box", held)])
    assert (hashed.json(), hashed.headers[UNHASHABLE]) == ({"raw_text": ["known words"], "pdq": []}, "pdq=damaged")
    bank(house, call, raw_text="known words")
    sent = lookup(call, held, "box")
    assert (sent.status, sent.headers[UNHASHABLE]) == (200, "pdq=damaged")
    assert sent.json()["raw_text"]["A"]


@pytest.mark.parametrize(
    ("held", "status", "header", "message"),
    [
        ([("text", "words"), ("!", "InvalidContent")], 400, "box=damaged", "the reason of upload"),
        (
            [("text", "words"), ("!", "ContentTooLarge")],
            413,
            "box=too-large",
            "Content too large: the reason of upload",
        ),
        ([("text", "words"), ("!", "MissingExtra")], 503, "box=missing-extra", "the reason of upload"),
        (
            [("text", "words"), ("box", [("!", "InvalidContent")])],
            400,
            "box=damaged",
            "/2: not opened in full: the reason of a part",
        ),
        ([("file", "unknown")], 400, "file=unsupported", "/1: not opened in full: "),
        ([("text", "words"), ("text", "")], 200, None, ""),
    ],
)
def test_content_that_was_not_opened_in_full_is_reported(
    house: House, call: Caller, held: Any, status: int, header: str | None, message: str
) -> None:
    sent = lookup(call, box(*held), "box")
    assert sent.status == status
    if header is not None:
        assert sent.headers[UNHASHABLE] == header
        assert sent.json()["message"].startswith(message)
    bank(house, call, raw_text="words")
    sent = lookup(call, box(*held), "box")
    assert sent.status == (200 if held[0][0] == "text" else status)
    assert header is None or sent.headers[UNHASHABLE] == header


def test_a_message_names_so_many_reasons_and_counts_the_others(call: Caller) -> None:
    sent = lookup(call, box(*(("photo", f"no photo {number}") for number in range(9))), "box")
    assert sent.json()["message"].count("no pdq signal: ") == 5
    assert sent.json()["message"].endswith("; and 4 more")


def test_before_the_first_index_nothing_is_said_of_content(tmp_path: Path) -> None:
    with open_house(tmp_path / "other") as opened:
        assert lookup(lambda_caller(opened), UNREADABLE["a text"]).status == 503


def test_a_type_without_its_package_spoils_a_hash_only_where_there_is_no_other(house: House, call: Caller) -> None:
    makes(house, pdq=Unhashable(code="missing_extra", reason="install it"))
    hashed = call("POST", "/h/hash", [("photo", b"photo")])
    assert (hashed.status, set(hashed.json())) == (200, {"photo_md5", "photo_sha256"})
    assert hashed.headers[UNHASHABLE] == "pdq=missing-extra"
    hashed = call("POST", "/h/hash?types=pdq", [("photo", b"photo")])
    assert (hashed.status, hashed.json()) == (400, {"message": "no pdq signal: install it"})


@pytest.mark.parametrize("content", [b"this is no photo", HUGE])
def test_a_hash_of_what_cannot_be_read_is_refused(call: Caller, content: bytes) -> None:
    for path in ("/h/hash", "/c/bank/A/content"):
        sent = call("POST", path, [("photo", content)])
        assert (sent.status, "no pdq signal: " in sent.json()["message"]) == (413 if content is HUGE else 400, True)


def test_a_partial_photo_is_hashed_looked_up_and_banked_and_the_answer_says_so(house: House, call: Caller) -> None:
    makes(house, pdq=Partial(value=PDQ, reason="its last 10 of 100 rows are missing"))
    content = b"the first 90 rows"
    hashed = call("POST", "/h/hash?types=pdq", [("photo", content)])
    assert (hashed.status, hashed.json(), hashed.headers[PARTIAL]) == (200, {"pdq": PDQ}, "pdq")
    unknown = lookup(call, content)
    assert (unknown.status, unknown.json()["pdq"], unknown.headers[PARTIAL]) == (200, {}, "pdq")
    banked = call("POST", "/c/bank/A/content", [("photo", content)])
    assert (banked.status, banked.json()["signals"]["pdq"], banked.headers[PARTIAL]) == (200, PDQ, "pdq")
    house.build_index()
    found = lookup(call, content, query="?include=detail")
    assert found.headers[PARTIAL] == "pdq"
    assert UNHASHABLE not in found.headers
    [by_pdq] = found.json()["pdq"]["A"]
    assert by_pdq["detail"]["partial"] == "its last 10 of 100 rows are missing"
    [by_md5] = found.json()["photo_md5"]["A"]
    assert "partial" not in by_md5["detail"]
    with serving(answer(content, headers=["Content-Type: image/jpeg"])) as server:
        url = f"url=http://photos.example:{server.port}/a.jpg"
        assert call("GET", f"/h/hash?{url}").headers[PARTIAL] == "pdq"
        assert call("GET", f"/m/lookup?{url}&signal_type=pdq").headers[PARTIAL] == "pdq"
        assert PARTIAL not in call("GET", f"/m/lookup?{url}&signal_type=photo_md5").headers


def test_a_jpeg_that_was_cut_late_is_partial_and_one_that_was_cut_early_is_refused(house: House, call: Caller) -> None:
    whole = saved(photo("coffee.png").resize((320, 240)), "JPEG", quality=90)
    cut = whole[: len(whole) * 9 // 10]
    assert call("POST", "/c/bank/A/content?types=pdq", [("photo", cut)]).headers[PARTIAL] == "pdq"
    house.build_index()
    found = lookup(call, cut, query="?include=detail")
    assert (found.status, found.headers[PARTIAL], UNHASHABLE in found.headers) == (200, "pdq", False)
    assert "rows" in found.json()["pdq"]["A"][0]["detail"]["partial"]
    hashed = call("POST", "/h/hash?types=pdq", [("photo", cut)])
    assert (len(hashed.json()["pdq"]), hashed.headers[PARTIAL]) == (64, "pdq")
    early = lookup(call, whole[: len(whole) // 4])
    assert (early.status, early.headers[UNHASHABLE]) == (400, "pdq=damaged")


def test_turned_variants_of_a_partial_photo_are_partial(house: House, call: Caller) -> None:
    turned = "f0" * 32
    bank(house, call, pdq=turned)
    makes(house, pdq=Partial(value={"ORIGINAL": PDQ, "FLIPX": turned}, reason="half of it is missing"))
    [match] = lookup(call, b"photo", query="?rotations=true&include=detail").json()["pdq"]["A"]
    assert (match["rotation"], match["detail"]["partial"]) == ("FLIPX", "half of it is missing")


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@given(st.sets(st.tuples(NAMES, st.sampled_from(list(CODES)))), st.sets(NAMES))
def test_what_headers_say_is_read_again(unhashable: set[tuple[str, str]], partial: set[str]) -> None:
    headers = coverage.written(unhashable=unhashable, partial=partial)
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    found = coverage.read(headers)
    assert (set(found[0]), set(found[1])) == (unhashable, partial)
    assert bool(unhashable) == (UNHASHABLE in headers)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_header_is_read(unhashable: str, partial: str) -> None:
    coverage.read({UNHASHABLE: unhashable, PARTIAL: partial})
