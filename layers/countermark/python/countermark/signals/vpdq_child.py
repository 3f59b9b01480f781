"""The child process of `vpdq_hasher`: hashes the frames of the video that is open as a file, and prints them as JSON.

    python vpdq_child.py FILE MAX_FRAMES MAX_MEMORY_BYTES MAX_SECONDS

FILE is the number of the open file. What was allowed is taken away before the first byte of it is read.
"""

import json
import os
import resource
import sys

CANNOT_LOAD = 3
"""The exit code where the package is not there, or a library of its own is not."""

CANNOT_DECODE = 4
"""The exit code where the decoder refuses the video."""

_VIDEO = 3
"""The file's number while it is decoded; opened once more it is the next one."""


def main(file: int, max_frames: int, max_memory_bytes: int, max_seconds: int) -> int:
    """Hash the video, and return the exit code."""
    try:
        import vpdq
    except ImportError:
        return CANNOT_LOAD
    os.dup2(file, _VIDEO)
    os.closerange(_VIDEO + 1, max(file + 1, 256))
    # One more file can be opened, the video, and with it no other and no socket, whatever the video asks for.
    _limit(resource.RLIMIT_NOFILE, _VIDEO + 2)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        _limit(resource.RLIMIT_AS, max_memory_bytes)
    # Whoever started this waits less long; but it may be gone.
    _limit(resource.RLIMIT_CPU, 4 * max_seconds)
    os.lseek(_VIDEO, 0, os.SEEK_SET)
    try:
        # With more threads, frames that wait to be hashed would fill the memory.
        frames = vpdq.computeHash(f"/dev/fd/{_VIDEO}", seconds_per_hash=1, thread_count=1)
    except Exception:  # noqa: BLE001  # of whatever kind: the package raises no other
        return CANNOT_DECODE
    json.dump([(each.hex, each.quality, each.timestamp) for each in frames[:max_frames]], sys.stdout)
    return 0


def _limit(kind: int, most: int) -> None:
    resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
