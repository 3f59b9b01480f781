"""PDQ in the very order of float operations of its reference implementation.

PDQ compares coefficients with their median, so where two lie closer than float32 can tell apart, the order of
additions decides a bit. A hash is an interchange value: this module repeats that order, operation by operation, and
so gives the reference's bits to the last one. It is several times slower than `pdq_transform`, which asks it only
where that cannot tell.

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

_STRIP_ELEMENTS = 1 << 18
"""Floats filtered at once: one MiB, which stays in the cache of one core."""


def window(length: int) -> int:
    """Return the width of each of the two box filters along an axis of `length` pixels."""
    return -(-length // (2 * SIDE))


def centres(length: int) -> NDArray[np.int64]:
    """Return which pixels of an axis are sampled, shape (64,), after the filters."""
    return ((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64)


def downsample(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Blur and sample an image; takes (rows, columns) or (rows, columns, 3), returns (64, 64).

    An image of 64 by 64 is taken as it is.
    """
    rows, columns = pixels.shape[:2]
    image = np.empty((rows, columns), np.float32)
    height = max(1, _STRIP_ELEMENTS // columns)
    for top in range(0, rows, height):
        image[top : top + height] = _luma(pixels[top : top + height])
    if (rows, columns) == (SIDE, SIDE):
        return image
    for top in range(0, rows, height):
        strip = image[top : top + height]
        strip[:] = _box(strip, window(columns))
    width = max(1, _STRIP_ELEMENTS // rows)
    for left in range(0, columns, width):
        upright = image[:, left : left + width]
        upright[:] = _box(np.ascontiguousarray(upright.T), window(rows)).T
    sampled = np.empty((rows, SIDE), np.float32)
    for top in range(0, rows, height):
        sampled[top : top + height] = _box(image[top : top + height], window(columns))[:, centres(columns)]
    return np.ascontiguousarray(_box(np.ascontiguousarray(sampled.T), window(rows))[:, centres(rows)].T)


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
    """Return luma: weighed and added in double precision, red first, then rounded."""
    if pixels.ndim == 2:
        return _LUMA_OF_GREY.take(pixels)
    red, green, blue = (pixels[..., channel] * share for channel, share in enumerate(LUMA))
    luma: NDArray[np.float64] = red + green + blue
    return luma.astype(np.float32)


def _box(lines: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Return the running means of `width` neighbours along each line; at the ends, of those that there are.

    The running sum takes one pixel in and gives one back at each step, and keeps every rounding on its way: it is
    one accumulation over pixels that come and pixels that leave, in turn.
    """
    length = lines.shape[1]
    ahead = width // 2
    steady = length - width
    terms = np.empty((lines.shape[0], width + 2 * steady + ahead), np.float32)
    terms[:, :width] = lines[:, :width]
    terms[:, width : width + 2 * steady : 2] = lines[:, width:]
    np.negative(lines[:, :steady], out=terms[:, width + 1 : width + 2 * steady : 2])
    np.negative(lines[:, steady : steady + ahead], out=terms[:, width + 2 * steady :])
    sums = np.add.accumulate(terms, axis=1, out=terms)
    means = np.empty_like(lines)
    growing = width - ahead
    means[:, :growing] = sums[:, ahead:width] / np.arange(ahead + 1, width + 1, dtype=np.float32)
    means[:, growing : growing + steady] = sums[:, width + 1 : width + 2 * steady : 2] / np.float32(width)
    means[:, growing + steady :] = sums[:, width + 2 * steady :] / np.arange(
        width - 1, width - 1 - ahead, -1, dtype=np.float32
    )
    return means


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
_GREYS = np.arange(256, dtype=np.float64)
_LUMA_OF_GREY: NDArray[np.float32] = (_GREYS * LUMA[0] + _GREYS * LUMA[1] + _GREYS * LUMA[2]).astype(np.float32)
