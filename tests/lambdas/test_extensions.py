"""The functions with extensions, as their environment names them."""

from pathlib import Path

import pytest

from lambdas import composition
from lambdas.composition import stores
from tests.aws.deployed import CONTENT_BUCKET
from tests.cli.test_content_types import letter
from tests.lambdas.conftest import Functions
from tests.lambdas.test_fetch import collaborate
from tests.lambdas.test_hash import picture, put

MODULE = """
from countermark.domain.signal import ContentType
from countermark.extensions import Manifest
from countermark.signals.digest import DigestType
from tests.extensions.letters import Letter

COUNTERMARK_MANIFEST = Manifest(
    signal_types=(
        DigestType(
            name="text_sha256",
            content_types=frozenset({ContentType.TEXT}),
            algorithm="sha256",
            examples=("a" * 64,),
        ),
    ),
    content_types=(Letter(),),
)
"""


@pytest.fixture
def extended(functions: Functions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Functions:
    """The functions of a deployment with one extension."""
    (tmp_path / "ext_of_functions.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COUNTERMARK_EXTENSIONS", "ext_of_functions")
    composition.stores.cache_clear()
    return functions


def test_an_extensions_signals_are_fetched_indexed_and_matched(extended: Functions) -> None:
    collaborate(extended, "A", lines=None)
    extended.on.clients.s3.put_object(Bucket=CONTENT_BUCKET, Key="A", Body=b"text_sha256 " + b"b" * 64)
    assert extended.deliver("fetch", {"collaboration": "A"}) == []
    assert extended.deliver("index", {}) == []
    status, found = extended.ask("match", "/m/lookup", query={"signal_type": "text_sha256", "signal": "b" * 64})
    assert (status, found) == (200, {"A": [{"bank_content_id": 1, "distance": "-"}]})


@pytest.mark.parametrize(
    ("key", "more"),
    [("letter/1", {}), ("inbox/1", {"ContentType": "message/rfc822"}), ("inbox/1.EML", {})],
)
def test_an_upload_of_an_extensions_type_is_told_with_what_lies_within(
    extended: Functions, key: str, more: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    collaborate(extended, "A", lines=None)
    extended.on.clients.s3.put_object(Bucket=CONTENT_BUCKET, Key="A", Body=b"raw_text other words\n")
    extended.deliver("fetch", {"collaboration": "A"})
    extended.deliver("index", {})
    content = letter("known words", picture(), b"unknown", forwards=letter("other words")).as_bytes()

    assert extended.deliver("hash", put(extended, key, content, Metadata={"content-id": "m-1"}, **more)) == []

    told = {each["detail"]["content_key"]: each for each in extended.told("ContentHashed")}
    [whole] = [name for name in told if not name.rpartition("#")[2].count("/")]
    assert {name.removeprefix(whole): each["detail"]["content_type"] for name, each in told.items()} == {
        "": "letter",
        "/1": "text",
        "/2": "photo",
        "/3": "file",
        "/4": "letter",
        "/4/1": "text",
    }
    assert {each["detail"]["content_id"] for each in told.values()} == {"m-1"}
    assert told[f"{whole}/3"]["detail"]["unhashable"]["file"]["code"] == "unsupported"
    assert '"UploadPartly":[1.0]' in capsys.readouterr().out, "nobody looked at the third part"

    assert extended.deliver("match", *told.values()) == []

    [found] = extended.told("MatchFound")
    assert (found["detail"]["content_key"], found["detail"]["content_id"]) == (f"{whole}/4/1", "m-1")


def test_a_part_too_large_for_an_event_is_read_in_its_upload(extended: Functions) -> None:
    collaborate(extended, "A", lines=None)
    query = '{"and": [{"or": ["needle"]}], "not": []}'
    extended.on.clients.s3.put_object(Bucket=CONTENT_BUCKET, Key="A", Body=f"trend_query {query}\n".encode())
    extended.deliver("fetch", {"collaboration": "A"})
    extended.deliver("index", {})
    inner = letter("hay " * 100_000 + "needle")
    content = letter("words", picture(), forwards=inner).as_bytes()
    assert extended.deliver("hash", put(extended, "letter/1", content)) == []
    told = [each for each in extended.told("ContentHashed") if each["detail"].get("left_in_content")]
    assert [each["detail"]["content_key"].endswith("/3/1") for each in told] == [True]
    assert extended.deliver("match", *told) == []
    [found] = extended.told("MatchFound")
    assert found["detail"]["content_key"].endswith("/3/1")
    assert [match["signal_type"] for match in found["detail"]["matches"]] == ["trend_query"]


def test_the_api_of_a_deployment_hashes_content_of_an_extensions_type(extended: Functions) -> None:
    content = letter("known words").as_bytes()
    assert extended.send_form("hash", "/h/hash", "letter", content)[1]["raw_text"] == ["known words"]


def test_an_extension_that_cannot_be_loaded_fails_what_needs_it_to_be_tried_again(
    extended: Functions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collaborate(extended, "A")
    monkeypatch.setenv("COUNTERMARK_EXTENSIONS", "ext_of_functions,ext_gone")
    composition.stores.cache_clear()
    assert extended.deliver("fetch", {"collaboration": "A"}) == [0]
    assert "the extension ext_gone: there is no such module" in capsys.readouterr().out
    assert stores().collaborations.fetch_state("A").last_succeeded is None
