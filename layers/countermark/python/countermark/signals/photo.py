"""Rotates, mirrors and trims pictures, as people do so that a photo is not recognised.

Pixels have shape (rows, columns) or (rows, columns, 3). Results share memory with the original pixels.
"""

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LETTERBOX_THRESHOLD = 15
"""The brightest value, of 255, that a border has in any channel. JPEG leaves black bars slightly above 0."""


def variants(pixels: NDArray[np.uint8]) -> Mapping[str, NDArray[np.uint8]]:
    """Return the eight pictures that result from rotating by right angles and mirroring, the original first.

    Rotations are counter-clockwise. FLIPX mirrors top to bottom, FLIPY left to right. FLIPPLUS1 mirrors at the
    diagonal from the top left, FLIPMINUS1 at the other diagonal.

    Source: the names and directions of python-threatexchange 1.2, content_type/photo.py.
    """
    quarter, half, three_quarters = (np.rot90(pixels, turns) for turns in (1, 2, 3))
    return {
        "ORIGINAL": pixels,
        "ROTATE90": quarter,
        "ROTATE180": half,
        "ROTATE270": three_quarters,
        "FLIPX": pixels[::-1],
        "FLIPY": pixels[:, ::-1],
        "FLIPPLUS1": three_quarters[:, ::-1],
        "FLIPMINUS1": quarter[:, ::-1],
    }


def unletterbox(pixels: NDArray[np.uint8], *, threshold: int = LETTERBOX_THRESHOLD) -> NDArray[np.uint8]:
    """Return the picture without border rows and columns in which every value is at most `threshold`, 0..255.

    If the whole picture is dark, it is returned unchanged, because nothing would remain.
    """
    bright = pixels > threshold if pixels.ndim == 2 else (pixels > threshold).any(axis=2)
    rows, columns = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture as a PNG file. PNG is lossless, so the file has the same PDQ hash as the pixels."""
    from PIL import Image

    file = io.BytesIO()
    # At the fastest level, a file is up to a quarter larger, but takes less than half the time to write.
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
    return file.getvalue()
