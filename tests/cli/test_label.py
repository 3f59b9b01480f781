"""`countermark label`, and `config api`: each exchange over its real wire format, and no credentials anywhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from countermark.exchanges.graph_api import GRAPH_VERSION
from tests.cli.conftest import CommandLine
from tests.cli.exchanges import FLAGS, LINES, SECRETS, Exchanges, exchanges
from tests.exchanges.graph_api import APP_ID, GROUP, TOKEN, descriptor
from tests.exchanges.hash_sharing import REASON
from tests.exchanges.ncii_api import feedback
from tests.exchanges.server import status

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
NEAR = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b23"
MD5 = "b8d3f9a1c2e4f5061728394a5b6c7d8e"
KINDS = tuple(LINES)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchanges]:
    for variable in ("TX_ACCESS_TOKEN", "TX_NCMEC_CREDENTIALS", "TX_STOPNCII_KEYS", "PYTX_TAT_CREDENTIALS"):
        monkeypatch.delenv(variable, raising=False)
    with exchanges(monkeypatch) as made:
        yield made


def joined(countermark: CommandLine, network: Exchanges, kind: str, *flags: str) -> None:
    """Set the credentials of a kind, and create and fetch a collaboration `C` of it."""
    network.graph.put(PDQ, descriptor("42", tags=["scam"]), type="HASH_PDQ")
    network.sharing.put("e1", fingerprints={"pdq": PDQ, "md5": MD5}, classification="A1")
    network.ncii.put(PDQ, feedback("Blocked", tags=["nudity"]), kind="ImagePDQ")
    network.tat.put(1, PDQ, algorithm="PDQ", file_type="jpg")
    countermark.ok("config", "api", kind, "--credentials", LINES[kind])
    countermark.ok("config", "collab", "edit", kind, "C", "--create", *FLAGS[kind], *flags)
    countermark.ok("fetch")


@pytest.fixture
def hashes(home: Path) -> Path:
    path = home / "hashes.txt"
    path.write_text(f"{PDQ}\n")
    return path


def test_credentials_are_set_told_of_and_forgotten(countermark: CommandLine, network: Exchanges) -> None:
    for kind in KINDS:
        assert countermark.ok("config", "api", kind).out == f"{kind} has no credentials\n"
        assert (
            f"the credentials of {kind} are set"
            in countermark.ok("config", "api", kind, "--credentials", LINES[kind]).err
        )
        assert countermark.ok("config", "api", kind).out == f"{kind} has credentials\n"
        countermark.ok("config", "api", kind, "--unset")
        assert countermark.ok("config", "api", kind).out == f"{kind} has no credentials\n"
    for kind in ("sample", "local_file"):
        assert countermark.ok("config", "api", kind).out == f"{kind} takes no credentials\n"
        assert countermark("config", "api", kind, "--credentials", "x").code == 2


def test_credentials_come_by_standard_input_and_by_the_peers_flags(
    countermark: CommandLine, network: Exchanges
) -> None:
    secrets = countermark.state / "credentials.json"
    for flag in ("--api-token", "--access-token", "--credentials"):
        countermark.ok("config", "api", "fb_threat_exchange", flag, TOKEN.replace("|", "%7C"))
        assert json.loads(secrets.read_text()) == {"fb_threatexchange": {"api_token": TOKEN}}
        countermark.ok("config", "api", "fb_threatexchange", "--unset")
    countermark.ok("config", "api", "tat", "--credentials", "-", stdin=f"{LINES['tat']}\nmore".encode())
    assert json.loads(secrets.read_text())["tat"]["password"] == "hunter2:with a colon"
    assert secrets.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [("fb_threatexchange", "hunter2"), ("ncmec", "hunter2"), ("stop_ncii", "hunter2"), ("tat", "hunter2")],
)
def test_bad_credentials_are_refused_and_not_shown(
    countermark: CommandLine, network: Exchanges, kind: str, wrong: str
) -> None:
    for given, stdin in ((wrong, b""), ("-", wrong.encode()), ("-", b"")):
        ran = countermark("config", "api", kind, "--credentials", given, stdin=stdin)
        assert (ran.code, ran.out) == (2, "")
        assert f"the credentials of {kind} must have the form" in ran.err
        assert "hunter2" not in ran.err
    assert countermark("config", "api", kind, "--unset", "--credentials", LINES[kind]).code == 2


def test_the_collaborations_of_a_token_are_listed_and_one_is_imported(
    countermark: CommandLine, network: Exchanges
) -> None:
    ran = countermark("config", "api", "fb_threatexchange", "-L")
    assert (ran.code, "no credentials are set" in ran.err) == (2, True)
    countermark.ok("config", "api", "fb_threatexchange", "--api-token", TOKEN)
    assert countermark.ok("config", "api", "fb_threatexchange", "-L").out == f"{GROUP} My  Group - what we share\n"
    ran = countermark("config", "api", "fb_threatexchange", "-I", "999")
    assert (ran.code, "give no access to '999'" in ran.err) == (2, True)
    countermark.ok("config", "api", "fb_threatexchange", "-I", str(GROUP))
    printed = json.loads(countermark.ok("config", "collab", "print", "My Group").out)
    assert (printed["api"], printed["privacy_group"], printed["writes_back"]) == ("fb_threatexchange", GROUP, False)
    assert countermark("config", "api", "ncmec", "-L").code == 2


@pytest.mark.parametrize("kind", KINDS)
def test_no_output_of_any_command_holds_credentials(
    countermark: CommandLine, network: Exchanges, hashes: Path, kind: str
) -> None:
    joined(countermark, network, kind, "--write-back")
    said = []
    for arguments in (
        ["config", "api", kind],
        ["config", "collab", "print", "C"],
        ["config", "collab", "list"],
        ["-v", "fetch"],
        ["match", "photo", "-H", str(hashes), "-S", "pdq", "--json"],
        ["dataset", "-P"],
        ["label", "C", "photo", str(hashes), "-H", "pdq", "--dry-run"],
        ["-v", "label", "C", "photo", str(hashes), "-H", "pdq"],
        *([["config", "api", kind, "-L"]] if kind == "fb_threatexchange" else []),
        ["config", "api", kind, "--unset"],
        ["-v", "fetch", "--clear"],
        ["-v", "fetch"],
        ["config", "api", kind, "--credentials", f"{LINES[kind]}0"],
        ["-v", "fetch"],
    ):
        ran = countermark(*arguments)
        said.append(ran.out + ran.err)
    assert "fetch" in "".join(said)
    assert "does not accept the credentials" in said[-1] or "status 400" in said[-1], (
        "the exchange refused the wrong ones"
    )
    state = b"".join(path.read_bytes() for path in countermark.state.glob("countermark.db*"))
    for secret in SECRETS:
        assert secret not in "".join(said)
        assert secret.encode() not in state


def test_an_opinion_of_an_indicator_is_a_reaction(countermark: CommandLine, network: Exchanges, hashes: Path) -> None:
    joined(countermark, network, "fb_threatexchange")
    ran = countermark("label", "C", "photo", hashes, "-H", "pdq")
    assert (ran.code, "does not write back" in ran.err, network.sent) == (2, True, [])
    [shown] = [
        json.loads(line) for line in countermark.ok("label", "C", "photo", hashes, "-H", "pdq", "--dry-run").lines
    ]
    assert shown == {
        "method": "POST",
        "url": "https://graph.facebook.com/v26.0/942?reactions=HELPFUL&access_token=***",
        "headers": {},
        "body": None,
    }
    assert network.sent == []
    countermark.ok("config", "collab", "edit", "fb_threatexchange", "C", "--write-back")
    for flags, reaction in (
        ([], "HELPFUL"),
        (["--false-positive"], "NON_MALICIOUS"),
        (["--seen"], "SAW_THIS_TOO"),
    ):
        out = countermark.ok("label", "C", "photo", hashes, "-H", "pdq", *flags).out
        assert out.startswith("sent ")
        assert network.sent[-1].query == {"reactions": reaction, "access_token": TOKEN}
    countermark.ok("config", "collab", "edit", "fb_threatexchange", "C", "--write-back=0")
    assert countermark("label", "C", "photo", hashes, "-H", "pdq").code == 2


def test_what_the_exchange_has_not_exactly_is_shared_as_new(
    countermark: CommandLine, network: Exchanges, home: Path
) -> None:
    joined(countermark, network, "fb_threatexchange", "--write-back")
    (home / "near.txt").write_text(NEAR)
    countermark.ok("label", "C", "photo", "near.txt", "-H", "pdq", "-l", "spam,scam")
    [asked] = network.sent
    form = parse_qs(asked.body.decode())
    assert (asked.path, form["indicator"], form["tags"]) == (
        f"/{GRAPH_VERSION}/threat_descriptors",
        [NEAR],
        ["spam,scam"],
    )
    assert form["privacy_members"] == [str(GROUP)]


def test_a_vote_on_an_entry_is_on_the_fingerprint_that_was_given(
    countermark: CommandLine, network: Exchanges, hashes: Path, home: Path
) -> None:
    joined(countermark, network, "ncmec", "--write-back")
    countermark.ok("label", "C", "photo", hashes, "-H", "pdq")
    assert [(asked.method, asked.path) for asked in network.sent] == [
        ("PUT", "/hashsharing/v2/entries/42/e1/PDQ/feedback")
    ]
    assert b"<affirmative" in network.sent[0].body
    countermark.ok("label", "C", "photo", hashes, "-H", "pdq", "--false-positive", "--reason", REASON)
    assert REASON.encode() in network.sent[1].body
    (home / "near.txt").write_text(NEAR)
    for arguments, message in (
        (["hashes.txt", "--seen"], "not that it was seen"),
        (["hashes.txt", "--false-positive"], "requires a reason with a negative vote"),
        (["near.txt"], "ncmec does not accept new signals"),
    ):
        ran = countermark("label", "C", "photo", "-H", "pdq", *arguments)
        assert (ran.code, message in ran.err) == (2, True), ran.err
    assert len(network.sent) == 2


def test_what_one_stated_is_withdrawn(
    countermark: CommandLine, network: Exchanges, hashes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined(countermark, network, "fb_threatexchange", "--write-back")
    arguments = ["label", "C", "photo", str(hashes), "-H", "pdq", "--withdraw"]
    ran = countermark(*arguments)
    assert (ran.code, "no descriptor or reaction of your own to withdraw" in ran.err) == (2, True)
    network.graph.put(PDQ, descriptor("42"), descriptor(APP_ID), type="HASH_PDQ")
    countermark.ok("fetch")
    url = f"https://graph.facebook.com/v26.0/9{APP_ID}"
    [shown] = [json.loads(line) for line in countermark.ok(*arguments, "--dry-run").lines]
    assert shown == {"method": "DELETE", "url": f"{url}?access_token=***", "headers": {}, "body": None}
    assert network.sent == []
    assert countermark.ok(*arguments).out == f"sent withdrawn to C: DELETE {url}?access_token=***\n"
    assert [(asked.method, asked.path) for asked in network.sent] == [("DELETE", f"/{GRAPH_VERSION}/9{APP_ID}")]
    ran = countermark("label", "C", "photo", hashes, "-H", "pdq", "--withdraw", "-l", "a")
    assert (ran.code, "takes back the whole opinion" in ran.err) == (2, True)


def test_only_fb_threatexchange_lets_opinions_be_withdrawn(
    countermark: CommandLine, network: Exchanges, hashes: Path
) -> None:
    joined(countermark, network, "ncmec", "--write-back")
    ran = countermark("label", "C", "photo", hashes, "-H", "pdq", "--withdraw")
    assert (ran.code, "ncmec does not support withdrawing an opinion" in ran.err, network.sent) == (2, True, [])


def test_the_reasons_that_an_exchange_offers_are_listed(countermark: CommandLine, network: Exchanges) -> None:
    joined(countermark, network, "ncmec")
    assert countermark.ok("label", "C", "photo", "--list-reasons").lines == [
        f"pdq {REASON} wrong",
        f"photo_md5 {REASON} wrong",
    ]
    assert countermark.ok("label", "C", "video", "--list-reasons").lines == [f"video_md5 {REASON} wrong"]
    assert countermark.ok("label", "C", "photo", "--list-reasons", "-S", "pdq").lines == [f"pdq {REASON} wrong"]
    for arguments, message in (
        (["C", "text", "--list-reasons"], "ncmec has no reasons for signals of type"),
        (["C", "photo", "--list-reasons", "x.jpg"], "--list-reasons is used without FILE"),
        (["D", "photo", "--list-reasons"], "No such collab 'D'"),
    ):
        ran = countermark("label", *arguments)
        assert (ran.code, message in ran.err) == (2, True), ran.err
    network.servers["ncmec"].fail(*[status(503)] * 5)
    assert countermark("label", "C", "video", "--list-reasons").code == 3


def test_feedback_on_a_hash_and_new_hashes_go_to_stop_ncii(
    countermark: CommandLine, network: Exchanges, hashes: Path
) -> None:
    joined(countermark, network, "stop_ncii", "--write-back")
    hashes.write_text(f"{PDQ}\n{NEAR}\n")
    assert len(countermark.ok("label", "C", "photo", hashes, "-H", "pdq", "-l", "a").lines) == 2
    (first, feedback), (second, shared) = network.ncii.submitted
    assert (first, feedback["hashFeedbacks"][0]["hashValue"]) == ("SubmitFeedback", PDQ)
    assert (second, shared["hashRecords"][0]["hashValue"]) == ("SubmitHashes", NEAR)


def test_an_exchange_that_takes_nothing_says_so(countermark: CommandLine, network: Exchanges, hashes: Path) -> None:
    joined(countermark, network, "tat", "--write-back")
    ran = countermark("label", "C", "photo", hashes, "-H", "pdq")
    assert (ran.code, "tat does not accept opinions" in ran.err) == (2, True)


def test_an_exchange_that_refuses_or_fails_ends_with_exit_code_3(
    countermark: CommandLine, network: Exchanges, hashes: Path
) -> None:
    joined(countermark, network, "stop_ncii", "--write-back")
    for faults, message in (([status(403)], "does not accept the credentials"), ([status(503)] * 5, "status 503")):
        network.servers["stop_ncii"].fail(*faults)
        ran = countermark("label", "C", "photo", hashes, "-H", "pdq")
        assert (ran.code, ran.out) == (3, "")
        assert message in ran.err


def test_a_line_is_added_to_a_file_once(countermark: CommandLine, home: Path) -> None:
    (home / "shared.txt").write_text("raw_text shared words")
    countermark.ok(
        "config", "collab", "edit", "local_file", "--filename", "shared.txt", "C", "--create", "--write-back"
    )
    printed = json.loads(countermark.ok("label", "C", "text", "--dry-run", "--", "buy pills").lines[0])
    assert printed == {"file": str(home / "shared.txt"), "line": "raw_text buy pills"}
    assert "raw_text buy pills" in countermark.ok("label", "C", "text", "--", "buy pills").out
    assert "contains it already" in countermark.ok("label", "C", "text", "--", "buy pills").err
    assert (home / "shared.txt").read_text().splitlines()[:2] == ["raw_text shared words", "raw_text buy pills"]
    countermark.ok("fetch")
    assert "raw_text 100% (C)" in countermark.ok("match", "text", "--", "buy pills").out
    for flags in (["--seen"], ["--false-positive"], ["-l", "a"]):
        assert countermark("label", "C", "text", *flags, "--", "buy pills").code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NONE", "text", "--", "x"], "No such collab 'NONE'"),
        (["C", "text", "--seen", "--false-positive", "--", "x"], "use only one of"),
        (["C", "text", "--seen", "--withdraw", "--", "x"], "use only one of"),
        (["C", "text", "-S", "pdq", "-H", "raw_text", "--", "x"], "-H names the signal type already"),
        (["C", "text", "-l", "a,,b", "--", "x"], "a tag has 1 to 100 printable characters"),
        (["C", "text", "-l", ",".join(map(str, range(51))), "--", "x"], "at most 50 tags, not 51"),
        (["C", "text"], "add a file"),
        (["C", "photo", "-H", "raw_text", "--", "x"], "raw_text does not apply to photo"),
    ],
)
def test_a_mistake_of_the_user_is_told(countermark: CommandLine, arguments: list[str], message: str) -> None:
    countermark.ok("config", "collab", "edit", "sample", "C", "--create", "--write-back")
    ran = countermark("label", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_exchange_says_of_a_match_is_told_with_it(
    countermark: CommandLine, network: Exchanges, hashes: Path, kind: str
) -> None:
    joined(countermark, network, kind)
    category, tags = {
        "fb_threatexchange": ("POSITIVE_CLASS", ["scam"]),
        "ncmec": ("POSITIVE_CLASS", ["A1"]),
        "stop_ncii": ("POSITIVE_CLASS", ["nudity"]),
        "tat": ("INVESTIGATION_SEED", ["Far-Right"]),
    }[kind]
    out = countermark.ok("match", "photo", "-S", "pdq", "-H", hashes).out
    assert out == f"pdq 0 (C) {category} {','.join(tags)}\n"
    printed = json.loads(countermark.ok("match", "photo", "-S", "pdq", "-H", hashes, "--json").out)
    assert printed["sources"] == [{"collaboration": "C", "category": category, "tags": tags}]
    assert APP_ID not in json.dumps(printed)
