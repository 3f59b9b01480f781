"""Reading the files that configurations point to."""

import os
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
