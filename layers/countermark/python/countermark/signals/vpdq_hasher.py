"""Hashes a video's frames in a child process, because the decoder is a large C library that reads untrusted bytes.

On Linux, the video is stored in memory, never on disk. The child process can read only the video: it has no
credentials, no other file and no socket. Its memory is limited. If it takes too long or crashes, the result is
`Unhashable`.
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
"""The maximum size of a video. The video must fit into the memory of a Lambda function, which has 1.8 GB."""

MAX_SECONDS = 120
"""How many seconds hashing one video can take. The Lambda function that hashes has three minutes in total."""

MAX_FRAMES = 2_400
"""The maximum number of frames of a signal: forty minutes of video. They just fit into `MAX_SIGNAL_BYTES`."""

MAX_MEMORY_BYTES = 1536 * 1024 * 1024
"""The maximum memory of the child process, including its libraries. An 8K video needs that much."""

CHILD = Path(__file__).with_name("vpdq_child.py")

Frames = Sequence[tuple[str, int, float]]


class VideoHasher:
    """Stores a video in memory up to a limit, and hashes it at the end. Without the package `vpdq` it does neither."""

    def __init__(self, from_frames: Callable[[Frames], str]) -> None:
        """Create a hasher.

        `from_frames` returns the value for a list of frames, or raises InvalidSignal. A frame is (hash in hex, quality,
        second).
        """
        self._from_frames = from_frames
        self._has_package = importlib.util.find_spec("vpdq") is not None
        self._size_bytes = 0
        self._head = b""
        self._file = _open_memory_file() if self._has_package else None
        if self._file is not None:
            # If reading the content fails, `finish` is never called. Then the file is closed together with the hasher.
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
            return Unhashable(code="missing_extra", reason=_INSTALL_HINT)
        with self._file as file:
            if self._size_bytes > MAX_VIDEO_BYTES:
                return Unhashable(code="too_large", reason=f"more than {MAX_VIDEO_BYTES} bytes")
            try:
                # The decoder gets only videos, because it would also accept a playlist, and open the files in it.
                if content_type_of(self._head) != ContentType.VIDEO:
                    return Unhashable(code="unsupported", reason="a photo, not a video")
            except InvalidContent as error:
                return Unhashable.because(error)
            file.flush()
            budget = process_budget()
            lease = budget.take(min(MAX_MEMORY_BYTES, budget.limit_bytes))
            try:
                frames = _hash_in_child(file.fileno())
            finally:
                lease.release()
        if isinstance(frames, Unhashable):
            return frames
        if len(frames) > MAX_FRAMES:
            return Unhashable(code="too_large", reason=f"more than {MAX_FRAMES} frames, at one per second")
        if not any(quality >= MIN_QUALITY for _, quality, _ in frames):
            return Unhashable(
                code="low_quality", reason=f"no frame of at least quality {MIN_QUALITY}: too little detail"
            )
        try:
            return self._from_frames(frames)
        except InvalidSignal:
            # In a damaged video, the time of a frame can be negative, or not a number.
            return Unhashable(code="damaged", reason="the times of its frames are not valid")


_INSTALL_HINT = "hashing a video by vpdq needs a package: pip install 'countermark[vpdq]'"


def _open_memory_file() -> IO[bytes]:
    """Return a file in memory; on systems without such files, a temporary file that only this user can read."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("countermark-video"), "wb")
    return tempfile.TemporaryFile()


def _hash_in_child(file: int) -> Frames | Unhashable:
    """Hash the video with the descriptor `file` in a child process; return at most `MAX_FRAMES` + 1 frames."""
    limits = (MAX_FRAMES + 1, MAX_MEMORY_BYTES, MAX_SECONDS)
    # The child gets this process's module path. `-P` excludes the directory of the child's script: the file vpdq.py in
    # that directory would hide the package `vpdq`.
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    try:
        process = subprocess.run(  # noqa: S603  # this Python, this package's script, and numbers
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
    if process.returncode == CANNOT_LOAD:
        return Unhashable(code="missing_extra", reason=f"{_INSTALL_HINT}; the installed one cannot be loaded")
    if process.returncode == CANNOT_DECODE:
        return Unhashable(code="damaged", reason="it cannot be decoded as a video")
    if process.returncode:
        return Unhashable(code="damaged", reason=f"the decoder ended with {_describe_exit(process.returncode)}")
    return [(str(digits), int(quality), float(second)) for digits, quality, second in json.loads(process.stdout)]


def _describe_exit(code: int) -> str:
    """Describe how a process ended: the name of the signal, or the exit code."""
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
