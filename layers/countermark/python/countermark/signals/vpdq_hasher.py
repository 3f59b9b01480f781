"""Hashing a video's frames: in a child process, as what decodes it is a large library of C that anyone's bytes reach.

The video lies in memory, never on disk. The child has the video and nothing else: no credentials, no other file, no
socket, bounded memory; what it takes too long over, or crashes on, is told as any other damage.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from countermark.domain.signal import ContentType, Unhashable
from countermark.errors import InvalidContent, InvalidSignal
from countermark.signals.content_type import HEAD_BYTES, content_type_of
from countermark.signals.memory import process_budget
from countermark.signals.pdq import MIN_QUALITY
from countermark.signals.vpdq_child import CANNOT_DECODE, CANNOT_LOAD

MAX_VIDEO_BYTES = 400 * 1024 * 1024
"""The largest video: it lies in the memory of a function, which has 1.8 GB."""

MAX_SECONDS = 120
"""How long hashing one video may take: a function that hashes has three minutes for all that it does."""

MAX_FRAMES = 2_400
"""How many frames a signal has: forty minutes, and as much as `MAX_SIGNAL_BYTES` has room for."""

MAX_MEMORY_BYTES = 1536 * 1024 * 1024
"""How much memory the child may ask for, its libraries included: a film of 8K needs as much."""

CHILD = Path(__file__).with_name("vpdq_child.py")

Frames = Sequence[tuple[str, int, float]]


class VideoHasher:
    """Holds a video in memory up to a limit, and has it hashed at the end. Without the package it holds nothing."""

    def __init__(self, from_frames: Callable[[Frames], str]) -> None:
        """Take what makes a value of frames, of hash in hex, quality and second, or refuses them as InvalidSignal."""
        self._from_frames = from_frames
        self._has_package = importlib.util.find_spec("vpdq") is not None
        self._size_bytes = 0
        self._head = b""
        self._file = _memory() if self._has_package else None
        if self._file is not None:
            # Content that could not be read to its end is never finished.
            weakref.finalize(self, self._file.close)

    def update(self, chunk: bytes) -> None:
        self._size_bytes += len(chunk)
        self._head += chunk[: HEAD_BYTES - len(self._head)]
        if self._file is None:
            return
        if self._size_bytes > MAX_VIDEO_BYTES:
            self._file.truncate(0)
        else:
            self._file.write(chunk)

    def finish(self) -> str | Unhashable:
        if self._file is None:
            return Unhashable(code="missing_extra", reason=_NEEDS)
        with self._file as file:
            if self._size_bytes > MAX_VIDEO_BYTES:
                return Unhashable(code="too_large", reason=f"more than {MAX_VIDEO_BYTES} bytes")
            try:
                # Only what starts as a video gets to the decoder: it would follow a list of other files as well.
                if content_type_of(self._head) != ContentType.VIDEO:
                    return Unhashable(code="unsupported", reason="a photo, and no video")
            except InvalidContent as error:
                return Unhashable.because(error)
            file.flush()
            budget = process_budget()
            lease = budget.take(min(MAX_MEMORY_BYTES, budget.limit_bytes))
            try:
                frames = _hashed(file.fileno())
            finally:
                lease.release()
        if isinstance(frames, Unhashable):
            return frames
        if len(frames) > MAX_FRAMES:
            return Unhashable(code="too_large", reason=f"more than {MAX_FRAMES} frames, of one a second")
        if not any(quality >= MIN_QUALITY for _, quality, _ in frames):
            return Unhashable(
                code="low_quality", reason=f"no frame of at least quality {MIN_QUALITY}: too little to see"
            )
        try:
            return self._from_frames(frames)
        except InvalidSignal:
            # A damaged video may have frames before its beginning.
            return Unhashable(code="damaged", reason="its frames are at no time")


_NEEDS = "hashing a video by vpdq needs a package: pip install 'countermark[vpdq]'"


def _memory() -> IO[bytes]:
    """Return a file in memory, or where there are none, one without a name that only this user may read."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("countermark-video"), "wb")
    return tempfile.TemporaryFile()


def _hashed(file: int) -> Frames | Unhashable:
    """Return what the child makes of a video, up to one frame more than there may be."""
    limits = (MAX_FRAMES + 1, MAX_MEMORY_BYTES, MAX_SECONDS)
    # What is on our path is on the child's, but not the place where the script lies, which has a module `vpdq` too.
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    try:
        done = subprocess.run(  # noqa: S603  # our own Python and script, with numbers
            [sys.executable, "-S", "-P", str(CHILD), str(file), *map(str, limits)],
            pass_fds=(file,),
            env=environment | {"PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Unhashable(code="too_large", reason=f"hashing it took longer than {MAX_SECONDS} s")
    if done.returncode == CANNOT_LOAD:
        return Unhashable(code="missing_extra", reason=f"{_NEEDS}; the one that is installed cannot be loaded")
    if done.returncode == CANNOT_DECODE:
        return Unhashable(code="damaged", reason="it cannot be decoded as a video")
    if done.returncode:
        return Unhashable(code="damaged", reason=f"the decoder ended with {_ending(done.returncode)}")
    return [(str(digits), int(quality), float(second)) for digits, quality, second in json.loads(done.stdout)]


def _ending(code: int) -> str:
    """Return how a process ended: the name of the signal, or the exit code."""
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
