"""Content types of extensions: added, listed, and taken by every command that takes content."""

import json
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.extensions.boxes import box
from tests.signals.photos import photo as photo_of
from tests.signals.photos import saved

LETTERS = "tests.extensions.letters"
PICTURE = saved(photo_of("coffee.png").resize((256, 256)), "PNG")


def letter(text: str, *attached: bytes, forwards: EmailMessage | None = None) -> EmailMessage:
    """Return an e-mail with pictures, and one that it passes on."""
    made = EmailMessage()
    made["From"] = "someone@example.com"
    made.set_content(text)
    for each in attached:
        made.add_attachment(each, maintype="application", subtype="octet-stream")
    if forwards is not None:
        made.add_attachment(forwards)
    return made


@pytest.fixture
def added(countermark: CommandLine) -> CommandLine:
    countermark.ok("config", "extensions", "add", LETTERS)
    return countermark


@pytest.fixture
def mail(home: Path) -> Path:
    """A letter with a picture, and another letter within it."""
    path = home / "mail.eml"
    path.write_bytes(letter("bball now?", PICTURE, forwards=letter("other words")).as_bytes())
    return path


@pytest.mark.parametrize("kind", ["letter", "file"])
def test_workers_load_the_extension_too(added: CommandLine, home: Path, mail: Path, kind: str) -> None:
    for number in range(5):
        (home / f"{number}.eml").write_bytes(letter(f"words {number}", PICTURE).as_bytes())
    names = [*(f"{number}.eml" for number in range(5)), "mail.eml"]
    one = added("hash", kind, "--json", "--jobs", "1", *names)
    many = added("hash", kind, "--json", "--jobs", "3", *names)
    assert len(one.lines) > len(names)
    assert (many.code, many.out, many.err) == (one.code, one.out, one.err)


def test_it_is_told_of_when_it_is_added_and_listed(countermark: CommandLine) -> None:
    ran = countermark.ok("config", "extensions", "add", LETTERS)
    assert ran.lines == ["Signal:", "  letter_sha256 - DigestType", "Content:", "  letter - Letter"]
    assert countermark.ok("config", "extensions", "list", LETTERS).lines == ran.lines
    assert "letter tests.extensions.letters.Letter" in countermark.ok("config", "content").lines


@pytest.mark.parametrize("command", [["hash"], ["match"], ["bank", "add"], ["label"]])
def test_help_names_the_content_types_that_are_installed(countermark: CommandLine, command: list[str]) -> None:
    assert "CONTENT is photo, video, text, url or file." in countermark.ok(*command, "--help").out
    countermark.ok("config", "extensions", "add", LETTERS)
    assert "CONTENT is photo, video, text, url, file or letter." in countermark.ok(*command, "--help").out


def test_help_is_there_even_where_an_extension_is_broken(countermark: CommandLine, home: Path) -> None:
    countermark.state.mkdir()
    (countermark.state / "extensions.json").write_text('["ext_gone"]')
    assert "CONTENT is photo, video, text, url or file." in countermark.ok("hash", "--help").out


def test_what_is_not_installed_is_told_with_what_is(countermark: CommandLine, mail: Path) -> None:
    ran = countermark("hash", "letter", mail)
    assert ran.code == 2
    assert "'letter' is not one of 'photo', 'video', 'text', 'url', 'file'." in ran.err


def test_it_is_hashed_with_all_that_lies_within(added: CommandLine, mail: Path) -> None:
    types = [line.split()[0] for line in added.ok("hash", "letter", mail).lines]
    assert types == ["letter_sha256", "raw_text", "pdq", "photo_md5", "photo_sha256", "letter_sha256", "raw_text"]
    assert added.ok("hash", "letter", mail, "-S", "raw_text").lines == ["raw_text bball now?", "raw_text other words"]
    assert added.ok("hash", "letter", "-", "-S", "raw_text", stdin=mail.read_bytes()).lines == [
        "raw_text bball now?",
        "raw_text other words",
    ]


def test_a_file_is_told_by_its_bytes_or_its_name(added: CommandLine, mail: Path, home: Path) -> None:
    (home / "without.name").write_bytes(b"Received: by us\n" + mail.read_bytes())
    for name in ("mail.eml", "without.name"):
        assert added.ok("hash", "file", name, "-S", "raw_text").lines == ["raw_text bball now?", "raw_text other words"]


def test_a_signal_type_that_there_is_not_is_refused(added: CommandLine, mail: Path) -> None:
    ran = added("hash", "letter", mail, "-S", "pdqq")
    assert (ran.code, "pdqq" in ran.err) == (2, True)


def test_it_is_matched_by_what_lies_within(added: CommandLine, mail: Path, home: Path) -> None:
    (home / "picture.png").write_bytes(PICTURE)
    added.ok("bank", "create", "KNOWN")
    added.ok("bank", "add", "KNOWN", "photo", "picture.png", "-S", "pdq")
    added.ok("bank", "add", "KNOWN", "text", "-S", "raw_text", "--", "other words")
    assert added.ok("match", "letter", mail).lines == [
        "pdq 0 (KNOWN) POSITIVE_CLASS",
        "raw_text 100% (KNOWN) POSITIVE_CLASS",
    ]
    printed = [json.loads(line) for line in added.ok("match", "letter", mail, "--json").lines]
    assert [(each["file"], each["signal_type"]) for each in printed] == [
        (f"{mail}/2", "pdq"),
        (f"{mail}/3/1", "raw_text"),
    ]
    turned = photo_of("coffee.png").resize((256, 256)).rotate(90)
    mail.write_bytes(letter("hello", saved(turned, "PNG")).as_bytes())
    assert added.ok("match", "letter", mail, "-S", "pdq").lines == []


def test_each_content_within_becomes_a_content_of_the_bank(added: CommandLine, mail: Path) -> None:
    added.ok("bank", "create", "KNOWN")
    added.ok("bank", "add", "KNOWN", "letter", mail, "-S", "raw_text", "--note", "from a letter")
    shown = added.ok("bank", "show", "KNOWN").lines
    assert [line.split(" ", 2)[2] for line in shown] == ["raw_text:other words", "raw_text:bball now?"]
    assert added.ok("match", "text", "--", "other words").lines == ["raw_text 100% (KNOWN) POSITIVE_CLASS"]


def test_a_collaboration_is_told_of_what_lies_within(added: CommandLine, mail: Path, home: Path) -> None:
    (home / "signals.txt").write_text("raw_text known\n")
    added.ok("config", "collab", "edit", "local_file", "--filename", "signals.txt", "C", "--create", "--write-back")
    added.ok("label", "C", "letter", mail, "-S", "raw_text")
    assert (home / "signals.txt").read_text().splitlines()[1:] == ["raw_text bball now?", "raw_text other words"]


def test_the_dataset_is_narrowed_by_it(added: CommandLine, mail: Path) -> None:
    added.ok("bank", "create", "KNOWN")
    added.ok("bank", "add", "KNOWN", "letter", mail)
    assert added.ok("dataset", "-C", "letter").lines == ["letter_sha256: 2"]


def test_what_cannot_be_opened_is_told_after_the_others_were_hashed(added: CommandLine, mail: Path, home: Path) -> None:
    (home / "broken.eml").write_bytes(b"no header at all")
    ran = added("hash", "letter", "broken.eml", mail, "-S", "raw_text")
    assert (ran.code, ran.lines) == (2, ["raw_text bball now?", "raw_text other words"])
    assert "broken.eml: not opened in full: it has no header From, so it is not an e-mail" in ran.err


def test_a_part_that_is_of_no_known_type_is_told_by_its_place(added: CommandLine, home: Path) -> None:
    (home / "mail.eml").write_bytes(letter("words", b"unknown").as_bytes())
    ran = added("hash", "letter", "mail.eml", "-S", "raw_text")
    assert (ran.code, ran.lines) == (2, ["raw_text words"])
    assert "mail.eml/2: not opened in full: neither a photo nor a video" in ran.err


def test_one_that_holds_parts_needs_no_signal_type_of_its_own(
    countermark: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ext_only_boxes.py").write_text(
        "from countermark.extensions import Manifest\n"
        "from tests.extensions.boxes import Box\n"
        "COUNTERMARK_MANIFEST = Manifest(content_types=(Box(),))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert countermark.ok("config", "extensions", "add", "ext_only_boxes").lines == ["Content:", "  box - Box"]
    (home / "a.box").write_bytes(box(("text", "one")))
    ran = countermark.ok("hash", "box", "a.box", "-S", "raw_text")
    assert (ran.lines, ran.err) == (["raw_text one"], "")
    ran = countermark("match", "box", "-H", "a.box")
    assert (ran.code, "box has no signal type" in ran.err) == (2, True)


def test_when_it_is_removed_its_content_is_known_no_more(added: CommandLine, mail: Path) -> None:
    added.ok("config", "extensions", "remove", LETTERS)
    assert added("hash", "letter", mail).code == 2
    assert "letter" not in added.ok("config", "content").out
