"""A text upload on AWS is asked all that the same text is asked over the API and on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from countermark.cli.root import run
from countermark.domain.bank import ContentDraft
from countermark.errors import InvalidInput
from countermark.local.state import LocalState
from lambdas.composition import now_s, stores
from lambdas.uploads import hashed_object
from tests.lambdas.conftest import Functions
from tests.lambdas.test_hash import put

BANKED = (
    {"raw_text": "bball now?"},
    {"trend_query": '{"and": [{"or": ["bball", "hoops"]}, {"or": ["now"]}], "not": ["tomorrow"]}'},
    {"trend_query": '{"and": [{"or": ["regex-XBBALL|[bB]ballX"]}], "not": []}'},
    {"trend_query": '{"and": [{"or": ["nothing of the kind"]}], "not": []}'},
)
TEXTS = ("bball now?", "  BBALL\n", "bball now tomorrow", "hoops now", "words", "ここ bball now 👍")


def bank_all(banks: Any) -> None:
    bank = banks.create_bank("BANKED", ratio=1.0)
    for signals in BANKED:
        banks.add_content(bank.id, ContentDraft(signals=signals), now_s=now_s())


def matches_of_uploads(functions: Functions) -> list[set[tuple[str, int]]]:
    found = []
    for number, text in enumerate(TEXTS):
        assert functions.deliver("hash", put(functions, f"text/{number}", text.encode())) == []
        [hashed] = functions.told("ContentHashed")
        assert functions.deliver("match", hashed, hashed) == []
        told = [match for event in functions.told("MatchFound") for match in event["detail"]["matches"]]
        found.append({(match["signal_type"], match["bank_content_id"]) for match in told})
        assert len(told) == len(found[-1]), "each match is told of once"
    return found


def matches_of_lookups(functions: Functions) -> list[set[tuple[str, int]]]:
    found = []
    for text in TEXTS:
        status, by_type = functions.send_form("match", "/m/lookup", "text", text.encode())
        assert status == 200
        found.append(
            {
                (name, match["bank_content_id"])
                for name, banks in by_type.items()
                for matches in banks.values()
                for match in matches
            }
        )
    return found


def matches_of_the_command_line(capsys: pytest.CaptureFixture[str], home: Path) -> list[set[tuple[str, int]]]:
    with LocalState.open(home) as state:
        bank_all(state.banks)
    found = []
    for text in TEXTS:
        capsys.readouterr()
        assert run(["match", "text", "--all", "--json", "--", text]) == 0
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        found.append({(match["signal_type"], match["bank_content_id"]) for match in told})
    return found


def test_an_upload_a_lookup_and_the_command_line_find_the_same(
    functions: Functions, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERMARK_STATEDIR", str(tmp_path))
    bank_all(stores().banks)
    functions.deliver("index", {"full": False})

    of_uploads = matches_of_uploads(functions)

    assert of_uploads == matches_of_lookups(functions)
    assert of_uploads == matches_of_the_command_line(capsys, tmp_path)
    assert [sorted(each) for each in of_uploads] == [
        [("raw_text", 1), ("trend_query", 2), ("trend_query", 3)],
        [("trend_query", 3)],
        [("trend_query", 3)],
        [("trend_query", 2)],
        [],
        [("trend_query", 2), ("trend_query", 3)],
    ]


def test_no_log_line_holds_a_text_or_a_query(functions: Functions, capsys: pytest.CaptureFixture[str]) -> None:
    bank_all(stores().banks)
    functions.deliver("index", {"full": False})
    capsys.readouterr()

    matches_of_uploads(functions)

    captured = capsys.readouterr()
    assert "content_matched" in captured.out
    for secret in ("bball", "hoops", "tomorrow"):
        assert secret not in captured.out + captured.err


def test_a_text_of_which_only_queries_are_made_counts_as_hashed(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    stores().banks.set_signal_type_ratio("raw_text", 0.0)
    assert functions.deliver("hash", put(functions, "text/1", b"words")) == []
    assert '"UploadHashed":[1.0]' in capsys.readouterr().out


LARGE = f"bball {'? ' * 300_000}now, {'padding ' * 100_000}"


def large_upload(functions: Functions) -> Any:
    bank = stores().banks.create_bank("BANKED", ratio=1.0)
    for signals in BANKED[1:2]:
        stores().banks.add_content(bank.id, ContentDraft(signals=signals), now_s=now_s())
    functions.deliver("index", {"full": False})
    # Later bytes of that key are another upload.
    upload = put(functions, "text/a#b/1", LARGE.encode())
    put(functions, "text/a#b/1", b"other words")
    assert functions.deliver("hash", upload) == []
    [hashed] = functions.told("ContentHashed")
    assert hashed["detail"]["left_in_content"]
    assert "padding" not in json.dumps(hashed)
    return hashed


def test_a_text_too_large_for_an_event_is_read_where_it_was_uploaded(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    hashed = large_upload(functions)
    assert functions.deliver("match", hashed) == []
    [found] = functions.told("MatchFound")
    assert [match["signal_type"] for match in found["detail"]["matches"]] == ["trend_query"]
    assert "partial" not in found["detail"]
    assert '"ContentPartlyMatched":[0.0]' in capsys.readouterr().out.replace(" ", "")


def test_a_text_whose_upload_is_gone_is_counted_and_logged(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    hashed = large_upload(functions)
    s3, bucket = functions.on.clients.s3, functions.on.settings.upload_bucket
    for version in s3.list_object_versions(Bucket=bucket)["Versions"]:
        s3.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
    assert functions.deliver("match", hashed) == []
    assert functions.told("MatchFound") == []
    out = capsys.readouterr().out
    assert '"ContentPartlyMatched":[1.0]' in out
    assert "content_matched_in_part" in out


@pytest.mark.parametrize(
    ("content_key", "expected"),
    [
        ("s3://b/text/1#v1", ("text/1", "v1", "")),
        ("s3://b/a#b/1#v1", ("a#b/1", "v1", "")),
        ("s3://b/a#v1/1/12", ("a", "v1", "/1/12")),
        ("s3://b/a/7#v+/x=/1", ("a/7", "v+/x=", "/1")),
    ],
)
def test_a_content_key_names_its_object_and_the_place_in_it(content_key: str, expected: tuple[str, str, str]) -> None:
    found = hashed_object(content_key, "b")
    assert (found.key, found.version_id, found.place) == expected


@pytest.mark.parametrize("content_key", ["s3://other/a#v", "uploads/a#v", "s3://b/a", ""])
def test_a_key_of_another_bucket_is_never_read(content_key: str) -> None:
    with pytest.raises(InvalidInput, match="is not an object of the bucket 'b'"):
        hashed_object(content_key, "b")
