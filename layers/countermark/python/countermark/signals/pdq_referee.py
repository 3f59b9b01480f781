"""PDQ with the float operations of the reference implementation, in exactly the same order.

PDQ compares coefficients with their median. If two coefficients are nearly equal, the order of additions can decide a
bit, because float32 rounds each sum. Platforms exchange hashes, so every bit must be the same as in the reference.
This module repeats the reference's operations one by one, so its hashes are exactly equal. It is faster than the
reference, but several times slower than `pdq_transform`, which calls it only when rounding could change the result.

Source: the reference implementation in C++ (facebook/ThreatExchange, pdq/cpp: downscaling.cpp, pdqhashing.cpp), as
included in pdqhash 0.2.8. It is compiled so that a multiplication and an addition are never contracted to one step.
"""

import math
from itertools import chain, islice, repeat, tee

import numpy as np
from numpy.typing import NDArray

from countermark.signals.picture import Picture

SIDE = 64
"""The transform's input is a blurred image of `SIDE` rows and `SIDE` columns."""

FREQUENCIES = 16
"""The hash uses `FREQUENCIES` rows and columns of coefficients: the frequencies 1 to 16 of each axis."""

GRADIENTS_PER_QUALITY = 90
"""The quality is the sum of the gradients, in hundredths of full scale, divided by this number; at most 100."""

_BLOCK_ROWS = 528
"""The minimum number of rows that are filtered together. Each step is then one operation on this many floats."""

_BLOCK_PIXELS = 1 << 20
"""The minimum number of pixels that are filtered together. So a block of a narrow image has more rows."""

_FEW_LINES = 32
"""Fewer lines than this number are filtered one by one."""

_TRANSPOSED_ROWS = 128
"""How many rows are transposed at once. They fit into the processor's cache."""


def window(length: int) -> int:
    """Return the width in pixels of a box filter along an axis of `length` pixels. Both filters have the same width."""
    return -(-length // (2 * SIDE))


def centres(length: int) -> NDArray[np.int64]:
    """Return the indexes of the pixels to sample after filtering, on an axis of `length` pixels, shape (64,)."""
    return ((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64)


def downsample(picture: Picture) -> NDArray[np.float32]:
    """Blur and sample a picture; return shape (64, 64).

    A picture of 64 by 64 pixels is not blurred. Other pictures are filtered in blocks of rows. This takes memory for
    three floats per pixel of a block.
    """
    rows, columns = picture.rows, picture.columns
    if (rows, columns) == (SIDE, SIDE):
        return np.concatenate([luma for _, luma in picture.luma(0, SIDE)])
    # If a side is shorter than 64 pixels, some pixels are sampled more than once.
    down, of_rows = np.unique(centres(rows), return_inverse=True)
    across, of_columns = np.unique(centres(columns), return_inverse=True)
    width = window(rows)
    lines = np.zeros((width + rows + width // 2, len(across)), np.float32)
    lines[width : width + rows] = _filter_three_times(picture, across)
    return _means(lines, width, down)[np.ix_(of_rows, of_columns)]


def _filter_three_times(picture: Picture, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Filter along the rows, then the columns, then the rows again; return the columns at the indexes `places`."""
    rows, columns = picture.rows, picture.columns
    across, down = window(columns), window(rows)
    block = min(rows, max(_BLOCK_ROWS, _BLOCK_PIXELS // columns))
    upright = np.zeros((across + columns + across // 2, block + down // 2), np.float32)
    lines = np.zeros((down + block + down // 2, columns), np.float32)
    work = np.empty(max((columns + across // 2) * block, (block + down // 2) * columns), np.float32)
    sampled = np.empty((rows + down // 2, len(places)), np.float32)
    sums = np.zeros(columns, np.float32)
    for top in range(0, rows, block):
        height = min(block, rows - top)
        for part, luma in picture.luma(top, top + height):
            lines[down + part.start - top : down + part.stop - top] = luma
        _transpose(lines[down : down + height], out=upright[across : across + columns, :height])
        once = work[: (columns + across // 2) * height].reshape(-1, height)
        _sums(upright[:, :height], across, out=once)
        once /= _counts(columns)
        _transpose(once[across // 2 :], out=lines[down : down + height])
        # The filter along the columns continues from block to block. In the last block, it continues past the last row.
        steps = height if top + height < rows else height + down // 2
        lines[down + height : down + steps] = 0
        twice = work[: steps * columns].reshape(steps, columns)
        sums = _sums(lines[: down + steps], down, out=twice, before=sums)
        lines[:down] = lines[height : height + down]
        twice /= _counts(rows)[top : top + steps]
        _transpose(twice, out=upright[across : across + columns, :steps])
        sampled[top : top + steps] = _means(upright[:, :steps], across, places).T
    return sampled[down // 2 :]


def coefficients(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the 16 by 16 coefficients of a 64 by 64 image. The terms of each sum are added in order of the index."""
    half = np.zeros((FREQUENCIES, SIDE), np.float32)
    for k in range(SIDE):
        half += COSINES[:, k, None] * image[k]
    whole = np.zeros((FREQUENCIES, FREQUENCIES), np.float32)
    for k in range(SIDE):
        whole += half[:, k, None] * COSINES[:, k]
    return whole


def gradients(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the differences between neighbouring pixels of a 64 by 64 image, in hundredths of 255, shape (8064,)."""
    down = (image[:-1] - image[1:]).ravel()
    right = (image[:, :-1] - image[:, 1:]).ravel()
    return np.concatenate([down, right]) * np.float32(100) / np.float32(255)


def quality(image: NDArray[np.float32]) -> int:
    """Return the quality of a 64 by 64 image, 0 to 100. An image with more detail has a higher quality."""
    whole = int(np.abs(np.trunc(gradients(image))).sum(dtype=np.float64))
    return min(100, whole // GRADIENTS_PER_QUALITY)


def _means(lines: NDArray[np.float32], width: int, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean of `width` values around each index in `places`, for each column. `_sums` describes `lines`."""
    steps = places + width // 2
    means = np.empty((len(places), lines.shape[1]), np.float32)
    _sums(lines, width, out=means, steps=steps)
    means /= _counts(len(lines) - width - width // 2)[steps]
    return means


def _sums(
    lines: NDArray[np.float32],
    width: int,
    *,
    out: NDArray[np.float32],
    before: NDArray[np.float32] | None = None,
    steps: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Write the running sums of `width` values along each column to `out`; return the last sum of each column.

    To continue with the next block of lines, pass the returned sums as `before`. Each step adds one value, subtracts
    one value, and rounds as the reference does. The sum for a line is complete half a width after the line.

    Windows at the ends have fewer values. So `lines` must begin with `width` lines of zeros, and end with half as many:
    adding or subtracting zero does not round. `steps` are the indexes of the sums to store; None stores all sums.

    All columns are processed together, unless there are fewer than `_FEW_LINES`. Then the overhead of each step would
    dominate, so the columns are processed one by one.
    """
    if lines.shape[1] < _FEW_LINES:
        return _sums_one_by_one(lines, width, out=out, before=before, steps=steps)
    total = np.zeros(lines.shape[1], np.float32) if before is None else before
    targets = out if steps is None else chain.from_iterable(map(repeat, out, np.diff(steps, prepend=-1).tolist()))
    entering, leaving = tee(lines)
    for enters, leaves, target in zip(islice(entering, width, None), leaving, targets, strict=False):
        np.add(total, enters, target)
        np.subtract(target, leaves, target)
        total = target
    return total.copy()


def _sums_one_by_one(
    lines: NDArray[np.float32],
    width: int,
    *,
    out: NDArray[np.float32],
    before: NDArray[np.float32] | None,
    steps: NDArray[np.int64] | None,
) -> NDArray[np.float32]:
    """Do the same as `_sums`, for one column at a time. Added and subtracted values alternate in one accumulation."""
    last = np.empty(lines.shape[1], np.float32)
    terms = np.empty(1 + 2 * (len(lines) - width), np.float32)
    for column, line in enumerate(lines.T):
        terms[0] = 0 if before is None else before[column]
        terms[1::2] = line[width:]
        np.negative(line[:-width], out=terms[2::2])
        np.add.accumulate(terms, out=terms)
        out[:, column] = terms[2::2] if steps is None else terms[2::2][steps]
        last[column] = terms[-1]
    return last


def _counts(length: int) -> NDArray[np.float32]:
    """Return how many values the window contains after each step along an axis, shape (steps, 1)."""
    width = window(length)
    step = np.arange(length + width // 2)
    return (np.minimum(step + 1, length) - np.maximum(step + 1 - width, 0)).astype(np.float32)[:, None]


def _transpose(block: NDArray[np.float32], *, out: NDArray[np.float32]) -> None:
    """Write a block's rows to the columns of `out`."""
    for start in range(0, block.shape[0], _TRANSPOSED_ROWS):
        out[:, start : start + _TRANSPOSED_ROWS] = block[start : start + _TRANSPOSED_ROWS].T


def _cosines() -> NDArray[np.float32]:
    """Return the 16 by 64 matrix of the transform. The scale is a float32; the products have double precision."""
    scale = float(np.float32(math.sqrt(2.0 / SIDE)))
    step = math.pi / 2.0 / SIDE
    rows = [
        [scale * math.cos(step * (frequency + 1) * (2 * place + 1)) for place in range(SIDE)]
        for frequency in range(FREQUENCIES)
    ]
    return np.array(rows, np.float32)


COSINES = _cosines()
