"""countermark's own vpdq beside python-threatexchange's, and by the command line."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from countermark.domain.signal import Unhashable
from countermark.indexes.segments import Searcher, merge_segments, open_segment
from countermark.signals.vpdq import VPDQ
from tests.cli.conftest import CommandLine, countermark, home
from tests.extensions.peer import PEER, Unavailable, compiled_vpdq, environment, installed
from tests.extensions.test_peer import STAND_IN, peer
from tests.indexes.built import build_segment
from tests.indexes.oracle import answer
from tests.indexes.test_segments import flipped
from tests.signals.videos import MP4, avi, gif, scenes

__all__ = ["countermark", "home"]

EXTENSION = "countermark.extensions.vpdq"
ORACLE = Path(__file__).with_name("vpdq_oracle.py")


def ask_peer(asked: object, home: Path, package: Path) -> Any:
    python = installed(*PEER)
    if isinstance(python, Unavailable):
        pytest.skip(python.reason)
    done = subprocess.run(
        [str(python), str(ORACLE)],
        input=json.dumps(asked),
        # A second thread of FAISS's costs milliseconds a query on a busy core.
        env={**environment(home / "state", package), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The compiled package vpdq, where this process finds it."""
    directory = compiled_vpdq()
    if isinstance(directory, Unavailable):
        pytest.skip(directory.reason)
    monkeypatch.syspath_prepend(directory)
    yield directory
    assert "vpdq" not in sys.modules, "only a child process loads it"


def videos(seed: int, count: int) -> list[str]:
    """Return values cut from few scenes, with frames of low quality, and equal and nearly equal ones among them.

    A scene that is seen again is of the quality that it had.
    """
    chance = random.Random(seed)
    scenes = [chance.randbytes(32).hex() for _ in range(6)]
    made: list[str] = []
    while len(made) < count:
        frames = []
        for second in range(chance.randint(1, 12)):
            digits = flipped(chance.choice(scenes), chance.choice((0, 0, 5, 20, 31, 32)), chance.randint(0, 3))
            quality = 49 + int(digits[0], 16) // 4 * 17
            frames.append(f"{digits},{quality},{second}.0")
        if any(",49," not in frame for frame in frames):
            made.append(json.dumps(frames))
    return made


def test_comparisons_and_what_is_shown_of_them_are_the_peer_s(tmp_path: Path) -> None:
    some = videos(1, 30)
    pairs = [(query, banked) for query in some for banked in some[:15]]
    told = ask_peer({"pairs": pairs}, tmp_path, STAND_IN)
    assert list(VPDQ.examples) == told["examples"]
    for (query, banked), theirs in zip(pairs, told["answers"], strict=True):
        query, banked = VPDQ.parse(query), VPDQ.parse(banked)
        comparison = VPDQ.compare(query, banked)
        assert comparison.matches is theirs["matches"]
        shown = VPDQ.wire_distance(query, banked, comparison.distance)
        assert shown == theirs["shown"]
        # Its index shows each share of those frames that it found.
        assert theirs["found"] == ([shown] if comparison.matches else [])
    assert 20 < sum(theirs["matches"] for theirs in told["answers"]) < len(pairs) - 20


def test_a_hash_of_several_qualities_counts_as_in_the_peer_s_index(tmp_path: Path) -> None:
    one, other = "0f" * 32, "f0" * 32
    query = json.dumps([f"{one},10,0.0", f"{one},90,1.0", f"{other},90,2.0"])
    [theirs] = ask_peer({"pairs": [(query, json.dumps([f"{other},90,0.0"]))]}, tmp_path, STAND_IN)["answers"]
    assert (theirs["matches"], theirs["found"]) == (True, [])
    assert not VPDQ.compare(VPDQ.parse(query), VPDQ.parse(json.dumps([f"{other},90,0.0"]))).matches


@pytest.mark.parametrize("name", ["scenes.mp4", "long.avi", "animation.gif"])
def test_a_video_hashes_to_the_last_bit_as_by_the_peer(name: str, tmp_path: Path, package: Path) -> None:
    content = {
        "scenes.mp4": MP4.read_bytes(),
        "long.avi": avi(scenes("coffee.png", "cell.png", size=(64, 48)), seconds_each=60, frame_rate=3),
        "animation.gif": gif(scenes("coffee.png", "moon.png", "astronaut.png")),
    }[name]
    (tmp_path / name).write_bytes(content)
    value = hash_of(content)
    assert value == ask_peer(str(tmp_path / name), tmp_path, package)["value"]
    assert VPDQ.parse(str(value)) == value


def test_the_index_finds_what_comparing_with_every_video_does_at_every_distance() -> None:
    entries = [(VPDQ.parse(value), n) for n, value in enumerate(videos(2, 60))]
    gone, held = entries[::4], [entry for entry in entries if entry[1] % 4]
    base = open_segment(build_segment(VPDQ, entries, build_id="b"), VPDQ)
    delta = open_segment(build_segment(VPDQ, [], removed=[n for _, n in gone], build_id="b"), VPDQ)
    merged = open_segment(merge_segments(VPDQ, [base, delta], keep_removed=False, build_id="b"), VPDQ)
    queries = [VPDQ.parse(value) for value in videos(2, 20) + videos(3, 5)]
    found = set()
    for percent in (None, *range(-1, 22), 100):
        expected = [answer(VPDQ, held, query, max_distance=percent) for query in queries]
        assert Searcher([base, delta]).query_batch(queries, max_distance=percent) == expected
        assert Searcher([merged]).query_batch(queries, max_distance=percent) == expected
        found |= {candidate.distance for each in expected for candidate in each}
    assert {0, 20} <= found <= set(range(21))


def hash_of(content: bytes) -> str | Unhashable:
    hasher = VPDQ.hasher()
    hasher.update(content)
    return hasher.finish()


def test_a_video_whose_frames_change_their_size_is_hashed_or_told_as_damaged(package: Path) -> None:
    first, second = scenes("coffee.png", "astronaut.png")
    result = hash_of(avi([first, second.resize((1024, 768)), second.resize((16, 16))]))
    assert isinstance(result, Unhashable) or VPDQ.parse(result) == result


@pytest.mark.parametrize("seed", range(9))
def test_a_damaged_video_is_hashed_or_told_as_damaged_in_bounded_time(
    seed: int, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("countermark.signals.vpdq_hasher.MAX_SECONDS", 20)
    chance = random.Random(seed)
    shown = scenes("coffee.png", "rocket.jpg", size=(64, 48))
    content = bytearray((MP4.read_bytes(), avi(shown), gif(shown))[seed % 3])
    for _ in range(10 * seed):
        content[chance.randrange(12, len(content))] = chance.randrange(256)
    if seed >= 6:
        del content[chance.randrange(12, len(content)) :]
    result = hash_of(bytes(content))
    if isinstance(result, Unhashable):
        assert result.code in {"damaged", "low_quality"}
    else:
        assert VPDQ.parse(result) == result


def test_a_video_is_banked_and_found_again_in_other_formats(
    countermark: CommandLine,  # a fixture
    home: Path,  # as above
    package: Path,
) -> None:
    assert countermark.ok("config", "extensions", "add", EXTENSION).lines == ["Signal:", "  vpdq - Vpdq"]
    shown = ("coffee.png", "astronaut.png", "rocket.jpg")
    (home / "banked.avi").write_bytes(avi(scenes(*shown)))
    (home / "part.gif").write_bytes(gif(scenes(*shown[1:], "moon.png", size=(160, 120))))
    countermark.ok("bank", "create", "VIDEOS")
    countermark.ok("bank", "add", "VIDEOS", "video", "banked.avi")
    matched = countermark.ok("match", "video", "-S", "vpdq", MP4).lines
    assert matched == ["vpdq 100%[100%] (VIDEOS) POSITIVE_CLASS"]
    assert countermark.ok("match", "video", "-S", "vpdq", "part.gif").lines == []
    (home / "banked.avi").write_bytes(b"RIFF....AVI no frames")
    assert "cannot be decoded" in countermark("hash", "video", "-S", "vpdq", "banked.avi").err


def test_without_the_package_signals_match_and_hashing_names_the_extra(
    countermark: CommandLine,  # a fixture
    home: Path,  # as above
) -> None:
    countermark.ok("config", "extensions", "add", EXTENSION)
    [value] = VPDQ.examples
    (home / "signals.txt").write_text(f"vpdq {value}\nvpdq []\n")
    countermark.ok("config", "collab", "edit", "local_file", "--filename", "signals.txt", "Listed", "--create")
    assert "1 changed, 1 malformed" in countermark.ok("fetch").err
    (home / "asked.txt").write_text(json.dumps(json.loads(value)[:3]))
    assert countermark.ok("match", "video", "-H", "-S", "vpdq", "asked.txt").lines == [
        "vpdq 100%[75%] (Listed) INVESTIGATION_SEED"
    ]
    (home / "video.avi").write_bytes(b"RIFF....AVI ")
    refused = countermark("hash", "video", "-S", "vpdq", "video.avi")
    assert refused.code == 2
    assert "pip install 'countermark[vpdq]'" in refused.err


def test_there_is_one_vpdq_at_a_time(tmp_path: Path) -> None:
    run = peer(tmp_path, paths=[STAND_IN])
    run.ok("config", "extensions", "add", "threatexchange.extensions.vpdq.manifest")
    refused = run("config", "extensions", "add", EXTENSION)
    assert refused.returncode == 2
    assert f"the extension {EXTENSION}: a signal type 'vpdq' exists already" in refused.stderr
    run.ok("config", "extensions", "remove", "threatexchange.extensions.vpdq.manifest")
    run.ok("config", "extensions", "add", EXTENSION)
