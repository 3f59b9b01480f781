"""A picture for hashing. It provides 8-bit pixels, or strips of luma, from a Pillow image of any mode.

Strips are so small that the values computed from a strip stay in the processor's cache. Luma needs no second copy of
the whole picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from countermark.signals.memory import Lease

_STRIP_PIXELS = 1 << 16
"""How many pixels a strip has. Pillow makes two temporary copies of a strip, of 256 KiB each."""

_HALF_OF_MAX_FLOAT = 1.5e38

_GREY_MODES = ("1", "L", "LA", "La")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image to hash, and the size of the full picture: `rows` by `columns` pixels.

    A draft's image is smaller by the factor `scale`. If the file was damaged, `partial` describes the missing part; it
    is None if nothing is missing. `lease` is the lease for the image's memory.
    """

    image: Image.Image | NDArray[np.uint8]
    rows: int
    columns: int
    scale: int = 1
    partial: str | None = None
    lease: Lease | None = field(default=None, repr=False, compare=False)

    @property
    def is_draft(self) -> bool:
        """Whether each pixel of the image represents several pixels of the picture."""
        return self.scale > 1

    def pixels(self) -> NDArray[np.uint8]:
        """Return the image's pixels, as `pixels_from_image` does."""
        return pixels_from_image(self.image) if isinstance(self.image, Image.Image) else self.image

    def luma(self, start: int, stop: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the rows from `start` to `stop` in strips: a slice of row numbers, and the luma, shape (rows, columns).

        The reference computes luma in double precision, and then rounds it to single precision. Pillow adds integers:
        thousandths of luma. Its only division, in single precision, rounds the sum to the same float.
        """
        for rows in strips(start, stop, -(-self.columns // self.scale)):
            if isinstance(self.image, Image.Image):
                strip = _to_basic_mode(self.image.crop((0, rows.start, self.image.width, rows.stop)))
            else:
                strip = Image.fromarray(self.image[rows])
            yield rows, np.asarray(strip.convert("F"))


def picture_from_pixels(pixels: NDArray[np.uint8]) -> Picture:
    """Return a picture of grey pixels, shape (rows, columns), or RGB pixels, shape (rows, columns, 3)."""
    return Picture(image=pixels, rows=pixels.shape[0], columns=pixels.shape[1])


def picture_from_image(image: Image.Image, *, rows: int, columns: int, scale: int = 1) -> Picture:
    """Return a picture of a Pillow image of any mode, as a person sees it."""
    visible = scale_to_8_bits(np.asarray(image)) if image.mode in ("I", "F") else image
    return Picture(image=visible, rows=rows, columns=columns, scale=scale)


def pixels_from_image(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of a Pillow image of any mode as a person sees them, 8 bits per channel.

    Shape (rows, columns) for grey, (rows, columns, 3) for RGB; C order.
    """
    if image.mode in ("I", "F"):
        return scale_to_8_bits(np.asarray(image))
    is_grey = image.mode in _GREY_MODES or image.mode.startswith("I;16")
    pixels = np.empty((image.height, image.width, 1 if is_grey else 3), np.uint8)
    for rows in strips(0, image.height, image.width):
        strip = _to_basic_mode(image.crop((0, rows.start, image.width, rows.stop)))
        channels = np.asarray(strip)
        pixels[rows] = channels[..., None] if strip.mode == "L" else channels[..., : pixels.shape[2]]
    return pixels[..., 0] if is_grey else pixels


def strips(start: int, stop: int, columns: int) -> Iterator[slice]:
    """Yield the rows from `start` to `stop` in strips of about `_STRIP_PIXELS` pixels."""
    height = max(1, _STRIP_PIXELS // columns)
    for top in range(start, stop, height):
        yield slice(top, min(top + height, stop))


def _to_basic_mode(strip: Image.Image) -> Image.Image:
    """Return a strip in mode L, LA, RGB or RGBA."""
    if strip.mode in ("L", "LA", "RGB", "RGBA"):
        return strip
    if strip.mode.startswith("I;16"):
        sixteen = np.asarray(strip).astype(np.uint32)
        return Image.fromarray(((sixteen * 255 + 32767) // 65535).astype(np.uint8))
    if strip.mode in ("La", "RGBa"):
        # The file's colours were multiplied by alpha. A person sees the colours before that multiplication.
        return strip.convert(strip.mode.upper())
    if strip.mode == "1":
        return strip.convert("L")
    # Transparency does not affect the colours. Pillow warns if the conversion loses it, so it is removed first.
    strip.info.pop("transparency", None)
    return strip.convert("RGB")


def scale_to_8_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale samples of 8, 16 or 32 bits to 8 bits.

    White is 65535 for unsigned samples of 16 bits. For other samples, a file does not state the value of white, so the
    largest sample determines it. White is 1 for floats up to 1, 255 for values up to 255, and 65535 for values up to
    65535. If a sample is larger or negative, the least sample becomes black and the greatest becomes white.
    """
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float32), copy=False, posinf=0.0, neginf=0.0)
    black, white = float(finite.min()), float(finite.max())
    if max(-black, white) > _HALF_OF_MAX_FLOAT:
        # The samples are halved, so that the difference of two samples does not exceed the range of a float.
        finite *= 0.5
        black, white = black / 2, white / 2
    if black >= 0 and white <= 65535:
        black = 0.0
        white = 65535.0 if white > 255 else 1.0 if values.dtype.kind == "f" and white <= 1 else 255.0
    finite -= black
    finite *= 255 / max(white - black, 1e-30)
    return np.rint(finite, out=finite).astype(np.uint8)
