"""NCMEC's documents: what a page says, whatever it is."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Signal
from countermark.exchanges.ncmec import opinions_of, signals_of
from countermark.exchanges.ncmec_documents import parse_page
from tests.exchanges.hash_sharing import document, iso
from tests.exchanges.server import as_xml

GOLDEN = Path(__file__).parent / "golden" / "ncmec_entries.xml"
PDQ = "facd8bcb2a49bcebdec1985298d5fe84bcd006c187c598c720c3c087b3fdb318"


def test_a_recorded_page_is_parsed() -> None:
    page = parse_page(GOLDEN.read_bytes())
    assert page.malformed_items == 0
    assert (
        page.next
        == "/v2/entries?from=2023-05-01T00%3A00%3A00Z&to=2023-06-02T00%3A00%3A00Z&start=2001&size=1000&max=3000"
    )
    assert page.window_entries == 5 + 999
    assert {key: data is None for key, data in page.changes.items()} == {
        "42-video-2": True,
        "42-video-1": False,
        "43-photo-2": False,
        "42-photo-1": False,
        "43-photo-3": True,
    }
    photo, plain, video = (page.changes[key] for key in ("42-photo-1", "43-photo-2", "42-video-1"))
    assert photo is not None
    assert plain is not None
    assert video is not None
    assert signals_of(photo) == [
        Signal(type="pdq", value=PDQ),
        Signal(type="photo_md5", value="0cc175b9c0f1b6a831c399e269772661"),
    ]
    assert signals_of(plain) == [Signal(type="photo_md5", value="92eb5ffee6ae2fec3ad71c777531578f")]
    assert signals_of(video) == [Signal(type="video_md5", value="4a8a08f09d37b73795649038408b5f33")]
    assert opinions_of({**photo, "my_member_id": 45}) == [
        Opinion(category=Category.POSITIVE_CLASS, tags=frozenset({"A1"})),
        Opinion(category=Category.POSITIVE_CLASS),
        Opinion(category=Category.POSITIVE_CLASS),
        Opinion(category=Category.NEGATIVE_CLASS, is_mine=True),
    ]
    assert opinions_of({**plain, "my_member_id": 43}) == [Opinion(category=Category.POSITIVE_CLASS, is_mine=True)]
    assert isinstance(photo["feedback"], list)
    assert photo["feedback"][-1] == {
        "fingerprint": "Pdq",
        "is_affirmative": False,
        "member_id": 45,
        "reason": "Not this content",
    }


@pytest.mark.parametrize(
    ("xml", "kept"),
    [
        (
            "<categorization guid='g-1' name='Viral'/><categorization guid='g-2' name='Known Minor'/>",
            [("g-1", "Viral", None), ("g-2", "Known Minor", None)],
        ),
        (
            "<group name='Context' allowMultiple='true'><categorization guid='g-1' name='Viral'/></group>",
            [("g-1", "Viral", "Context")],
        ),
        ("<categorization guid='g-1'>Viral</categorization>", [("g-1", "Viral", None)]),
        ("<categorization guid='g-1'/><somethingNew/>", [("g-1", None, None)]),
        ("", []),
    ],
)
def test_categorizations_are_kept_and_their_names_are_tags(
    xml: str, kept: list[tuple[str | None, str | None, str | None]]
) -> None:
    entry = (
        "<image><member id='1'/><id>a</id><classification>A1</classification>"
        f"<categorizations>{xml}</categorizations></image>"
    )
    [data] = parse_page(document("queryResult", f"<images>{entry}</images>").body).changes.values()
    assert data is not None
    assert data["categorizations"] == [{"guid": guid, "name": name, "group": group} for guid, name, group in kept]
    [reported] = opinions_of({**data, "my_member_id": 7})
    assert reported.tags == {"A1", *(name for _, name, _ in kept if name is not None)}


def test_an_entry_that_is_on_a_page_twice_counts_as_it_was_last() -> None:
    older = f"<deletedImage><member id='1'/><id>a</id><timestamp>{iso(1)}</timestamp></deletedImage>"
    newer = f"<image><member id='1'/><id>a</id><timestamp>{iso(2)}</timestamp></image>"
    for order in (older + newer, newer + older):
        page = parse_page(document("queryResult", f"<images>{order}</images>").body)
        assert page.changes["1-a"] is not None
        assert page.malformed_items == 0


@pytest.mark.parametrize(
    "xml",
    [
        "<image/>",
        "<image><member id='1'/></image>",
        "<image><id>a</id></image>",
        "<image><member id='x'/><id>a</id></image>",
        "<image><member id='-1'/><id>a</id></image>",
        "<image><member/><id>a</id></image>",
        "<image><member id='1'/><id> </id></image>",
        "<Image><member id='1'/><id>a</id></Image>",
        "<deletedimage><member id='1'/><id>a</id></deletedimage>",
        "<audio><member id='1'/><id>a</id></audio>",
        f"<image><member id='1'/><id>{'a' * 500}</id></image>",
        f"<image><member id='1'/><id>a</id><fingerprints><pdna>{'a' * 300_000}</pdna></fingerprints></image>",
    ],
)
def test_a_malformed_entry_is_counted(xml: str) -> None:
    good = "<image><member id='1'/><id>good</id></image>"
    page = parse_page(document("queryResult", f"<images>{xml}{good}</images>").body)
    assert (list(page.changes), page.malformed_items) == (["1-good"], 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"<html/>",
        b"<queryResult>",
        b"<?xml version='1.0' encoding='nosuch'?><queryResult/>",
        b"\xff\xfe<queryResult/>",
        b"<!DOCTYPE x><queryResult/>",
        b"<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><queryResult>&b;</queryResult>",
        b"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><queryResult>&a;</queryResult>",
        b"<!DOCTYPE x SYSTEM 'http://127.0.0.1/x.dtd'><queryResult/>",
    ],
)
def test_what_is_no_page_or_declares_entities_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"XML|queryResult"):
        parse_page(data)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary()
    | st.text().map(lambda text: f"<queryResult><images>{text}</images></queryResult>".encode("utf-8", "replace"))
)
def test_whatever_the_bytes_are_they_are_a_page_or_a_value_error(data: bytes) -> None:
    try:
        page = parse_page(data)
    except ValueError:
        return
    assert page.malformed_items >= 0


@pytest.mark.parametrize(
    ("path", "entries"),
    [
        ("/v2/entries?start=2001&amp;size=1000&amp;max=3000", 999),
        ("/v2/entries?start=2001&amp;amp;size=1000&amp;amp;max=3000", 999),
        ("/v2/entries?start=5&amp;size=1000&amp;max=5", 1),
        ("/v2/entries?cursor=abc", 1),
        ("/v2/entries?start=x&amp;max=y", 1),
        ("", 0),
    ],
)
def test_the_entries_to_come_are_estimated_from_the_next_page(path: str, entries: int) -> None:
    page = parse_page(document("queryResult", f"<paging><next>{path}</next></paging>").body)
    assert page.window_entries == entries
    assert page.next is None or "&amp;" not in page.next


def test_a_document_in_no_namespace_is_read_as_well() -> None:
    page = parse_page(
        as_xml("<queryResult><images><image><member id='1'/><id>a</id></image></images></queryResult>").body
    )
    assert list(page.changes) == ["1-a"]
