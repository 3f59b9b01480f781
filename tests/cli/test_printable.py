"""What reaches a terminal is printable, on every command and on both streams; JSON stays JSON."""

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.cli import output, serve
from countermark.domain.api_key import ApiKey, Role
from countermark.domain.bank import ContentDraft
from countermark.domain.collaboration import Collaboration
from countermark.domain.signal import Signal
from countermark.local.state import LocalState
from tests.cli.conftest import CommandLine

HOSTILE = (
    "a\x1b[31mred\x1b]0;title\x07 b\x9b2Jc\x7f\x08\x08 d\r\u202egnp.exe\u202c \u2066x\u2069\u200f "
    "e\u2028f\u2029g\x85h\u061c\ni\tj"
)
"""What a terminal acts on, or shows as something else than it is."""

ACTED_ON = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]"
)

ORDINARY = "Grüße 世界 👩‍👩‍👧 é é नमस्ते \u00a0 🏴\U000e0067\U000e0062\U000e007f \\x1b"


def test_ordinary_text_stays_as_it_is() -> None:
    assert output.printable(ORDINARY) == ORDINARY


@given(st.text(st.characters()))
def test_a_printable_text_is_one_line_without_anything_that_a_terminal_acts_on(text: str) -> None:
    shown = output.printable(text)
    assert not ACTED_ON.search(shown)
    assert shown.splitlines() in ([shown], [])
    assert "\t" not in shown
    assert output.printable(shown) == shown


@given(st.recursive(st.text(st.characters()), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_is_printable_and_says_the_same(value: object) -> None:
    for indent in (None, 2):
        text = output.json_text(value, indent=indent)
        assert json.loads(text) == value
        assert not ACTED_ON.search(text)


def test_json_is_valid_where_the_stream_cannot_encode_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stream)
    output.print_result(output.json_text({"a": ORDINARY + HOSTILE}))
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    assert json.loads(buffer.getvalue().decode("latin-1")) == {"a": ORDINARY + HOSTILE}


@pytest.fixture
def hostile(countermark: CommandLine, home: Path) -> CommandLine:
    """A state, and files, whose every text is hostile."""
    with LocalState.open(countermark.state) as state:
        bank = state.banks.create_bank("BANK", ratio=1.0)
        for number, name in enumerate(("raw_text", "url", "trend_query")):
            state.banks.add_content(
                bank.id,
                ContentDraft(
                    signals={name: HOSTILE},
                    note=HOSTILE,
                    metadata={HOSTILE: HOSTILE},
                    original_media_uri=HOSTILE,
                    source_key=f"{number}",
                ),
                now_s=1,
            )
        for api in ("local_file", HOSTILE, "ncmec"):
            state.collaborations.create_collaboration(
                Collaboration(name=f"{api} {HOSTILE}", api=api, bank=f"{api} {HOSTILE}", config={"filename": HOSTILE})
            )
        state.api_keys.put_key(ApiKey(digest="0", name=HOSTILE, roles=frozenset({Role.HASH}), created_at_s=1))
    name = HOSTILE.replace("/", "")
    (home / name).write_text(f"{HOSTILE}\n")
    (home / f"{name}.jpg").write_bytes(b"no photo")
    (home / os.fsdecode(b"\xff\x1b.txt")).write_bytes(b"words")
    return countermark


NAME = HOSTILE
WALK = [
    ["bank", "list"],
    ["bank", "show", "BANK"],
    ["bank", "show", NAME],
    ["bank", "create", NAME],
    ["bank", "delete", NAME],
    ["bank", "disable", "BANK", NAME],
    ["bank", "enable", "BANK", "--ratio", NAME],
    ["bank", "add", "BANK", "photo", f"{NAME}.jpg"],
    ["bank", "add", "BANK", "text", "-H", NAME],
    ["bank", "add", "BANK", NAME, NAME],
    ["dataset"],
    ["dataset", "-P"],
    ["dataset", "-P", "-S"],
    ["dataset", "-P", "--csv"],
    ["dataset", "-P", "-s", NAME],
    ["dataset", "-P", "-C", NAME],
    ["config", "collab", "list"],
    ["config", "collab", "show", f"local_file {NAME}"],
    ["config", "collab", "show", NAME],
    ["config", "collab", "delete", NAME],
    ["config", "collab", "edit", "local_file", "--filename", NAME, NAME, "--create"],
    ["config", "collab", "edit", "local_file", "--json", NAME],
    ["config", "collab", "edit", NAME],
    ["config", "extensions", "add", NAME],
    ["config", "extensions", "remove", NAME],
    ["config", "api", NAME],
    ["config", "signal", NAME],
    ["config", "content", NAME],
    ["fetch"],
    ["fetch", "--only-collab", NAME],
    ["fetch", "--only-api", NAME],
    ["-v", "fetch"],
    ["index"],
    ["-v", "index", "--full"],
    ["match", "text", "--", NAME],
    ["match", "text", NAME],
    ["match", "photo", f"{NAME}.jpg"],
    ["match", "photo", "nowhere" + NAME],
    ["match", NAME, NAME],
    ["hash", "text", "--", NAME],
    ["hash", "text", NAME],
    ["hash", "text", os.fsdecode(b"\xff\x1b.txt")],
    ["hash", "photo", f"{NAME}.jpg"],
    ["hash", "photo", "--photo-preprocess", "rotations", "--save-preprocess", f"{NAME}.jpg"],
    ["hash", "photo", "-S", NAME, f"{NAME}.jpg"],
    ["label", f"local_file {NAME}", "text", "--dry-run", "--", NAME],
    ["label", NAME, "text", "--", NAME],
    ["label", f"local_file {NAME}", "text", "-l", NAME, "--", NAME],
    ["key", "create", NAME, "--role", "match"],
    ["key", "create", "k", "--role", NAME],
    ["key", "delete", f"no {NAME}"],
    ["key", "list"],
    ["backup", NAME],
    ["restore", NAME + "nowhere"],
    ["serve", "--host", NAME],
    ["serve", "--files", NAME + "nowhere"],
    ["serve", "--port", NAME],
    [NAME],
    [f"--{NAME}"],
    ["bank", NAME],
    ["--factory-reset", "--yes", NAME],
]


@pytest.mark.parametrize("arguments", WALK, ids=lambda arguments: " ".join(arguments)[:24].encode("unicode_escape"))
def test_no_command_writes_what_a_terminal_acts_on(hostile: CommandLine, arguments: list[str]) -> None:
    ran = hostile(*arguments)
    assert not ACTED_ON.search(ran.out + ran.err)
    assert ran.out + ran.err


def test_what_is_asked_before_a_reset_is_printable(
    hostile: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERMARK_STATEDIR", str(home / f"state {HOSTILE}"))
    hostile.ok("bank", "create", "A")
    ran = hostile("--factory-reset", stdin=b"n\n")
    assert not ACTED_ON.search(ran.out + ran.err)
    assert "red" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["bank", "show", "BANK", "--json"],
        ["match", "text", "--json", "--", HOSTILE],
        ["hash", "text", "--json", "--", HOSTILE],
    ],
)
def test_json_of_a_command_is_valid_and_printable(hostile: CommandLine, arguments: list[str]) -> None:
    hostile("index")
    ran = hostile(*arguments)
    assert ran.lines
    for line in ran.lines:
        json.loads(line)
    assert not ACTED_ON.search(ran.out)


def test_what_a_server_logs_is_printable() -> None:
    formatter = serve._OneLineFormatter(shows_stack=True)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "%s", (HOSTILE,), sys.exc_info())
    record.error, record.error_id, record.stack = HOSTILE, HOSTILE, HOSTILE
    text = formatter.format(record)
    assert not ACTED_ON.search(text)
    assert "ValueError" in text


def test_progress_on_a_terminal_shows_a_name_in_printable_form(hostile: CommandLine, home: Path) -> None:
    """`rich` moves the cursor and colours: those sequences are its own, and none is of the name."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COUNTERMARK_STATEDIR": str(hostile.state), "TERM": "xterm", "COLUMNS": "1000"}
    with subprocess.Popen(
        [sys.executable, "-m", "countermark", "fetch"], env=environment, stderr=follower, stdout=subprocess.DEVNULL
    ) as process:
        os.close(follower)
        shown = _read_all(leader)
        process.wait(60)
    os.close(leader)
    assert rb"\x1b[31mred" in shown
    for raw in (b"\x1b[31m", b"\x1b]0;", b"\x07", "\u202e".encode(), "\x9b".encode()):
        assert raw not in shown


def _read_all(descriptor: int) -> bytes:
    shown = b""
    while True:
        try:
            some = os.read(descriptor, 65536)
        except OSError:  # how Linux says that nobody has the other end open
            return shown
        if not some:
            return shown
        shown += some


def test_a_signal_is_shown_on_one_line(hostile: CommandLine) -> None:
    lines = hostile.ok("dataset", "-P", "-s", "raw_text", "-S").lines
    assert len(lines) == 1
    assert r"a\x1b[31mred\x1b]0;title\x07 b\x9b2Jc\x7f\x08\x08" in lines[0]
    assert Signal(type="raw_text", value=HOSTILE).value not in lines[0]


def test_each_piece_of_content_that_went_wrong_has_a_line_of_its_own(hostile: CommandLine, home: Path) -> None:
    (home / "b\n.jpg").write_bytes(b"no photo")
    ran = hostile("hash", "photo", "-S", "pdq", "b\n.jpg", f"{HOSTILE}.jpg")
    assert ran.code == 2
    first, second = ran.err.splitlines()
    assert first.startswith(r"countermark: b\n.jpg: ")
    assert second.startswith(r"a\x1b[31mred")
