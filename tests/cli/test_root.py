"""The command itself: help, version, state, how it ends, and what it imports."""

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import click
import pytest

import countermark as package
from countermark.cli.root import COMMANDS, HIDDEN, command
from countermark.cli.session import Session
from countermark.local.state import LocalState
from tests.cli.conftest import CommandLine


def commands(
    of: click.Command, context: click.Context, path: tuple[str, ...] = ()
) -> dict[tuple[str, ...], click.Command]:
    """Return every command below one, by the words that lead to it."""
    found = {path: of}
    if isinstance(of, click.Group):
        for name in of.list_commands(context):
            below = of.get_command(context, name)
            assert below is not None
            found |= commands(below, context, (*path, name))
    return found


ALL = commands(command, click.Context(command, obj=Session(directory=Path("unused"))))


def environment(state: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(state.parent), "COUNTERMARK_STATEDIR": str(state), **more}


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help_with_an_example(countermark: CommandLine, path: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        ran = countermark.ok(*path, flag)
        assert f"countermark {' '.join(path)}".strip() in ran.out
        assert f"  countermark {' '.join(path)}".rstrip() in ran.out
        assert ran.err == ""
        assert "...\n" not in ran.out.partition("Commands:")[2], "help in short is not cut off"
    assert not countermark.state.exists()


def test_the_short_help_names_every_command_that_there_is() -> None:
    modules = {path.stem for path in Path(package.__file__).parent.joinpath("cli").glob("*.py")}
    assert set(COMMANDS) <= modules
    assert {name for name, _ in HIDDEN.values()} <= set(COMMANDS)


def test_without_arguments_it_shows_its_help_as_the_peer_does(countermark: CommandLine) -> None:
    assert countermark.ok().out == countermark.ok("--help").out


def test_it_tells_its_version(countermark: CommandLine) -> None:
    assert countermark.ok("--version").out == f"countermark {package.__version__}\n"


@pytest.mark.parametrize("arguments", [["frob"], ["--frob"], ["bank", "frob"], ["bank"], ["key"], ["collab"]])
def test_an_unknown_command_is_the_users_mistake(countermark: CommandLine, arguments: list[str]) -> None:
    ran = countermark(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "Usage: countermark" in ran.err


def test_state_is_where_our_variable_says_else_the_peers_else_at_home(
    countermark: CommandLine, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TX_STATEDIR", str(tmp_path / "peer"))
    countermark.ok("bank", "create", "OURS")
    assert (tmp_path / "state" / "countermark.db").is_file()
    monkeypatch.delenv("COUNTERMARK_STATEDIR")
    countermark.ok("bank", "create", "PEERS")
    assert (tmp_path / "peer" / "countermark.db").is_file()
    monkeypatch.delenv("TX_STATEDIR")
    countermark.ok("bank", "create", "HOME")
    assert (home / ".countermark" / "countermark.db").is_file()
    assert countermark.ok("bank", "list").out == "HOME 1\n"
    monkeypatch.setenv("COUNTERMARK_STATEDIR", "~/elsewhere")
    countermark.ok("bank", "create", "THERE")
    assert (home / "elsewhere" / "countermark.db").is_file()


def test_a_state_directory_that_is_a_file_is_the_users_mistake(countermark: CommandLine) -> None:
    countermark.state.write_text("in the way")
    ran = countermark("bank", "list")
    assert (ran.code, ran.out) == (2, "")
    assert f"{countermark.state} is not a directory" in ran.err


def test_a_state_directory_that_cannot_be_made_is_something_outside(
    countermark: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COUNTERMARK_STATEDIR", str(tmp_path / "file" / "state"))
    ran = countermark("bank", "list")
    assert (ran.code, ran.out) == (3, "")
    assert "file/state" in ran.err


def test_a_state_directory_that_may_not_be_written_to_is_something_outside(countermark: CommandLine) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "countermark", "bank", "create", "A"],
        env=environment(Path("/proc/countermark")),
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "/proc/countermark cannot be read or written" in ran.stderr


def test_a_damaged_database_is_something_outside(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "A")
    for path in countermark.state.glob("countermark.db*"):
        path.write_bytes(b"not a database, but long enough to look like one" * 100)
    ran = countermark("bank", "list")
    assert (ran.code, ran.out) == (3, "")
    assert "countermark.db cannot be used" in ran.err


def test_a_fault_of_ours_is_one_line_and_more_on_request(
    countermark: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(*_: object) -> None:
        raise ZeroDivisionError("with a secret in it")

    monkeypatch.setattr(Session, "curator", explode)
    ran = countermark("bank", "create", "A")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "countermark: internal error: ZeroDivisionError; for a traceback: countermark -v …\n"
    with pytest.raises(AssertionError, match="Traceback"):
        countermark("-v", "bank", "create", "A")


def test_an_error_of_the_operating_system_is_something_outside(
    countermark: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(Session, "curator", explode)
    ran = countermark("bank", "create", "A")
    assert (ran.code, ran.err) == (3, "countermark: No space left on device: /somewhere\n")


def test_an_interrupt_within_a_command_gives_130(countermark: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "curator", interrupt)
    ran = countermark("bank", "create", "A")
    assert (ran.code, ran.err) == (130, "countermark: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_130_and_without_a_traceback(tmp_path: Path, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "countermark", "hash", "video", "-"],
        env=environment(tmp_path / "state"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        # Once the pipe was emptied the command runs, and waits for more: a pipe holds 64 KiB.
        process.stdin.write(b"x" * 1024 * 1024)
        process.stdin.flush()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"countermark: interrupted\n")


def test_an_interrupted_fetch_lets_go_of_its_lease_and_goes_on_later(
    countermark: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "shared.txt").write_text("".join(f"raw_text number {number}\n" for number in range(1_500)))
    countermark.ok("config", "collab", "edit", "local_file", "--filename", "shared.txt", "Shared", "--create")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("countermark.local.banks.SqliteBankStore.put_contents", interrupt)
        assert countermark("fetch").code == 130
    assert "(1500 changed)" in countermark.ok("fetch").err


def test_a_reader_that_leaves_early_is_no_failure(tmp_path: Path) -> None:
    hashes = tmp_path / "hashes.txt"
    hashes.write_text("".join(f"{number:064x}\n" for number in range(20_000)))
    script = f"""
        set -o pipefail
        countermark() {{ "{sys.executable}" -m countermark "$@"; }}
        countermark bank create MINE &&
        countermark -q bank add MINE photo -S pdq -H hashes.txt --skip-index-rebuild | head -n 1 &&
        countermark bank show MINE | head -n 1
    """
    ran = subprocess.run(
        ["bash", "-c", script], env=environment(tmp_path / "state"), cwd=tmp_path, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[0] == f"1 pdq {0:064x}"
    assert ran.stdout.splitlines()[1].startswith("20000 enabled"), "what was asked for is done to the end"


def test_results_that_cannot_be_written_are_something_outside(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "countermark", "hash", "text", "--", "words"],
            env=environment(tmp_path / "state"),
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert ran.returncode == 3
    assert ran.stderr == b"countermark: the results could not be written: No space left on device\n"


def test_closed_streams_are_no_fault_of_ours(tmp_path: Path) -> None:
    script = f'"{sys.executable}" -m countermark hash text {{0}}; echo $? >code'
    for arguments, code in (("-- words >&- 2>&-", "0"), ("- <&- >&- 2>&-", "2"), ("- <&-", "2")):
        subprocess.run(
            ["sh", "-c", script.format(arguments)], env=environment(tmp_path / "state"), cwd=tmp_path, timeout=60
        )
        assert (tmp_path / "code").read_text().strip() == code, arguments


def test_progress_and_notes_do_not_run_into_each_other_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "countermark", "fetch"],
            env=environment(tmp_path / "state", TERM="xterm", COLUMNS="200"),
            stdin=subprocess.DEVNULL,
            stderr=theirs,
            check=True,
            timeout=60,
        )
        shown = os.read(ours, 64 * 1024).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "\x1b" in shown
    last = shown.rstrip().splitlines()[-1]
    assert last.rpartition("\x1b[2K")[2].startswith("Index ready: pdq, ")


def test_a_name_that_is_no_unicode_is_shown_with_escapes(tmp_path: Path) -> None:
    name = b"b\xe4d.png"
    (Path(os.fsdecode(bytes(tmp_path) + b"/" + name))).write_bytes(b"not a photo")
    ran = subprocess.run(
        [sys.executable, "-m", "countermark", "hash", "photo", "-S", "pdq", name],
        env=environment(tmp_path / "state", PYTHONUTF8="1"),
        cwd=tmp_path,
        capture_output=True,
    )
    assert ran.returncode == 2
    assert b"b\\udce4d.png: no pdq signal" in ran.stderr


def test_results_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "countermark", "hash", "text", "--", "smörgås"],
        env=environment(tmp_path / "state", PYTHONIOENCODING="ascii", PYTHONUTF8="1"),
        capture_output=True,
    )
    assert (ran.returncode, ran.stdout) == (0, b"raw_text sm\\xf6rg\\xe5s\n")


def test_a_factory_reset_removes_the_state_when_one_is_sure(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    ran = countermark("--factory-reset", stdin=b"n\n")
    assert (ran.code, "nothing was removed" in ran.err) == (2, True)
    assert countermark.state.exists()
    countermark.ok("--factory-reset", stdin=b"y\n")
    assert not countermark.state.exists()
    countermark.ok("fetch")
    assert f"removed the state in {countermark.state}" in countermark.ok("--factory-reset", "--yes").err
    assert not countermark.state.exists()
    assert "no state at" in countermark.ok("--factory-reset").err


def test_a_factory_reset_needs_an_answer(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    ran = countermark("--factory-reset")
    assert (ran.code, "confirm with --yes" in ran.err) == (2, True)


def test_a_factory_reset_removes_nothing_that_is_not_ours(countermark: CommandLine) -> None:
    countermark.state.mkdir()
    (countermark.state / "thesis.txt").write_text("years of work")
    ran = countermark("--factory-reset", "--yes")
    assert (ran.code, "holds no state of countermark" in ran.err) == (2, True)
    assert (countermark.state / "thesis.txt").exists()


def test_a_factory_reset_leaves_a_database_of_another_program(countermark: CommandLine) -> None:
    countermark.state.mkdir()
    database = countermark.state / "countermark.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE of_others (x)")
    before = database.read_bytes()
    assert countermark("bank", "list").code != 0
    ran = countermark("--factory-reset", "--yes")
    assert (ran.code, f"the database {database} is not countermark's" in ran.err) == (2, True)
    assert database.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index/index.html", "<html>"),
        ("index", "a file"),
        ("credentials.json", '["a list"]'),
        ("extensions.json", "{}"),
    ],
)
def test_names_that_others_use_as_well_are_no_sign_of_countermark(
    countermark: CommandLine, name: str, content: str
) -> None:
    path = countermark.state / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    ran = countermark("bank", "create", "A")
    assert (ran.code, "holds something else" in ran.err) == (2, True)
    assert [each for each in countermark.state.rglob("*") if each.is_file()] == [path]


def test_a_factory_reset_stands_alone(countermark: CommandLine) -> None:
    ran = countermark("--factory-reset", "--yes", "fetch")
    assert (ran.code, "--factory-reset cannot be combined with a command" in ran.err) == (2, True)


def peers_state(directory: Path) -> dict[Path, bytes]:
    """Lay python-threatexchange's state into a directory, and return its files."""
    files = {
        "config.json": b'{"collabs": ["mine"]}',
        "credentials.json": b'{"installed": {"redirect_uris": ["x"]}}',
        "extensions.json": b'{"not": "ours"}',
        "fetched_state/mine.json": b"[]",
        "indices/pdq.index": b"pickled",
        "index/manifest": b"another program's",
        "index/segments/pdq/notes.txt": b"another program's",
    }
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return {directory / name: data for name, data in files.items()}


@pytest.mark.parametrize("variable", ["TX_STATEDIR", "COUNTERMARK_STATEDIR"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["fetch"],
        ["bank", "create", "A"],
        ["match", "text", "--", "bball now?"],
        ["config", "collab", "list"],
        ["config", "extensions", "add", "countermark.extensions.vpdq"],
        ["index"],
        ["--factory-reset", "--yes"],
    ],
)
def test_no_state_is_laid_into_a_directory_that_holds_something_else(
    countermark: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, arguments: list[str]
) -> None:
    files = peers_state(tmp_path / "peer")
    monkeypatch.delenv("COUNTERMARK_STATEDIR")
    monkeypatch.setenv(variable, str(tmp_path / "peer"))
    ran = countermark(*arguments)
    assert (ran.code, str(tmp_path / "peer") in ran.err) == (2, True)
    assert "--factory-reset" in arguments or "COUNTERMARK_STATEDIR" in ran.err
    assert {path: path.read_bytes() for path in (tmp_path / "peer").rglob("*") if path.is_file()} == files


def test_a_folder_of_samples_may_hold_the_state_and_keeps_its_samples(
    countermark: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = {name: name.encode() for name in ("photo.JPG", "clip.mp4", "signals.txt", "table.csv")}
    folder = tmp_path / "samples"
    folder.mkdir()
    for name, data in samples.items():
        (folder / name).write_bytes(data)
    monkeypatch.setenv("COUNTERMARK_STATEDIR", str(folder))
    refused = countermark("--factory-reset", "--yes")
    assert (refused.code, "holds no state" in refused.err) == (2, True)
    countermark.ok("bank", "create", "A")
    countermark.ok("--factory-reset", "--yes")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == samples


@pytest.mark.parametrize("name", ["notes.json", "state.pickle", ".profile", "app.py", "x.sqlite", "photos.d"])
def test_one_file_of_another_program_keeps_the_state_out(
    countermark: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "photo.jpg").write_bytes(b"")
    (folder / name).write_bytes(b"{}")
    monkeypatch.setenv("COUNTERMARK_STATEDIR", str(folder))
    refused = countermark("bank", "create", "A")
    assert (refused.code, repr(name) in refused.err) == (2, True)
    assert sorted(path.name for path in folder.iterdir()) == sorted([name, "photo.jpg"])


def test_what_needs_no_state_works_beside_the_peers(
    countermark: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers_state(tmp_path / "peer")
    monkeypatch.delenv("COUNTERMARK_STATEDIR")
    monkeypatch.setenv("TX_STATEDIR", str(tmp_path / "peer"))
    assert countermark.ok("hash", "text", "-S", "raw_text", "--", "words").out == "raw_text words\n"


def test_a_factory_reset_removes_what_countermark_made_and_nothing_else(
    countermark: CommandLine, tmp_path: Path
) -> None:
    countermark.ok("fetch")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "manifest.json").write_text("{}")
    (outside / ("0" * 64 + ".segment")).write_text("")
    state = countermark.state
    for path in (state / "index" / "segments" / "pdq").iterdir():
        assert path.suffix == ".segment"
    files = peers_state(state)
    (state / "countermark.db.bak").write_text("the user's own copy")
    (state / "countermark.db-journal").symlink_to(outside / "manifest.json")
    (state / "index" / "segments" / "linked").symlink_to(outside)
    before = {path: path.read_bytes() for path in outside.iterdir()}
    ran = countermark.ok("--factory-reset", "--yes")
    left = {str(path.relative_to(state)) for path in state.rglob("*") if not path.is_dir() or path.is_symlink()}
    theirs = {str(path.relative_to(state)) for path in files}
    assert left == theirs | {"countermark.db.bak", "countermark.db-journal", "index/segments/linked"}
    assert {path: path.read_bytes() for path in files} == files
    assert {path: path.read_bytes() for path in outside.iterdir()} == before
    for name in ("'config.json'", "'countermark.db.bak'", "'index/segments/pdq/notes.txt'", "'index/manifest'"):
        assert name in ran.err


def test_a_factory_reset_leaves_a_linked_directory_in_its_place(
    countermark: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("COUNTERMARK_STATEDIR", str(tmp_path / "link"))
    countermark.ok("bank", "create", "A")
    countermark.ok("--factory-reset", "--yes")
    assert list((tmp_path / "real").iterdir()) == []
    assert (tmp_path / "link").is_symlink()
    countermark.ok("bank", "create", "A")


def test_a_factory_reset_waits_for_no_one_who_uses_the_state(countermark: CommandLine) -> None:
    countermark.ok("bank", "create", "A")
    with LocalState.open(countermark.state):
        ran = countermark("--factory-reset", "--yes")
        assert (ran.code, "stop it first" in ran.err) == (2, True)
    assert countermark.ok("bank", "list").out == "A 1\n"
    countermark.ok("--factory-reset", "--yes")
    assert not countermark.state.exists()


def test_a_state_that_lost_its_database_is_still_a_state(countermark: CommandLine) -> None:
    countermark.ok("fetch")
    for path in countermark.state.glob("countermark.db*"):
        path.unlink()
    countermark.ok("bank", "create", "A")


def test_a_volume_that_is_empty_but_for_what_its_file_system_made_is_taken(countermark: CommandLine) -> None:
    (countermark.state / "lost+found").mkdir(parents=True)
    countermark.ok("bank", "create", "A")


HEAVY = {"numpy", "faiss", "PIL", "boto3", "botocore", "rapidfuzz", "pydantic", "aws_lambda_powertools", "urllib3"}
HEAVY |= {"rich", "uvicorn", "asyncio", "pdqhash"}


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["fetch", "--help"], set()),
        (["match", "--help"], set()),
        (["serve", "--help"], set()),
        (["bank", "list"], set()),
        (["config", "collab", "list"], set()),
        (["hash", "video", "-"], set()),
        (["hash", "text", "--", "words"], set()),
        (["match", "text", "--", "bball now?"], {"numpy", "rapidfuzz"}),
    ],
)
def test_a_command_imports_only_what_it_needs(
    tmp_path: Path, countermark: CommandLine, arguments: list[str], allowed: set[str]
) -> None:
    countermark.ok("fetch")
    script = (
        "import json, sys; from countermark.cli.root import run; code = run(sys.argv[1:]);"
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment(countermark.state),
        capture_output=True,
        text=True,
        input="some bytes",
    )
    code, modules = json.loads(ran.stderr.splitlines()[-1])
    assert code == 0, ran.stderr
    assert HEAVY.intersection(modules) <= allowed
