"""The child process of `vpdq_hasher`. It hashes the frames of a video, and prints the hashes as JSON.

    python vpdq_child.py FILE MAX_FRAMES MAX_MEMORY_BYTES MAX_SECONDS

FILE is the file descriptor of the open video. The process limits its own rights before it reads the first byte.
"""

import json
import os
import resource
import sys

CANNOT_LOAD = 3
"""The exit code if the package `vpdq`, or a library that it needs, is not installed."""

CANNOT_DECODE = 4
"""The exit code if the decoder cannot decode the video."""

_VIDEO = 3
"""The video's file descriptor during decoding. The decoder opens the video again, with the next descriptor."""


def main(file: int, max_frames: int, max_memory_bytes: int, max_seconds: int) -> int:
    """Hash the video, and return the exit code."""
    try:
        import vpdq
    except ImportError:
        return CANNOT_LOAD
    os.dup2(file, _VIDEO)
    os.closerange(_VIDEO + 1, max(file + 1, 256))
    # The decoder needs one more descriptor, for the video. The limit prevents it from opening other files or sockets.
    _limit(resource.RLIMIT_NOFILE, _VIDEO + 2)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        _limit(resource.RLIMIT_AS, max_memory_bytes)
    # Normally, the parent process stops this process earlier. The limit is for the case that the parent has ended.
    _limit(resource.RLIMIT_CPU, 4 * max_seconds)
    os.lseek(_VIDEO, 0, os.SEEK_SET)
    try:
        # With more threads, decoded frames that wait to be hashed would fill the memory.
        frames = vpdq.computeHash(f"/dev/fd/{_VIDEO}", seconds_per_hash=1, thread_count=1)
    except Exception:  # noqa: BLE001  # the package raises no more specific error
        return CANNOT_DECODE
    json.dump([(each.hex, each.quality, each.timestamp) for each in frames[:max_frames]], sys.stdout)
    return 0


def _limit(kind: int, most: int) -> None:
    resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
