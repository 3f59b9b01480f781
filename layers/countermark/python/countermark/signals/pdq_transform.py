"""PDQ of pixels, by matrix products, with the bits of its reference implementation.

PDQ is linear up to its last step: two box filters and the sampling fold into one banded matrix for each axis, so the 64
by 64 image is a sum over strips of `rows @ strip @ columns`. That leaves out nine tenths of the work, but
adds in another order. Where rounding could therefore decide a bit, or the quality, `pdq_referee` decides it.

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
from countermark.signals.picture import Picture, of_pixels

MIN_SIDE_PIXELS = 5
"""The shortest side that PDQ hashes; shorter ones have a hash of zeros and quality 0."""

COEFFICIENT_TOLERANCE = 0.0025
"""How far a coefficient may lie from the reference's, up to a longest side of 512 pixels.

The reference's running sums drift like a random walk, so the tolerance grows with the root of the longest side. What
it must cover is measured, not proven: see docs/hashing.md.
"""

EDGE_TOLERANCE = 0.0075
"""The same for the lowest frequency of either axis, where a drift that all rows share adds up."""

GRADIENT_TOLERANCE = 0.002
"""How far a gradient may lie from the reference's, in hundredths of full scale; it grows in the same way."""

TRUSTED_SIDES_PIXELS = range(64, 8193)
"""The sides for which the tolerances were measured. The reference's running sums drift along longer ones, and of
shorter ones it repeats the pixels, and so their rounding."""

TRUSTED_ASPECT = 4
"""The most that one side may be of the other, for the same reason."""

_BAND_OUTPUTS = 4
"""Outputs of a band: few enough that OpenBLAS gives no product to several threads, which would wait for each other in
a loop. It does from 262,144 multiplications on: a strip has 65,536 pixels.

Source: OpenBLAS, interface/gemm.c and common.h, SMP_THRESHOLD_MIN and GEMM_MULTITHREAD_THRESHOLD.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PdqHash:
    """A PDQ hash in hex, its quality in 0..100, and whether the order of float operations had to decide it."""

    value: str
    quality: int
    refereed: bool


def hash_picture(picture: Picture) -> PdqHash:
    """Hash a picture, to the bit as the reference does; but for a draft, of which no referee is asked."""
    coefficients, quality, refereed = _transform(picture)
    return PdqHash(value=to_hex(coefficients), quality=quality, refereed=refereed)


def hash_variants(picture: Picture) -> tuple[dict[str, str], int]:
    """Return the hashes of the eight dihedral variants by name, as `photo.variants` names them, and the quality.

    To transpose an image transposes its coefficients. A mirrored one is sampled at other pixels, but the same strips
    serve. No referee is asked but for the original.
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
    """Return what `downsample` does of a picture, mirrored sideways, mirrored top to bottom, and both."""
    if not picture.is_draft and not _is_trusted(picture.rows, picture.columns):
        pixels = picture.pixels()
        turned = (pixels, pixels[:, ::-1], pixels[::-1], pixels[::-1, ::-1])
        return tuple(referee.downsample(of_pixels(each)) for each in turned)
    (upright, sides), (top_down, both) = _downsample(picture, is_mirrored=(False, True))
    return upright, sides[:, ::-1], top_down[::-1], both[::-1, ::-1]


def _transform(
    picture: Picture, downsampled: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float32], int, bool]:
    """Return the coefficients, the quality, and whether the referee made them; takes `downsample` where it is known."""
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
    """Tell whether the tolerances hold for an image of this size; one of 64 by 64 is not blurred at all."""
    shortest, longest = sorted((rows, columns))
    is_measured = shortest in TRUSTED_SIDES_PIXELS and longest in TRUSTED_SIDES_PIXELS
    return is_measured and longest <= TRUSTED_ASPECT * shortest and (rows, columns) != (SIDE, SIDE)


def downsample(picture: Picture) -> NDArray[np.float32]:
    """Blur and sample a picture; returns shape (64, 64)."""
    image: NDArray[np.float32] = _downsample(picture, is_mirrored=(False,))[0, 0]
    return image


def _downsample(picture: Picture, *, is_mirrored: Sequence[bool]) -> NDArray[np.float32]:
    """Return images for every way to sample the rows and the columns, shape (ways, ways, 64, 64).

    Mirrored outputs stand in the order of the pixels, not of the mirrored image.
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
    """Tell whether the upper half of the coefficients is the reference's upper half, whatever was rounded how."""
    is_upper = coefficients > _median(coefficients)
    if 2 * is_upper.sum() != is_upper.size:
        return False
    slack = _SLACK * _growth(longest_pixels)
    return bool((coefficients - slack)[is_upper].min() > (coefficients + slack)[~is_upper].max())


def quality_if_certain(image: NDArray[np.float32], *, longest_pixels: int) -> int | None:
    """Return the quality; None where a gradient so near to a whole number that rounding decides it could change it."""
    gradients = np.abs(referee.gradients(image))
    tolerance = GRADIENT_TOLERANCE * _growth(longest_pixels)
    least, most = (
        min(100, int(np.floor(bound).sum()) // GRADIENTS_PER_QUALITY)
        for bound in (np.maximum(gradients - tolerance, 0), gradients + tolerance)
    )
    return least if least == most else None


def _growth(longest_pixels: int) -> float:
    return math.sqrt(max(1.0, longest_pixels / 512))


def to_hex(coefficients: NDArray[np.float32]) -> str:
    """Return the hash of coefficients: a bit for each above the median, the last of them first."""
    return np.packbits((coefficients > _median(coefficients)).ravel()[::-1]).tobytes().hex()


def _median(coefficients: NDArray[np.float32]) -> np.float32:
    """Return the lower median."""
    middle = coefficients.size // 2 - 1
    return np.partition(coefficients, middle, axis=None)[middle]  # type: ignore[no-any-return]  # an array of one dimension


@dataclass(frozen=True, slots=True, kw_only=True)
class _Band:
    """A few outputs next to each other, the run of pixels that has a share in them, and its weights."""

    outputs: slice
    first: int
    last: int
    weights: NDArray[np.float32]


def _bands(length: int, *, scale: int, mirrored: bool) -> list[_Band]:
    """Cut an axis into bands of outputs.

    A pixel of a draft stands for `scale` pixels of the whole picture, and weighs what they weigh together. `mirrored`
    weighs the pixels as in the mirrored image, last output first.
    """
    first, weights = _taps(length)
    taps = weights.shape[1]
    if mirrored:
        first, weights = (length - first - taps)[::-1], weights[::-1, ::-1]
    # Taps beyond an end of the image weigh nothing.
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
    """Return the first pixel of each of the 64 outputs, shape (64,), and the weights from there, shape (64, taps).

    An output is the mean of the means around its centre: each pixel in the window around the centre spreads its
    weight evenly over its own window. Windows end at the image's edges, where they have fewer pixels.
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
"""The tolerance of each coefficient, up to a longest side of 512 pixels."""
