"""Reading the files that configurations point to."""

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from countermark.errors import InvalidInput, NotFound, Unavailable
from countermark.local.content import FileContentReader, add_lines
from tests.local.processes import without_rights_to


def read(uri: str) -> bytes:
    with FileContentReader().open(uri) as content:
        return content.read()


def test_the_home_directory_is_known_by_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "signals.txt").write_bytes(b"x")
    assert read("~/signals.txt") == b"x"
    with pytest.raises(InvalidInput, match="home directory"):
        read("~nobody_of_that_name/signals.txt")


def test_a_path_is_relative_to_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "signals.txt").write_bytes(b"x")
    (tmp_path / "link").symlink_to("signals.txt")
    assert read("signals.txt") == read("./link") == b"x"


@pytest.mark.parametrize("uri", ["s3://bucket/key", "https://example.com/x", "file:///etc/hosts", "S3://b/k"])
def test_a_url_is_refused_by_name(uri: str) -> None:
    with pytest.raises(InvalidInput, match=uri):
        read(uri)


def test_what_is_no_path_is_refused() -> None:
    for uri in ("", "a\0b"):
        with pytest.raises(InvalidInput, match="not the path of a file"):
            read(uri)


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for uri in (str(tmp_path), str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(InvalidInput, match="is not a file"):
            read(uri)


def test_a_missing_file_is_not_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("missing", "file/below", "broken"):
        with pytest.raises(NotFound, match=name):
            read(str(tmp_path / name))


def test_a_file_without_rights_to_it_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with without_rights_to(tmp_path), pytest.raises(Unavailable, match="access is denied"):
        read(str(tmp_path / "file"))
    with pytest.raises(Unavailable, match="File name too long"):
        read(str(tmp_path / ("x" * 300)))


def test_an_error_of_the_system_while_reading_is_translated(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    reading = FileContentReader().open(str(tmp_path / "file"))
    with pytest.raises(Unavailable, match="Bad file descriptor"), reading as content:
        os.pread(-1, 1, content.tell())


def test_lines_are_added_to_a_file_but_those_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "signals.txt"
    path.write_bytes(b"raw_text a\nraw_text b")
    path.chmod(0o640)
    assert add_lines(str(path), ["raw_text b", "raw_text ü", "raw_text ü"]) == ["raw_text ü"]
    assert add_lines(str(path), ["raw_text ü"]) == []
    assert path.read_text(encoding="utf-8") == "raw_text a\nraw_text b\nraw_text ü\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["signals.txt"]


def test_a_file_that_is_not_there_is_made_by_its_first_line(tmp_path: Path) -> None:
    assert add_lines(str(tmp_path / "new.txt"), ["a"]) == ["a"]
    assert (tmp_path / "new.txt").read_bytes() == b"a\n"


def test_lines_go_into_files_of_this_machine_alone(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="only files of this machine are written here, not 's3://b/k'"):
        add_lines("s3://b/k", ["a"])
    for place in (tmp_path, tmp_path / "none" / "signals.txt"):
        with pytest.raises(Unavailable, match="cannot be read or written"):
            add_lines(str(place), ["a"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """A directory whose files are offered, beside one with a secret; the working directory is that of both."""

    offered: Path
    secret: Path
    reader: FileContentReader

    def read(self, uri: str) -> bytes:
        with self.reader.open(uri) as content:
            return content.read()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    offered, secret, state = (tmp_path / name for name in ("offered", "offered-not", "offered/state"))
    for directory in (offered / "sub", secret, state):
        directory.mkdir(parents=True)
    for path in (offered / "signals.txt", offered / "sub" / "more.txt", secret / "secret.txt", state / "own.txt"):
        path.write_bytes(path.name.encode())
    (offered / "to secret").symlink_to(secret / "secret.txt")
    (offered / "to directory").symlink_to(secret)
    (offered / "to nothing").symlink_to(secret / "nothing")
    (offered / "to itself").symlink_to("to itself")
    (offered / "to a link").symlink_to("to secret")
    (offered / "within").symlink_to("sub/more.txt")
    (secret / "back").symlink_to(offered)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(offered))
    return Shelf(offered=offered, secret=secret, reader=FileContentReader(within=[Path("offered")], apart_from=[state]))


@pytest.mark.parametrize(
    "uri",
    [
        "offered/signals.txt",
        "./offered//signals.txt",
        "offered/sub/../signals.txt",
        "offered-not/../offered/signals.txt",
        "offered-not/back/signals.txt",
        "~/signals.txt",
        "{offered}/signals.txt",
        "/proc/self/cwd/offered/signals.txt",
        "{offered}/within",
        "{offered}/sub/more.txt",
    ],
)
def test_a_confined_reader_reads_what_lies_below_its_directory_links_resolved(shelf: Shelf, uri: str) -> None:
    uri = uri.format(offered=shelf.offered)
    shelf.reader.check(uri)
    assert shelf.read(uri) in {b"signals.txt", b"more.txt"}


OUTSIDE = [
    "offered-not/secret.txt",
    "offered-not/nothing",
    "offered",
    "offered/",
    "offered/.",
    "offered/../offered-not/secret.txt",
    "offered/../offered-not/nothing",
    "offered/nothing/../../offered-not/secret.txt",
    "offered/to secret",
    "offered/to a link",
    "offered/to nothing",
    "offered/to directory/secret.txt",
    "offered/to directory/nothing",
    "offered/state/own.txt",
    "offered/sub/../state/own.txt",
    "~/../offered-not/secret.txt",
    "~root/secret.txt",
    "~nobody_of_that_name/secret.txt",
    "{secret}/secret.txt",
    "/proc/self/cwd/offered-not/secret.txt",
    "/proc/self/environ",
    "/proc/self/root/etc/passwd",
    "/dev/stdin",
    "/dev/zero",
    "/dev/fd/0",
    "/etc/passwd",
    "/etc/nothing",
    "//etc/passwd",
    "file:///etc/passwd",
    "file://{offered}/signals.txt",
    "FILE:///etc/passwd",
    "s3://bucket/key",
    "OFFERED/signals.txt",
    " {offered}/signals.txt",
    "{offered} /signals.txt",
    "{offered}\0/signals.txt",
    "offered/signals.txt\0",
    "offered/\ud800",
    "\u2024\u2024/offered-not/secret.txt",
    "offered\u2215signals.txt",
    "",
    "/",
    ".",
    "..",
    "~",
]


@pytest.mark.parametrize("uri", OUTSIDE)
def test_a_confined_reader_refuses_everything_else_in_the_same_words(shelf: Shelf, uri: str) -> None:
    uri = uri.format(offered=shelf.offered, secret=shelf.secret)
    for work in (shelf.reader.check, shelf.read, partial(add_lines, lines=["a"], reader=shelf.reader)):
        with pytest.raises(InvalidInput) as refused:
            work(uri)
        told = str(refused.value).removeprefix(f"{uri!r} is ")
        assert told.startswith(("not below a directory that coll", "only files of this machine are"))
    assert (shelf.secret / "secret.txt").read_bytes() == b"secret.txt"
    assert not (shelf.secret / "nothing").exists()


@pytest.mark.parametrize("name", ["nothing", "signals.txt ", "SIGNALS.TXT", "signals.txt/below", "sub/nothing/below"])
def test_a_confined_reader_says_what_is_missing_below_its_directory(shelf: Shelf, name: str) -> None:
    with pytest.raises(NotFound):
        shelf.read(f"offered/{name}")


@pytest.mark.parametrize("name", ["to itself", "sub", "x" * 300])
def test_a_confined_reader_refuses_what_is_no_file_in_words(shelf: Shelf, name: str) -> None:
    with pytest.raises((InvalidInput, Unavailable)):
        shelf.read(f"offered/{name}")


def test_a_reader_confined_to_no_directory_reads_nothing(shelf: Shelf) -> None:
    for uri in ("offered/signals.txt", *OUTSIDE):
        with pytest.raises(InvalidInput):
            FileContentReader(within=[]).check(uri.format(offered=shelf.offered, secret=shelf.secret))


def test_a_confined_writer_adds_lines_below_its_directory(shelf: Shelf) -> None:
    assert add_lines("offered/sub/new.txt", ["a"], reader=shelf.reader) == ["a"]
    assert add_lines("offered/within", ["more.txt", "b"], reader=shelf.reader) == ["b"]
    assert (shelf.offered / "sub" / "more.txt").read_bytes() == b"more.txt\nb\n"


def test_a_link_that_is_swapped_in_between_check_and_opening_is_never_followed(shelf: Shelf) -> None:
    """A file and a directory on the way turn into links and back while they are opened."""
    done = threading.Event()
    file, directory = shelf.offered / "swapped.txt", shelf.offered / "swapped"
    real = shelf.offered / "real"
    real.mkdir()
    (real / "secret.txt").write_bytes(b"fine")

    def swap() -> None:
        spare, link = shelf.offered / "spare", shelf.offered / "link"
        while not done.is_set():
            for path, target, honest in (
                (file, shelf.secret / "secret.txt", real / "secret.txt"),
                (directory, shelf.secret, real),
            ):
                link.symlink_to(target)
                link.replace(path)
                spare.symlink_to(honest)
                spare.replace(path)

    swapper = threading.Thread(target=swap)
    swapper.start()
    read = set()
    try:
        for _ in range(2_000):
            for uri in (str(file), str(directory / "secret.txt")):
                with suppress(InvalidInput, NotFound, Unavailable):
                    read.add(shelf.read(uri))
    finally:
        done.set()
        swapper.join()
    assert read <= {b"fine"}
