"""A picture as it is hashed: strips of 8-bit pixels, or of luma, from a Pillow image of any mode.

Strips are small, so that what is made of one stays in the processor's cache, and a picture is never held twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from countermark.signals.memory import Lease

_STRIP_PIXELS = 1 << 16
"""How many pixels a strip has: Pillow makes two more copies of it on the way, 256 KiB each."""

_HALF_OF_FLOATS = 1.5e38

_GREY_MODES = ("1", "L", "LA", "La")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is hashed: an image, and the size of the whole picture. A draft's image has a half or less of it a side.

    `partial` says what is missing of a picture that is there in part. `lease` is the memory that it takes of a budget.
    """

    image: Image.Image | NDArray[np.uint8]
    rows: int
    columns: int
    scale: int = 1
    partial: str | None = None
    lease: Lease | None = field(default=None, repr=False, compare=False)

    @property
    def is_draft(self) -> bool:
        """Tell whether each pixel of the image stands for several of the picture."""
        return self.scale > 1

    def pixels(self) -> NDArray[np.uint8]:
        """Return the image's pixels, as `pixels_of`."""
        return pixels_of(self.image) if isinstance(self.image, Image.Image) else self.image

    def luma(self, start: int, stop: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield strips of some of the image's rows, from top to bottom: which, and their luma, shape (rows, columns).

        The reference weighs and adds in double precision, and then rounds. Pillow adds whole thousandths, and one
        division in single precision rounds them to the same float.
        """
        for rows in strips(start, stop, -(-self.columns // self.scale)):
            if isinstance(self.image, Image.Image):
                strip = _plain(self.image.crop((0, rows.start, self.image.width, rows.stop)))
            else:
                strip = Image.fromarray(self.image[rows])
            yield rows, np.asarray(strip.convert("F"))


def of_pixels(pixels: NDArray[np.uint8]) -> Picture:
    """Return the picture that pixels of shape (rows, columns) or (rows, columns, 3) show, grey or RGB."""
    return Picture(image=pixels, rows=pixels.shape[0], columns=pixels.shape[1])


def of_image(image: Image.Image, *, rows: int, columns: int, scale: int = 1) -> Picture:
    """Return the picture that a person sees in a Pillow image of any mode."""
    seen = scaled(np.asarray(image)) if image.mode in ("I", "F") else image
    return Picture(image=seen, rows=rows, columns=columns, scale=scale)


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """Return what a person sees in a Pillow image of any mode, 8 bits a channel.

    Shape (rows, columns) for grey, (rows, columns, 3) for RGB; C order.
    """
    if image.mode in ("I", "F"):
        return scaled(np.asarray(image))
    is_grey = image.mode in _GREY_MODES or image.mode.startswith("I;16")
    pixels = np.empty((image.height, image.width, 1 if is_grey else 3), np.uint8)
    for rows in strips(0, image.height, image.width):
        strip = _plain(image.crop((0, rows.start, image.width, rows.stop)))
        channels = np.asarray(strip)
        pixels[rows] = channels[..., None] if strip.mode == "L" else channels[..., : pixels.shape[2]]
    return pixels[..., 0] if is_grey else pixels


def strips(start: int, stop: int, columns: int) -> Iterator[slice]:
    """Yield the rows of a picture in strips of some `_STRIP_PIXELS`."""
    height = max(1, _STRIP_PIXELS // columns)
    for top in range(start, stop, height):
        yield slice(top, min(top + height, stop))


def _plain(strip: Image.Image) -> Image.Image:
    """Return a strip in mode L, LA, RGB or RGBA."""
    if strip.mode in ("L", "LA", "RGB", "RGBA"):
        return strip
    if strip.mode.startswith("I;16"):
        sixteen = np.asarray(strip).astype(np.uint32)
        return Image.fromarray(((sixteen * 255 + 32767) // 65535).astype(np.uint8))
    if strip.mode in ("La", "RGBa"):
        # The colours were multiplied by alpha; a person is meant to see them before that.
        return strip.convert(strip.mode.upper())
    if strip.mode == "1":
        return strip.convert("L")
    # The palette alone has the colours. Pillow warns where transparency must get lost on the way.
    strip.info.pop("transparency", None)
    return strip.convert("RGB")


def scaled(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return samples of 8, 16 or 32 bits as 8 bits.

    Unsigned ones of 16 bits have their white at 65535. Else nothing in a file tells its white, so its largest value
    does. Floats up to 1 have their white at 1, values up to 255 at 255, up to 65535 at 65535; all others, and those
    with negative values, are stretched from their least to their greatest.
    """
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float32), copy=False, posinf=0.0, neginf=0.0)
    black, white = float(finite.min()), float(finite.max())
    if max(-black, white) > _HALF_OF_FLOATS:
        # So that their difference is a float, too.
        finite *= 0.5
        black, white = black / 2, white / 2
    if black >= 0 and white <= 65535:
        black = 0.0
        white = 65535.0 if white > 255 else 1.0 if values.dtype.kind == "f" and white <= 1 else 255.0
    finite -= black
    finite *= 255 / max(white - black, 1e-30)
    return np.rint(finite, out=finite).astype(np.uint8)
