"""PDQ in the very order of float operations of its reference implementation.

PDQ compares coefficients with their median, so where two lie closer than float32 can tell apart, the order of
additions decides a bit. A hash is an interchange value: this module repeats that order, operation by operation, and
so gives the reference's bits to the last one. It is several times slower than `pdq_transform`, which asks it only
where that cannot tell, and not slower than the reference itself.

Source: the reference implementation in C++ (facebook/ThreatExchange, pdq/cpp: downscaling.cpp, pdqhashing.cpp) as
wrapped by pdqhash 0.2.8, compiled without contraction of multiplications and additions.
"""

import math

import numpy as np
from numpy.typing import NDArray

SIDE = 64
"""Rows and columns of the blurred image that the transform takes."""

FREQUENCIES = 16
"""Rows and columns of coefficients that are kept: frequencies 1 to 16 of each axis."""

LUMA = (0.299, 0.587, 0.114)
"""The shares of red, green and blue in luma."""

GRADIENTS_PER_QUALITY = 90
"""A quality of 1 for each 90 gradients, in hundredths of full scale; a quality is 100 at most."""

_STRIP_ROWS = 1024
"""The least rows that are filtered together: each step down a strip is one operation on so many floats, 4 KiB."""

_STRIP_PIXELS = 1 << 18
"""The least pixels of a strip: of narrow images more rows make one."""

_LUMA_PIXELS = 1 << 17
"""Pixels whose luma is made at once: it stays in the cache until it is put upright."""

_FEW_COLUMNS = 32
"""Fewer columns are filtered one after the other."""

_TRANSPOSED_ROWS = 32
"""Rows that are transposed at once."""


def window(length: int) -> int:
    """Return the width of each of the two box filters along an axis of `length` pixels."""
    return -(-length // (2 * SIDE))


def centres(length: int) -> NDArray[np.int64]:
    """Return which pixels of an axis are sampled, shape (64,), after the filters."""
    return ((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64)


def downsample(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Blur and sample an image; takes (rows, columns) or (rows, columns, 3), returns (64, 64).

    An image of 64 by 64 is taken as it is. Of others one float a pixel is held, and a strip.
    """
    rows, columns = pixels.shape[:2]
    if (rows, columns) == (SIDE, SIDE):
        return _luma(pixels)
    # The filter down the columns takes rows from `blurred` and puts them `lead` rows above, where none is needed.
    lead = window(rows) - window(rows) // 2
    held = np.empty((lead + rows, columns), np.float32)
    blurred, twice = held[lead:], held[:rows]
    height = min(rows, max(_STRIP_ROWS, _STRIP_PIXELS // columns))
    strip, filtered = (np.empty((columns, height), np.float32) for _ in range(2))
    for top in range(0, rows, height):
        part = slice(top, min(top + height, rows))
        upright = strip[:, : part.stop - top]
        at_once = max(1, _LUMA_PIXELS // columns)
        for first in range(0, upright.shape[1], at_once):
            upright[:, first : first + at_once] = _luma(pixels[part][first : first + at_once]).T
        _box(upright, window(columns), out=filtered)
        _transpose(filtered[:, : upright.shape[1]], out=blurred[part])
    _box(blurred, window(rows), out=twice)
    sampled = np.empty((rows, SIDE), np.float32)
    for top in range(0, rows, height):
        part = slice(top, min(top + height, rows))
        upright = strip[:, : part.stop - top]
        _transpose(twice[part], out=upright)
        _box(upright, window(columns), out=filtered)
        sampled[part] = filtered[centres(columns), : upright.shape[1]].T
    means = np.empty_like(sampled)
    _box(sampled, window(rows), out=means)
    return means[centres(rows)]


def coefficients(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the 16 by 16 coefficients of a 64 by 64 image, each sum taken in order of index."""
    half = np.zeros((FREQUENCIES, SIDE), np.float32)
    for k in range(SIDE):
        half += COSINES[:, k, None] * image[k]
    whole = np.zeros((FREQUENCIES, FREQUENCIES), np.float32)
    for k in range(SIDE):
        whole += half[:, k, None] * COSINES[:, k]
    return whole


def gradients(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the differences of neighbours of a 64 by 64 image, in hundredths of full scale, shape (8064,)."""
    down = (image[:-1] - image[1:]).ravel()
    right = (image[:, :-1] - image[:, 1:]).ravel()
    return np.concatenate([down, right]) * np.float32(100) / np.float32(255)


def quality(image: NDArray[np.float32]) -> int:
    """Return how much there is to tell in a 64 by 64 image, 0 to 100."""
    whole = int(np.abs(np.trunc(gradients(image))).sum(dtype=np.float64))
    return min(100, whole // GRADIENTS_PER_QUALITY)


def _luma(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return luma, shape (rows, columns).

    The reference weighs and adds in double precision, and then rounds. The shares are whole thousandths, of which
    floats hold the sum exactly in whatever order it is taken: one division rounds it to the same float.
    """
    if pixels.ndim == 2:
        return _LUMA_OF_GREY.take(pixels)
    thousandths: NDArray[np.float32] = pixels[..., 0] * _THOUSANDTHS[0]
    for channel in (1, 2):
        thousandths += pixels[..., channel] * _THOUSANDTHS[channel]
    thousandths /= np.float32(1000)
    return thousandths


def _box(lines: NDArray[np.float32], width: int, *, out: NDArray[np.float32]) -> None:
    """Put the running means of `width` neighbours down each column; at the ends, of those that there are.

    The running sum takes one value in and gives one back at each step, and keeps every rounding on its way. All
    columns step together, but for a few of them, where the steps would take longer than what they do: these go one
    after the other. `out` may overlap `lines` if it lies as many rows before it as the first window has.
    """
    if lines.shape[1] < _FEW_COLUMNS:
        for column in range(lines.shape[1]):
            out[: len(lines), column] = _means(lines[:, column], width)
        return
    length, columns = lines.shape
    out = out[:, :columns]
    ahead = width // 2
    growing, steady = width - ahead, length - width
    total = lines[0].copy()
    for place in range(1, ahead + 1):
        np.add(total, lines[place], out=total)
    np.divide(total, np.float32(ahead + 1), out=out[0])
    for place in range(1, growing):
        np.add(total, lines[ahead + place], out=total)
        np.divide(total, np.float32(ahead + 1 + place), out=out[place])
    full = np.float32(width)
    for comes, goes, mean in zip(lines[width:], lines[:steady], out[growing : growing + steady], strict=True):
        np.add(total, comes, out=total)
        np.subtract(total, goes, out=total)
        np.divide(total, full, out=mean)
    for place in range(ahead):
        np.subtract(total, lines[steady + place], out=total)
        np.divide(total, np.float32(width - 1 - place), out=out[growing + steady + place])


def _means(line: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Return what `_box` does of one line: one accumulation of values that come and values that go, in turn."""
    length = len(line)
    ahead = width // 2
    growing, steady = width - ahead, length - width
    terms = np.empty(width + 2 * steady + ahead, np.float32)
    terms[:width] = line[:width]
    terms[width : width + 2 * steady : 2] = line[width:]
    np.negative(line[:steady], out=terms[width + 1 : width + 2 * steady : 2])
    np.negative(line[steady : steady + ahead], out=terms[width + 2 * steady :])
    totals = np.add.accumulate(terms, out=terms)
    of_whole_windows = totals[width + 1 : width + 2 * steady : 2]
    means = np.concatenate([totals[ahead:width], of_whole_windows, totals[width + 2 * steady :]])
    means[:growing] /= np.arange(ahead + 1, width + 1, dtype=np.float32)
    means[growing : growing + steady] /= np.float32(width)
    means[growing + steady :] /= np.arange(width - 1, width - 1 - ahead, -1, dtype=np.float32)
    return means


def _transpose(block: NDArray[np.float32], *, out: NDArray[np.float32]) -> None:
    """Put a block's rows where `out` has columns: a few at a time, as a cache has few places."""
    for start in range(0, block.shape[0], _TRANSPOSED_ROWS):
        out[:, start : start + _TRANSPOSED_ROWS] = block[start : start + _TRANSPOSED_ROWS].T


def _cosines() -> NDArray[np.float32]:
    """Return the 16 by 64 matrix of the transform: the scale in float32, its product in double precision."""
    scale = float(np.float32(math.sqrt(2.0 / SIDE)))
    step = math.pi / 2.0 / SIDE
    rows = [
        [scale * math.cos(step * (frequency + 1) * (2 * place + 1)) for place in range(SIDE)]
        for frequency in range(FREQUENCIES)
    ]
    return np.array(rows, np.float32)


COSINES = _cosines()
_THOUSANDTHS = np.array([299, 587, 114], np.float32)
_GREYS = np.arange(256, dtype=np.float64)
_LUMA_OF_GREY: NDArray[np.float32] = (_GREYS * LUMA[0] + _GREYS * LUMA[1] + _GREYS * LUMA[2]).astype(np.float32)
