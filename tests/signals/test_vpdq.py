"""What a vpdq signal is, and what the child process that hashes videos may do: here it runs packages made up."""

import json
import os
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.domain.signal import Unhashable
from countermark.errors import InvalidSignal
from countermark.signals import vpdq_hasher
from countermark.signals.vpdq import MAX_SIGNAL_BYTES, VPDQ, hashes
from tests.signals.videos import avi, scenes

ONE, OTHER, THIRD = "0f" * 32, "f0" * 32, "3c" * 32
VIDEO = b"RIFF....AVI LIST"


def value(*hashes: str, quality: int = 100) -> str:
    return json.dumps([f"{digits},{quality},{second}.0" for second, digits in enumerate(hashes)])


def test_frames_of_low_quality_are_kept_and_passed_over() -> None:
    frames = [f"{ONE},49,0.0", f"{OTHER},50,1.0", f"{OTHER},100,2.0"]
    assert VPDQ.parse(json.dumps(frames)) == json.dumps(frames)
    assert hashes(json.dumps(frames)) == [OTHER]
    assert VPDQ.key(json.dumps(frames)) == bytes.fromhex(OTHER)
    with pytest.raises(InvalidSignal, match="at least quality 50"):
        VPDQ.parse(json.dumps(frames[:1]))


@pytest.mark.parametrize("second", ["0", "0.0", "12.345", "1e+02", "1.23e+03", "999999999999.000000000000"])
def test_seconds_are_kept_as_they_came(second: str) -> None:
    assert VPDQ.parse(f'["{ONE},100,{second}"]') == f'["{ONE},100,{second}"]'


@pytest.mark.parametrize("second", ["", "-1.0", "nan", "inf", "1e999", "1.", ".5", " 1.0", "1_0", "٣", "1" * 13])
def test_what_is_no_second_is_refused(second: str) -> None:
    with pytest.raises(InvalidSignal, match="a vpdq signal is a JSON list"):
        VPDQ.parse(f'["{ONE},100,{second}"]')


def test_a_signal_has_as_many_bytes_as_an_event_has_room_for() -> None:
    count = MAX_SIGNAL_BYTES // len(f'"{ONE},100,0.0", ') - 10
    frames = [f"{ONE},100,0.0"] * count
    for place in range(count):
        room = MAX_SIGNAL_BYTES - len(json.dumps(frames))
        frames[place] += "0" * min(room, 11)
    assert len(VPDQ.parse(json.dumps(frames))) == MAX_SIGNAL_BYTES
    too_long = [json.dumps([*frames[:-1], f"{ONE},100,0.00"]), json.dumps(frames) + " "]
    # What is written without spaces has them in its canonical form, which counts.
    too_long.append(json.dumps([*frames, frames[-1]], separators=(",", ":")))
    for text in too_long:
        with pytest.raises(InvalidSignal, match=f"at most {MAX_SIGNAL_BYTES} bytes"):
            VPDQ.parse(text)


@pytest.mark.parametrize(("known", "matches", "percent", "shown"), [(4, True, 20, "80%"), (3, False, 40, "60%")])
def test_four_of_five_frames_are_enough(known: int, matches: bool, percent: int, shown: str) -> None:
    frames = [f"{number:04x}" * 16 for number in (0, 0x0F0F, 0x3333, 0x5555, 0x9999)]
    query, banked = value(*frames), value(*frames[:known], *[f"{number:04x}" * 16 for number in (0x6666, 0xF0F0)])
    comparison = VPDQ.compare(query, banked)
    assert (comparison.matches, comparison.distance) == (matches, percent)
    assert VPDQ.wire_distance(query, banked, percent).startswith(f"{shown}[")


@given(st.integers(0, 10_000).flatmap(lambda alike: st.tuples(st.just(alike), st.integers(max(1, alike), 10_000))))
def test_a_share_is_never_rounded_up_to_a_match(counts: tuple[int, int]) -> None:
    alike, frames = counts
    comparison = VPDQ.compare_counts(query_similar=alike, query_frames=frames, banked_similar=1, banked_frames=1)
    assert comparison.matches is (5 * alike >= 4 * frames)


def test_frames_beyond_what_is_compared_at_once_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    query, banked = value(ONE, OTHER, THIRD), value(THIRD, ONE)
    monkeypatch.setattr("countermark.signals.vpdq._MAX_PAIRS", 1)
    assert VPDQ.wire_distance(query, banked, None) == "67%[100%]"


# What follows hashes with packages that are made up.

Package = Callable[[str], None]
FRAMES = """
class Frame:
    def __init__(self, hex, quality, timestamp):
        self.hex, self.quality, self.timestamp = hex, quality, timestamp
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Makes a package vpdq whose `computeHash` of a `path` does what it is told."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(body: str) -> None:
        head = "def computeHash(path, *, seconds_per_hash, thread_count):"
        (tmp_path / "vpdq.py").write_text(f"{FRAMES}\n{head}\n{textwrap.indent(body, '    ')}\n")

    return make


def hashed(content: bytes = VIDEO) -> str | Unhashable:
    hasher = VPDQ.hasher()
    for start in range(0, len(content), 7):
        hasher.update(content[start : start + 7])
    return hasher.finish()


def test_frames_come_back_from_the_child_in_order(package: Package) -> None:
    package(f"return [Frame('{ONE}', 100, 0.0), Frame('{OTHER}', 3, 1.001), Frame('{ONE}', 50, 100.0)]")
    assert hashed() == json.dumps([f"{ONE},100,0.0", f"{OTHER},3,1.0", f"{ONE},50,1e+02"])


def test_the_child_reads_the_very_bytes_from_memory(package: Package) -> None:
    package(f"return [Frame('{ONE}', 100, float(sum(open(path, 'rb').read()) % 1000))]")
    content = VIDEO + bytes(range(256)) * 1_000
    assert hashed(content) == f'["{ONE},100,{float(sum(content) % 1000):.3}"]'


@pytest.mark.parametrize(
    "body",
    [
        "import os; os.abort()",
        "import ctypes; ctypes.string_at(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os; os._exit(77)",
    ],
)
def test_a_decoder_that_crashes_is_a_damaged_video(package: Package, body: str) -> None:
    package(body)
    why = hashed()
    assert isinstance(why, Unhashable)
    assert why.code == "damaged"
    assert why.reason.startswith("the decoder ended with ")
    assert why.reason.split()[-1] in {"SIGABRT", "SIGSEGV", "SIGKILL", "77"}


def test_a_decoder_that_hangs_is_ended(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    package("while True: pass")
    monkeypatch.setattr(vpdq_hasher, "MAX_SECONDS", 1)
    assert hashed() == Unhashable(code="too_large", reason="hashing it took longer than 1 s")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit of memory")
def test_a_decoder_gets_no_more_memory_than_its_limit(package: Package) -> None:
    half = vpdq_hasher.MAX_MEMORY_BYTES // 2
    package(f"bytearray({half}); return [Frame('{ONE}', 100, 0.0)]")
    assert isinstance(hashed(), str)
    package(f"bytearray({2 * half}); return [Frame('{ONE}', 100, 0.0)]")
    assert hashed() == Unhashable(code="damaged", reason="it cannot be decoded as a video")


@pytest.mark.parametrize(
    "body",
    [
        "video = open(path, 'rb'); import socket; socket.socket()",
        "video = open(path, 'rb'); open('/etc/hostname')",
        "open('LEAK', 'wb', buffering=0).write(b'frame')",
    ],
)
def test_a_decoder_reaches_nothing_but_the_video(package: Package, tmp_path: Path, body: str) -> None:
    package(f"{body.replace('LEAK', str(tmp_path / 'leak'))}; return [Frame('{ONE}', 100, 0.0)]")
    assert hashed() == Unhashable(code="damaged", reason="it cannot be decoded as a video")


def test_a_decoder_sees_no_credentials(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    allowed = {"PYTHONPATH", "LC_CTYPE", "LD_LIBRARY_PATH"}
    package(f"import os; assert set(os.environ) <= {allowed}; return [Frame('{ONE}', 100, 0.0)]")
    assert isinstance(hashed(), str)


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        ("return []", "low_quality", "no frame of at least quality 50"),
        (f"return [Frame('{ONE}', 49, 0.0)]", "low_quality", "no frame of at least quality 50"),
        (f"return [Frame('{ONE}', 100, -1.0)]", "damaged", "not valid"),
        (f"return [Frame('{ONE}', 100, float('nan'))]", "damaged", "not valid"),
        ("raise ValueError", "damaged", "cannot be decoded"),
        ("raise OSError", "damaged", "cannot be decoded"),
    ],
)
def test_what_a_video_cannot_give_is_told(package: Package, body: str, code: str, reason: str) -> None:
    package(body)
    why = hashed()
    assert isinstance(why, Unhashable)
    assert why.code == code
    assert reason in why.reason


@pytest.mark.parametrize("more", [0, 1])
def test_a_video_has_as_many_frames_as_a_signal_has_room_for(package: Package, more: int) -> None:
    package(f"return [Frame('{ONE}', 100, 9.87e9)] * {vpdq_hasher.MAX_FRAMES + more}")
    result = hashed()
    if more:
        assert result == Unhashable(code="too_large", reason="more than 2400 frames, at one per second")
    else:
        assert isinstance(result, str)
        assert VPDQ.parse(result) == result


def test_a_video_of_the_largest_size_is_hashed_and_a_larger_one_is_not(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(f"return [Frame('{ONE}', 100, 0.0)]")
    monkeypatch.setattr(vpdq_hasher, "MAX_VIDEO_BYTES", len(VIDEO))
    assert isinstance(hashed(), str)
    assert hashed(VIDEO + b"\0") == Unhashable(code="too_large", reason=f"more than {len(VIDEO)} bytes")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"#EXTM3U\n#EXTINF:1\nhttp://127.0.0.1/x.ts\n", "neither a photo nor a video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "neither a photo nor a video"),
        (b"\x89PNG\r\n\x1a\n", "a photo, not a video"),
        (b"", "there are no bytes"),
    ],
)
def test_only_what_starts_as_a_video_gets_to_the_decoder(package: Package, content: bytes, reason: str) -> None:
    package("raise SystemExit(77)")
    why = hashed(content)
    assert isinstance(why, Unhashable)
    assert (why.code, reason in why.reason) == ("unsupported", True)


def test_a_package_that_cannot_be_loaded_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "vpdq.py").write_text("raise ImportError('libavcodec.so.59: cannot open shared object file')")
    why = hashed()
    assert isinstance(why, Unhashable)
    assert why.code == "missing_extra"
    assert "pip install 'countermark[vpdq]'; the installed one cannot be loaded" in why.reason


def test_without_the_package_nothing_is_held_and_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    hasher = VPDQ.hasher()
    hasher.update(avi(scenes("coffee.png")))
    assert hasher._file is None
    assert hasher.finish() == Unhashable(
        code="missing_extra", reason="hashing a video by vpdq needs a package: pip install 'countermark[vpdq]'"
    )


def test_where_files_cannot_be_in_memory_the_video_is_in_one_without_a_name(
    package: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package(f"return [Frame('{ONE}', 100, float(len(open(path, 'rb').read())))]")
    monkeypatch.delattr(os, "memfd_create", raising=False)
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    hasher = VPDQ.hasher()
    hasher.update(VIDEO)
    assert hasher._file is not None
    mode = os.fstat(hasher._file.fileno())
    assert (mode.st_mode & 0o777, mode.st_nlink, list(directory.iterdir())) == (0o600, 0, [])
    assert hasher.finish() == f'["{ONE},100,{float(len(VIDEO))}"]'


def test_a_hasher_that_is_dropped_leaves_no_file_behind(package: Package) -> None:
    package("return []")
    hasher = VPDQ.hasher()
    hasher.update(VIDEO)
    file = hasher._file
    assert file is not None
    del hasher
    assert file.closed
