"""`countermark key`."""

import re
from pathlib import Path

import pytest

from countermark.domain.api_key import Role, digest
from countermark.local.state import LocalState
from tests.cli.conftest import CommandLine


def test_a_key_is_printed_once_and_only_its_digest_is_stored(countermark: CommandLine) -> None:
    ran = countermark.ok("key", "create", "console", "--role", "match", "--role", "curate")
    key = ran.out.strip()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", key)
    assert key not in ran.err
    with LocalState.open(countermark.state) as state:
        stored = state.api_keys.find_key(digest(key))
    assert stored is not None
    assert stored.name == "console"
    assert stored.roles == {Role.MATCH, Role.CURATE}
    kept = b"".join(path.read_bytes() for path in countermark.state.rglob("*") if path.is_file())
    assert key.encode() not in kept


def test_keys_are_listed_without_their_text(countermark: CommandLine) -> None:
    key = countermark.ok("key", "create", "console", "--role", "match", "--role", "curate").out.strip()
    listed = countermark.ok("key", "list").out
    assert re.fullmatch(r"console curate,match \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", listed)
    assert key not in listed


def test_a_deleted_key_is_gone(countermark: CommandLine) -> None:
    key = countermark.ok("key", "create", "console", "--role", "admin").out.strip()
    countermark.ok("key", "delete", "console")
    assert countermark.ok("key", "list").out == ""
    with LocalState.open(countermark.state) as state:
        assert state.api_keys.find_key(digest(key)) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "console"], "Missing option '--role'"),
        (["create", "console", "--role", "king"], "'king' is not one of"),
        (["create", "known", "--role", "match"], "there is a key 'known'"),
        (["create", "local:root@host", "--role", "match"], "must not begin with local: or stage:, as 'local:root@"),
        (["create", "stage:fetch", "--role", "match"], "must not begin with local: or stage:"),
        (["create", " ", "--role", "match"], "a key's name must have 1 to 100 printable characters"),
        (["create", "x" * 101, "--role", "match"], "1 to 100"),
        (["create", "a\nb", "--role", "match"], "printable"),
        (["delete", "unknown"], "no such key 'unknown'"),
    ],
)
def test_a_mistake_of_the_user_is_told_with_exit_code_2(
    countermark: CommandLine, arguments: list[str], message: str, home: Path
) -> None:
    countermark.ok("key", "create", "known", "--role", "match")
    ran = countermark("key", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
