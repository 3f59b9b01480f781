"""PDQ in the very order of float operations of its reference implementation.

PDQ compares coefficients with their median, so where two lie closer than float32 can tell apart, the order of
additions decides a bit. A hash is an interchange value: this module repeats that order, operation by operation, and
so gives the reference's bits to the last one. It is several times slower than `pdq_transform`, which asks it only
where that cannot tell, and faster than the reference itself.

Source: the reference implementation in C++ (facebook/ThreatExchange, pdq/cpp: downscaling.cpp, pdqhashing.cpp) as
wrapped by pdqhash 0.2.8, compiled without contraction of multiplications and additions.
"""

import math
from itertools import chain, islice, repeat, tee

import numpy as np
from numpy.typing import NDArray

from countermark.signals.picture import Picture

SIDE = 64
"""Rows and columns of the blurred image that the transform takes."""

FREQUENCIES = 16
"""Rows and columns of coefficients that are kept: frequencies 1 to 16 of each axis."""

GRADIENTS_PER_QUALITY = 90
"""A quality of 1 for each 90 gradients, in hundredths of full scale; a quality is 100 at most."""

_BLOCK_ROWS = 528
"""The least rows that are filtered together: each step along them is one operation on so many floats."""

_BLOCK_PIXELS = 1 << 20
"""The least pixels that are filtered together: of narrow images more rows make a block."""

_FEW_LINES = 32
"""Fewer lines are filtered one after the other."""

_TRANSPOSED_ROWS = 128
"""Rows that are transposed at once, as a cache has few places."""


def window(length: int) -> int:
    """Return the width of each of the two box filters along an axis of `length` pixels."""
    return -(-length // (2 * SIDE))


def centres(length: int) -> NDArray[np.int64]:
    """Return which pixels of an axis are sampled, shape (64,), after the filters."""
    return ((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64)


def downsample(picture: Picture) -> NDArray[np.float32]:
    """Blur and sample a picture; returns shape (64, 64).

    One of 64 by 64 is taken as it is. Others go through in blocks of rows: three floats for each pixel of a block.
    """
    rows, columns = picture.rows, picture.columns
    if (rows, columns) == (SIDE, SIDE):
        return np.concatenate([luma for _, luma in picture.luma(0, SIDE)])
    # Of a side below 64 pixels some are sampled twice.
    down, of_rows = np.unique(centres(rows), return_inverse=True)
    across, of_columns = np.unique(centres(columns), return_inverse=True)
    width = window(rows)
    lines = np.zeros((width + rows + width // 2, len(across)), np.float32)
    lines[width : width + rows] = _filtered_three_times(picture, across)
    return _means(lines, width, down)[np.ix_(of_rows, of_columns)]


def _filtered_three_times(picture: Picture, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Filter along the rows, down the columns and along the rows again; return the columns at `places`."""
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
        # The filter down the columns goes on from block to block, and after the last of them to its end.
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


def _means(lines: NDArray[np.float32], width: int, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the means of `width` neighbours around some places down each column, of lines as `_sums` takes them."""
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
    """Put the running sums of `width` neighbours down each column; return the last, from which the next lines go on.

    Each step takes one value in and gives one back, and keeps every rounding on its way. The sum around a line is done
    half a width after it. At the ends windows have fewer values: there the lines begin with `width` of zeros and end
    with half as many, and to add or subtract those rounds nothing. `steps` tells which sums to keep; None is all.

    All columns step together, but for a few of them, where the steps would take longer than what they do: these go one
    after the other.
    """
    if lines.shape[1] < _FEW_LINES:
        return _sums_one_by_one(lines, width, out=out, before=before, steps=steps)
    total = np.zeros(lines.shape[1], np.float32) if before is None else before
    targets = out if steps is None else chain.from_iterable(map(repeat, out, np.diff(steps, prepend=-1).tolist()))
    coming, going = tee(lines)
    for comes, goes, target in zip(islice(coming, width, None), going, targets, strict=False):
        np.add(total, comes, target)
        np.subtract(target, goes, target)
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
    """Do what `_sums` does: each column is one accumulation of values that come and values that go, in turn."""
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
    """Return how many values the window has after each step along an axis, shape (steps, 1)."""
    width = window(length)
    step = np.arange(length + width // 2)
    return (np.minimum(step + 1, length) - np.maximum(step + 1 - width, 0)).astype(np.float32)[:, None]


def _transpose(block: NDArray[np.float32], *, out: NDArray[np.float32]) -> None:
    """Put a block's rows where `out` has columns."""
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
