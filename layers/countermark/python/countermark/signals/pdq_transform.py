"""Computes PDQ hashes with matrix products. The hashes are the same, bit by bit, as the reference implementation's.

All steps of PDQ except the last are linear. The two box filters and the sampling combine to one banded matrix per axis.
So the 64 by 64 image is the sum of `rows @ strip @ columns` over all strips. This saves nine tenths of the work, but
changes the order of additions. If the different rounding could change a bit or the quality, `pdq_referee` computes the
result.

Source: PDQ hashing specification (facebook/ThreatExchange, hashing.pdf), and the reference implementation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from countermark.signals import pdq_referee as referee
from countermark.signals.pdq_referee import COSINES, FREQUENCIES, GRADIENTS_PER_QUALITY, SIDE
from countermark.signals.picture import Picture, picture_from_pixels

MIN_SIDE_PIXELS = 5
"""The minimum side of a picture that PDQ hashes. If a side is shorter, the hash is all zeros and the quality is 0."""

COEFFICIENT_TOLERANCE = 0.0025
"""The maximum expected difference between a coefficient and the reference's coefficient.

The value is for pictures whose longest side has at most 512 pixels. The rounding errors of the reference's running sums
grow like a random walk. So the tolerance grows with the square root of the longest side. The tolerance is based on
measurements, not on a proof: see docs/hashing.md.
"""

EDGE_TOLERANCE = 0.0075
"""The tolerance of coefficients with the lowest frequency of an axis. They add up the errors that all rows share."""

GRADIENT_TOLERANCE = 0.002
"""The tolerance of a gradient, in hundredths of full scale. It grows with the longest side in the same way."""

TRUSTED_SIDES_PIXELS = range(64, 8193)
"""The sides, in pixels, for which the tolerances were measured.

If a side is longer, the reference's running sums have larger errors. If a side is shorter, the reference uses pixels
more than once, and so repeats their rounding errors.
"""

TRUSTED_ASPECT = 4
"""The maximum ratio of the sides for which the tolerances hold. `TRUSTED_SIDES_PIXELS` explains the reason."""

_BAND_OUTPUTS = 4
"""The number of outputs of a band. It is so small that OpenBLAS computes each product in one thread.

For more than 262,144 multiplications, OpenBLAS uses several threads, which wait for each other in a busy loop. A strip
has 65,536 pixels, so a band needs at most 4 times as many multiplications.

Source: OpenBLAS, interface/gemm.c and common.h, SMP_THRESHOLD_MIN and GEMM_MULTITHREAD_THRESHOLD.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PdqHash:
    """A PDQ hash in hex, its quality in 0..100, and whether `pdq_referee` had to compute it."""

    value: str
    quality: int
    refereed: bool


def hash_picture(picture: Picture) -> PdqHash:
    """Return the hash of a picture. It is exactly equal to the reference's hash, except for drafts."""
    coefficients, quality, refereed = _transform(picture)
    return PdqHash(value=to_hex(coefficients), quality=quality, refereed=refereed)


def hash_variants(picture: Picture) -> tuple[dict[str, str], int]:
    """Return the hashes of the eight rotated or mirrored variants, with the names of `photo.variants`, and the quality.

    If an image is transposed, so are its coefficients. A mirrored image is sampled at other pixels, but from the same
    strips. `pdq_referee` computes at most the hash of the original, and only if necessary.
    """
    if min(picture.rows, picture.columns) < MIN_SIDE_PIXELS:
        hashed = hash_picture(picture)
        return dict.fromkeys(_VARIANTS, hashed.value), hashed.quality
    images = _mirrored(picture)
    original, quality, _ = _transform(picture, images[0])
    upright, sides, top_down, both = map(_coefficients, images)
    variants: tuple[NDArray[np.float32], ...] = (
        original,
        sides.T,
        both,
        top_down.T,
        top_down,
        sides,
        upright.T,
        both.T,
    )
    return {name: to_hex(each) for name, each in zip(_VARIANTS, variants, strict=True)}, quality


def _mirrored(picture: Picture) -> tuple[NDArray[np.float32], ...]:
    """Return four downsampled images: unchanged, mirrored left to right, mirrored top to bottom, mirrored both ways."""
    if not picture.is_draft and not _is_trusted(picture.rows, picture.columns):
        pixels = picture.pixels()
        variants = (pixels, pixels[:, ::-1], pixels[::-1], pixels[::-1, ::-1])
        return tuple(referee.downsample(picture_from_pixels(each)) for each in variants)
    (upright, sides), (top_down, both) = _downsample(picture, is_mirrored=(False, True))
    return upright, sides[:, ::-1], top_down[::-1], both[::-1, ::-1]


def _transform(
    picture: Picture, downsampled: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float32], int, bool]:
    """Return the coefficients, the quality, and whether `pdq_referee` computed them.

    `downsampled` is the result of `downsample`, if the caller has it already.
    """
    rows, columns = picture.rows, picture.columns
    if min(rows, columns) < MIN_SIDE_PIXELS:
        return np.zeros((FREQUENCIES, FREQUENCIES), np.float32), 0, False
    if picture.is_draft or _is_trusted(rows, columns):
        image = downsample(picture) if downsampled is None else downsampled
        coefficients = _coefficients(image)
        if picture.is_draft:
            return coefficients, referee.quality(image), False
        quality = quality_if_certain(image, longest_pixels=max(rows, columns))
        if quality is not None and is_certain(coefficients, longest_pixels=max(rows, columns)):
            return coefficients, quality, False
    image = referee.downsample(picture)
    return referee.coefficients(image), referee.quality(image), True


def _is_trusted(rows: int, columns: int) -> bool:
    """Return whether the tolerances hold for an image of this size. An image of 64 by 64 pixels is not blurred."""
    shortest, longest = sorted((rows, columns))
    is_measured = shortest in TRUSTED_SIDES_PIXELS and longest in TRUSTED_SIDES_PIXELS
    return is_measured and longest <= TRUSTED_ASPECT * shortest and (rows, columns) != (SIDE, SIDE)


def downsample(picture: Picture) -> NDArray[np.float32]:
    """Blur and sample a picture; return shape (64, 64)."""
    image: NDArray[np.float32] = _downsample(picture, is_mirrored=(False,))[0, 0]
    return image


def _downsample(picture: Picture, *, is_mirrored: Sequence[bool]) -> NDArray[np.float32]:
    """Return an image for each combination of rows and columns, mirrored or not.

    The shape is (n, n, 64, 64) for n = len(is_mirrored). Mirrored outputs are in the order of the original pixels, not
    of the mirrored image.
    """
    down, across = (
        [_bands(length, scale=picture.scale, mirrored=each) for each in is_mirrored]
        for length in (picture.rows, picture.columns)
    )
    rows, columns = (-(-length // picture.scale) for length in (picture.rows, picture.columns))
    blurred = np.zeros((len(down), SIDE, columns), np.float32)
    for place, luma in picture.luma(0, rows):
        for bands, half in zip(down, blurred, strict=True):
            for band in bands:
                first, last = max(band.first, place.start), min(band.last, place.stop)
                if first < last:
                    share = band.weights[:, first - band.first : last - band.first]
                    half[band.outputs] += share @ luma[first - place.start : last - place.start]
    images = np.empty((len(down), len(across), SIDE, SIDE), np.float32)
    for whole, half in zip(images, blurred, strict=True):
        for image, bands in zip(whole, across, strict=True):
            for band in bands:
                image[:, band.outputs] = half[:, band.first : band.last] @ band.weights.T
    return images


def _coefficients(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the 16 by 16 coefficients of a 64 by 64 image."""
    return (COSINES @ image @ COSINES.T).astype(np.float32, copy=False)


def is_certain(coefficients: NDArray[np.float32], *, longest_pixels: int) -> bool:
    """Return whether rounding cannot change which coefficients are above the median."""
    is_upper = coefficients > _median(coefficients)
    if 2 * is_upper.sum() != is_upper.size:
        return False
    slack = _SLACK * _tolerance_factor(longest_pixels)
    return bool((coefficients - slack)[is_upper].min() > (coefficients + slack)[~is_upper].max())


def quality_if_certain(image: NDArray[np.float32], *, longest_pixels: int) -> int | None:
    """Return the quality; None if rounding could change it, because a gradient is close to a whole number."""
    gradients = np.abs(referee.gradients(image))
    tolerance = GRADIENT_TOLERANCE * _tolerance_factor(longest_pixels)
    least, most = (
        min(100, int(np.floor(bound).sum()) // GRADIENTS_PER_QUALITY)
        for bound in (np.maximum(gradients - tolerance, 0), gradients + tolerance)
    )
    return least if least == most else None


def _tolerance_factor(longest_pixels: int) -> float:
    return math.sqrt(max(1.0, longest_pixels / 512))


def to_hex(coefficients: NDArray[np.float32]) -> str:
    """Return the hash of coefficients. A coefficient above the median is a 1 bit; the last coefficient comes first."""
    return np.packbits((coefficients > _median(coefficients)).ravel()[::-1]).tobytes().hex()


def _median(coefficients: NDArray[np.float32]) -> np.float32:
    """Return the lower median."""
    middle = coefficients.size // 2 - 1
    return np.partition(coefficients, middle, axis=None)[middle]  # type: ignore[no-any-return]  # an array of one dimension


@dataclass(frozen=True, slots=True, kw_only=True)
class _Band:
    """A few adjacent outputs, the range of pixels from which they are computed, and the weights of these pixels."""

    outputs: slice
    first: int
    last: int
    weights: NDArray[np.float32]


def _bands(length: int, *, scale: int, mirrored: bool) -> list[_Band]:
    """Divide an axis into bands of outputs.

    A pixel of a draft represents `scale` pixels of the full picture, and has the sum of their weights. If `mirrored` is
    true, each pixel has the weight that it has in the mirrored image, and the last output is first.
    """
    first, weights = _taps(length)
    taps = weights.shape[1]
    if mirrored:
        first, weights = (length - first - taps)[::-1], weights[::-1, ::-1]
    # Taps beyond an end of the image have weight 0.
    place = np.clip(first[:, None] + np.arange(taps), 0, length - 1) // scale
    spread = np.zeros((SIDE, -(-length // scale)), np.float32)
    np.add.at(spread, (np.arange(SIDE)[:, None], place), weights)
    starts, stops = place[:, 0], place[:, -1] + 1
    runs = [(at, int(starts[at]), int(stops[at + _BAND_OUTPUTS - 1])) for at in range(0, SIDE, _BAND_OUTPUTS)]
    return [
        _Band(
            outputs=slice(at, at + _BAND_OUTPUTS),
            first=start,
            last=stop,
            weights=spread[at : at + _BAND_OUTPUTS, start:stop],
        )
        for at, start, stop in runs
    ]


@lru_cache(maxsize=64)
def _taps(length: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each output's first pixel, shape (64,), and the weights of the pixels from there on, shape (64, taps).

    Two box filters are applied, so an output is a mean of means. Each pixel in the window around the output's centre
    distributes its weight equally over the window around that pixel. Windows at the image's edges have fewer pixels.
    """
    width = referee.window(length)
    ahead = width // 2
    behind = width - 1 - ahead
    centre = referee.centres(length)[:, None]
    between = centre + np.arange(-behind, ahead + 1)
    exists = (between >= 0) & (between < length)
    low = np.clip(between - behind, 0, length)
    high = np.clip(between + ahead + 1, 0, length)
    share = np.where(exists, 1.0, 0.0) / exists.sum(axis=1, keepdims=True) / np.maximum(high - low, 1)
    first = np.maximum(centre - 2 * behind, 0)
    taps = 2 * width
    steps = np.zeros((SIDE, taps + 1))
    output = np.arange(SIDE)[:, None]
    np.add.at(steps, (output, np.clip(low - first, 0, taps)), share)
    np.subtract.at(steps, (output, np.clip(high - first, 0, taps)), share)
    return first[:, 0], np.cumsum(steps, axis=1)[:, :taps].astype(np.float32)


_VARIANTS = ("ORIGINAL", "ROTATE90", "ROTATE180", "ROTATE270", "FLIPX", "FLIPY", "FLIPPLUS1", "FLIPMINUS1")

_SLACK = np.full((FREQUENCIES, FREQUENCIES), COEFFICIENT_TOLERANCE, np.float32)
_SLACK[0] = _SLACK[:, 0] = EDGE_TOLERANCE
"""The tolerance of each coefficient, for pictures whose longest side has at most 512 pixels."""
