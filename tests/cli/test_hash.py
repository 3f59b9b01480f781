"""`countermark hash`."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from countermark.domain.signal import Partial
from countermark.local.state import LocalState
from countermark.signals.pdq import Pdq
from tests.cli.conftest import CommandLine

ROCKET = "pdq 8792786c87937064bf1bc0e43f1fc0e03f1cc2e33da4c2537cec821b2ce4f376"


def test_a_photo_gives_a_line_for_each_signal_type(countermark: CommandLine, photo: Callable[[str], Path]) -> None:
    rocket = photo("rocket.jpg")
    content = rocket.read_bytes()
    md5, sha256 = hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()
    lines = [ROCKET, f"photo_md5 {md5}", f"photo_sha256 {sha256}"]
    assert countermark.ok("hash", "photo", rocket).lines == lines
    assert countermark.ok("hash", "file", rocket).lines == lines


def test_one_signal_type_may_be_asked_for(countermark: CommandLine, photo: Callable[[str], Path]) -> None:
    assert countermark.ok("hash", "photo", "-S", "pdq", photo("rocket.jpg")).out == f"{ROCKET}\n"
    assert countermark.ok("hash", "photo", photo("rocket.jpg"), "--signal-type", "pdq").out == f"{ROCKET}\n"


def test_several_files_are_hashed_in_their_order(countermark: CommandLine, home: Path) -> None:
    (home / "a.mp4").write_bytes(b"a")
    (home / "b.mp4").write_bytes(b"b")
    assert countermark.ok("hash", "video", "-S", "video_md5", "a.mp4", "b.mp4", "a.mp4").lines == [
        "video_md5 0cc175b9c0f1b6a831c399e269772661",
        "video_md5 92eb5ffee6ae2fec3ad71c777531578f",
        "video_md5 0cc175b9c0f1b6a831c399e269772661",
    ]


def test_a_dash_is_standard_input(countermark: CommandLine) -> None:
    assert countermark.ok("hash", "video", "-", stdin=b"a").lines == [
        "video_md5 0cc175b9c0f1b6a831c399e269772661",
        f"video_sha256 {hashlib.sha256(b'a').hexdigest()}",
    ]


def test_words_after_two_dashes_are_the_content(countermark: CommandLine) -> None:
    assert countermark.ok("hash", "text", "--", "bball", "now?").out == "raw_text bball now?\n"
    assert countermark.ok("hash", "text", "--", "--help").out == "raw_text --help\n"
    assert countermark.ok("hash", "text", "--", "a", "--", "b").out == "raw_text a -- b\n"


def test_files_and_words_may_stand_together(countermark: CommandLine, home: Path) -> None:
    (home / "a.txt").write_text("from a file")
    assert countermark.ok("hash", "text", "a.txt", "--", "and words").lines == [
        "raw_text from a file",
        "raw_text and words",
    ]


def test_a_text_of_several_lines_is_one_line_of_results(countermark: CommandLine) -> None:
    assert countermark.ok("hash", "text", "-", stdin=b"one\ntwo\r\nthree\n").out == "raw_text one two three\n"


@pytest.mark.parametrize("text", ["smörgåsbord", "ここ", "a\N{PILE OF POO}"])
def test_text_and_names_may_be_of_any_script(countermark: CommandLine, home: Path, text: str) -> None:
    (home / f"{text}.txt").write_text(text, encoding="utf-8")
    assert countermark.ok("hash", "text", f"{text}.txt").out == f"raw_text {text}\n"
    assert countermark.ok("hash", "text", "--", text).out == f"raw_text {text}\n"


def test_too_plain_a_photo_gives_no_pdq_and_is_no_failure(countermark: CommandLine, home: Path) -> None:
    Image.new("RGB", (100, 100), "white").save(home / "plain.png")
    ran = countermark.ok("hash", "photo", "-S", "pdq", "plain.png")
    assert ran.out == ""
    assert "plain.png: no pdq signal: a quality of 0" in ran.err


def test_quiet_keeps_that_to_itself(countermark: CommandLine, home: Path) -> None:
    Image.new("RGB", (100, 100), "white").save(home / "plain.png")
    assert countermark.ok("--quiet", "hash", "photo", "-S", "pdq", "plain.png").err == ""


def test_a_file_that_is_no_photo_fails_after_the_others_were_hashed(
    countermark: CommandLine, home: Path, photo: Callable[[str], Path]
) -> None:
    (home / "broken.jpg").write_bytes(b"not a photo")
    ran = countermark("hash", "photo", "-S", "pdq", "broken.jpg", photo("rocket.jpg"))
    assert ran.code == 2
    assert ran.out == f"{ROCKET}\n"
    assert "countermark: broken.jpg: no pdq signal" in ran.err


def test_json_holds_each_signal_and_each_reason_for_none(
    countermark: CommandLine, home: Path, photo: Callable[[str], Path]
) -> None:
    (home / "broken.jpg").write_bytes(b"not a photo")
    Image.new("RGB", (100, 100), "white").save(home / "plain.png")
    ran = countermark("hash", "photo", "-S", "pdq", "--json", "broken.jpg", photo("rocket.jpg").name, "plain.png")
    broken, rocket, plain = (json.loads(line) for line in ran.lines)
    assert ran.code == 2
    assert rocket == {"file": "rocket.jpg", "type": "pdq", "signal": ROCKET.removeprefix("pdq ")}
    assert (broken.pop("reason")[:11], broken) == (
        "not a photo",
        {"file": "broken.jpg", "type": "pdq", "signal": None, "unhashable": "damaged"},
    )
    assert (plain["signal"], plain["unhashable"]) == (None, "low_quality")


class Half:
    """PDQ of what is there of a photo that was cut in half."""

    def update(self, chunk: bytes) -> None:
        """Take nothing."""

    def finish(self) -> Partial[str]:
        return Partial(value="0f" * 32, reason="its last 50 of 100 rows are missing")


def test_a_partial_photo_is_hashed_matched_and_banked_and_that_is_said(
    countermark: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pdq, "hasher", lambda _: Half())
    (home / "cut.jpg").write_bytes(b"half a photo")
    note = "cut.jpg: the pdq signal is of a part of it: its last 50 of 100 rows are missing"
    hashed = countermark.ok("hash", "photo", "-S", "pdq", "cut.jpg")
    assert (hashed.out, hashed.err.splitlines()) == (f"pdq {'0f' * 32}\n", [note])
    [line] = countermark.ok("hash", "photo", "-S", "pdq", "--json", "cut.jpg").lines
    assert json.loads(line)["partial"] == "its last 50 of 100 rows are missing"
    countermark.ok("bank", "create", "MINE")
    banked = countermark.ok("bank", "add", "MINE", "photo", "cut.jpg")
    assert note in banked.err
    matched = countermark.ok("match", "photo", "cut.jpg", "--json")
    by_type = {each["signal_type"]: each for each in map(json.loads, matched.lines)}
    assert by_type["pdq"]["partial"] == "its last 50 of 100 rows are missing"
    assert "partial" not in by_type["photo_md5"]
    assert note in matched.err
    assert countermark.ok("--quiet", "match", "photo", "cut.jpg").err == ""


@pytest.mark.parametrize("command", ["hash", "match"])
def test_one_file_that_cannot_be_read_leaves_none_of_the_others_out(
    countermark: CommandLine, home: Path, photo: Callable[[str], Path], command: str
) -> None:
    rocket = photo("rocket.jpg").name
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", "-S", "pdq", rocket)
    away, unsafe = "http://countermark.invalid/a.jpg", "http://127.0.0.1/a.jpg"
    ran = countermark(command, "photo", "-S", "pdq", away, unsafe, rocket)
    assert (ran.code, len(ran.lines)) == (2, 1)
    assert f"{away}: Failed to fetch URL" in ran.err
    assert f"{unsafe}: " in ran.err
    ran = countermark(command, "photo", "-S", "pdq", away, rocket, "--photo-preprocess", "rotations")
    assert (ran.code, bool(ran.lines), away in ran.err) == (3, True, True)


def test_hashing_leaves_no_state_behind(countermark: CommandLine) -> None:
    countermark.ok("hash", "text", "--", "words")
    assert not countermark.state.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo"], "no content: add a file, a URL, - for standard input, or words after --"),
        (["text", "--"], "no content: add a file, a URL"),
        (["photo", "missing.jpg"], "no such file: missing.jpg"),
        (["photo", "."], ". is a directory"),
        (["photo", "nul\0byte"], "nul"),
        (["photo", "x" * 5_000], "File name too long"),
        (["video", "-", "-"], "use - only once"),
        (["painting", "a.jpg"], "'painting' is not one of 'photo', 'video', 'text', 'url', 'file'"),
        (["text", "-S", "zzz", "--", "a"], "No such SignalType 'zzz'"),
        (["text", "-S", "pdq", "--", "a"], "pdq does not apply to text"),
        (["photo", "http://127.0.0.1/a.jpg"], "countermark: "),
        (["photo", "http://169.254.169.254/latest/meta-data"], "countermark: "),
        (["photo", "http://["], "countermark: "),
        (["--frob", "photo"], "No such option"),
        ([], "Missing argument 'CONTENT'"),
    ],
)
def test_a_mistake_of_the_user_is_told_with_exit_code_2(
    countermark: CommandLine, arguments: list[str], message: str
) -> None:
    ran = countermark("hash", *arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert message in ran.err


def test_a_file_that_may_not_be_read_is_the_users_matter(countermark: CommandLine, home: Path) -> None:
    (home / "loop").symlink_to("loop")
    ran = countermark("hash", "photo", "loop")
    assert ran.code == 2
    assert "loop" in ran.err


def test_a_url_whose_host_does_not_answer_is_something_outside(countermark: CommandLine) -> None:
    ran = countermark("hash", "photo", "http://countermark.invalid/a.jpg")
    assert ran.code == 3
    assert "Failed to fetch URL" in ran.err


def test_words_that_are_no_utf8_are_the_users_mistake(countermark: CommandLine) -> None:
    ran = countermark("hash", "text", "-", stdin=b"\xff\xfe\xfa")
    assert ran.code == 2
    assert "standard input: no raw_text signal: not a text in UTF-8" in ran.err


def test_a_url_is_hashed_as_it_stands_and_by_its_digest(countermark: CommandLine) -> None:
    digest = hashlib.md5(b"example.com/a").hexdigest()
    assert countermark.ok("hash", "url", "--", "https://Example.com/a").lines == [
        "url https://Example.com/a",
        f"url_md5 {digest}",
    ]


def test_a_file_is_hashed_as_what_its_bytes_are(countermark: CommandLine, home: Path) -> None:
    (home / "photo.jpg").write_bytes(b"\x00\x00\x00\x18ftypmp42 and so on")
    (home / "notes.txt").write_bytes(b"some words")
    ran = countermark("hash", "file", "-S", "video_md5", "notes.txt", "photo.jpg")
    assert ran.code == 2
    assert ran.lines == [f"video_md5 {hashlib.md5((home / 'photo.jpg').read_bytes()).hexdigest()}"]
    assert "notes.txt: neither a photo nor a video: a .txt file" in ran.err


def test_a_type_that_is_never_made_from_content_gives_nothing(countermark: CommandLine) -> None:
    assert countermark.ok("hash", "text", "-S", "trend_query", "--", "bball now?").out == ""


def test_without_enabled_signal_types_a_note_says_so(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    for name in ("url", "url_md5"):
        with LocalState.open(countermark.state) as state:
            state.banks.set_signal_type_ratio(name, 0.0)
    ran = countermark.ok("hash", "url", "--", "https://example.com")
    assert (ran.out, ran.err) == ("", "no signal type makes signals from url\n")
