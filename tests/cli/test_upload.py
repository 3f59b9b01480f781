"""`countermark upload`: what a deployment does with its uploads, on this machine."""

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from countermark.domain.api_key import Role
from countermark.domain.decision import Lookup, MatchRequest, Policy
from countermark.domain.event import ContentHashed, MatchFound
from countermark.errors import Unavailable
from countermark.flows import match as match_stage
from countermark.local.state import LocalState
from tests.cli.conftest import CommandLine


@pytest.fixture
def rocket(countermark: CommandLine, photo: Callable[[str], Path]) -> Path:
    """A photo that is banked."""
    path = photo("rocket.jpg")
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", path, "--note", "a rocket")
    return path


def stored(countermark: CommandLine) -> tuple[list[ContentHashed], list[MatchFound]]:
    with LocalState.open(countermark.state) as state:
        events = state.publisher.events()
    hashed = [event for event in events if isinstance(event, ContentHashed)]
    return hashed, [event for event in events if isinstance(event, MatchFound)]


@pytest.mark.parametrize("kind", ["photo", "file"])
def test_an_upload_that_matches_is_published_once(countermark: CommandLine, rocket: Path, kind: str) -> None:
    ran = countermark.ok("upload", kind, "--content-id", "post-17", rocket)
    [hashed], [found] = stored(countermark)
    assert hashed.content_key == found.content_key
    assert hashed.content_key.startswith(f"{rocket.absolute().as_uri()}#")
    assert (hashed.content_id, found.content_id) == ("post-17", "post-17")
    assert "pdq" in {match["signal_type"] for match in found.matches}
    assert {(match["bank"], match["note"]) for match in found.matches} == {("MINE", "a rocket")}
    printed = json.loads(ran.out)
    assert (printed["id"], printed["matches"]) == (found.id, [dict(match) for match in found.matches])

    again = countermark.ok("upload", kind, rocket)
    assert (again.out, "uploaded before" in again.err) == ("", True)
    assert stored(countermark) == ([hashed], [found])


def test_a_file_of_the_same_name_size_and_time_is_another_upload(
    countermark: CommandLine, rocket: Path, home: Path
) -> None:
    before = rocket.stat()
    upload = home / "upload.jpg"
    upload.write_bytes(b"x" * before.st_size)
    os.utime(upload, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert countermark("upload", "photo", upload).code == 2
    shutil.copy2(rocket, upload)
    assert json.loads(countermark.ok("upload", "photo", upload).out)["matches"]


def test_a_pipe_is_no_upload(countermark: CommandLine) -> None:
    ran = countermark("upload", "photo", os.devnull)
    assert (ran.code, "a pipe or a device cannot be uploaded" in ran.err) == (2, True)
    assert stored(countermark) == ([], [])


def test_an_upload_that_matches_nothing_is_hashed_and_no_more(
    countermark: CommandLine, rocket: Path, photo: Callable[[str], Path]
) -> None:
    del rocket
    assert countermark.ok("upload", "photo", photo("chelsea.png")).out == ""
    hashed, found = stored(countermark)
    assert (len(hashed), found) == (1, [])


def test_a_lookup_publishes_nothing(countermark: CommandLine, rocket: Path) -> None:
    assert countermark.ok("match", "photo", rocket).out != ""
    assert stored(countermark) == ([], [])


def test_an_upload_that_could_not_be_matched_is_matched_when_it_is_repeated(
    countermark: CommandLine, rocket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise Unavailable("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(match_stage, "match_hashed", fail)
        ran = countermark("upload", "photo", rocket)
    assert (ran.code, ran.out) == (3, "")
    assert countermark.ok("upload", "photo", rocket).out != ""
    assert [len(events) for events in stored(countermark)] == [1, 1]


def test_a_file_that_could_not_be_looked_at_is_complained_of_after_the_others(
    countermark: CommandLine, rocket: Path, home: Path
) -> None:
    damaged = home / "damaged.jpg"
    damaged.write_bytes(b"no photo at all")
    ran = countermark("upload", "photo", damaged, rocket)
    assert ran.code == 2
    assert "damaged.jpg: no pdq: " in ran.err
    assert json.loads(ran.out)["content_key"].startswith(rocket.absolute().as_uri())


def test_a_text_that_is_too_long_for_an_event_is_read_again_from_its_file(countermark: CommandLine, home: Path) -> None:
    path = home / "post.txt"
    path.write_text(" ".join(f"word{number} pills" for number in range(30_000)))
    countermark.ok("bank", "create", "WORDS")
    query = b'{"and": [{"or": ["pills"]}], "not": []}'
    countermark.ok("bank", "add", "WORDS", "text", "-S", "trend_query", "-H", "-", stdin=query)
    countermark("upload", "text", path)
    [hashed], [found] = stored(countermark)
    assert "trend_query" in hashed.left_in_content
    assert [match["signal_type"] for match in found.matches] == ["trend_query"]


def test_what_matched_is_taken_from_uploads_and_lookups_alike(
    countermark: CommandLine, rocket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[MatchRequest, Sequence[Lookup]]] = []
    monkeypatch.setattr(LocalState, "on_match", staticmethod(lambda asked, found: calls.append((asked, found))))
    countermark.ok("upload", "photo", "--content-id", "post-17", rocket)
    countermark.ok("match", "photo", "--content-id", "post-17", rocket)
    countermark.ok("match", "photo", "-S", "pdq", "-H", "-", stdin=b"0f" * 32 + b"\n" + pdq_of(calls).encode())
    [(upload, uploaded), (lookup, looked_up), (batch, of_batch)] = calls
    assert list(uploaded) == list(looked_up)
    assert [each for each in uploaded if each.signal.type == "pdq"] == list(of_batch)
    assert [asked.source for asked, _ in calls] == ["upload", "lookup", "batch"]
    assert upload.policy == lookup.policy == Policy(content_id="post-17")
    [found] = stored(countermark)[1]
    assert (upload.event_id, upload.content_key) == (found.id, found.content_key)
    for asked in (upload, lookup, batch):
        assert re.fullmatch(r"local:.+@.+", asked.caller.key_id)
        assert asked.caller.roles == set(Role)


def pdq_of(calls: Sequence[tuple[MatchRequest, Sequence[Lookup]]]) -> str:
    return next(each.signal.value for each in calls[0][1] if each.signal.type == "pdq")
