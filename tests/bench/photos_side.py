"""One side of the hashing benchmark, in a process of its own: `photos_side.py ours|peer|decode FILE RUNS`.

The peer's path is what python-threatexchange does of a file: Pillow to an array, and pdqhash of that. Prints JSON: CPU
seconds of each run, and by how many bytes one run raised the peak of memory.
"""

import json
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pdqhash
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from countermark.signals import decode, pdq, pdq_transform

PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin)
"""Loaded before anything is measured."""


def ours(content: bytes) -> tuple[str, int]:
    """Hash as we do."""
    return pdq.from_picture(decode.picture(content))


def draft(content: bytes) -> tuple[str, int]:
    """Hash as we do where the scaled decoding of JPEG is allowed."""
    return pdq.from_picture(decode.picture(content, draft=True))


def peer(content: bytes) -> tuple[str, int]:
    """Hash as the peer does."""
    bits, quality = pdqhash.compute(np.asarray(Image.open(BytesIO(content)).convert("RGB")))
    return np.packbits(bits.astype(np.uint8)).tobytes().hex(), quality


def only_decode(content: bytes) -> tuple[str, int]:
    """Decode, and no more: what both sides must do."""
    Image.open(BytesIO(content)).load()
    return "", 0


SIDES: dict[str, Callable[[bytes], tuple[str, int]]] = {
    "ours": ours,
    "draft": draft,
    "peer": peer,
    "decode": only_decode,
}


CLEAR_REFS = Path("/proc/self/clear_refs")
"""Writing 5 sets the peak of memory back to what is held now: a process begins with the peak of the one that made it.

Source: proc_pid_clear_refs(5).
"""


def peak_bytes() -> int:
    """Return the most memory that this process held since the peak was set back."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main(side: str, file: str, runs: int) -> None:
    """Measure, and print."""
    content = Path(file).read_bytes()
    hashed = SIDES[side]
    CLEAR_REFS.write_text("5")
    before = peak_bytes()
    value, quality = hashed(content)
    added_bytes = peak_bytes() - before
    times = []
    for _ in range(runs):
        started = time.process_time()
        hashed(content)
        times.append(time.process_time() - started)
    refereed = side == "ours" and pdq_transform.hash_picture(decode.picture(content)).refereed
    told = {"value": value, "quality": quality, "cpu_s": times, "peak_bytes": added_bytes, "refereed": refereed}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
