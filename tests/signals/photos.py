"""The photos that scikit-image's wheel carries, and pictures that are hard on a hash."""

import io
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from countermark.signals import pdq
from countermark.signals.picture import picture_from_pixels

NAMES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "color.png",
    "grass.png",
    "gravel.png",
    "horse.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "logo.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "phantom.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)


@cache
def photo(name: str) -> Image.Image:
    """Return a photo in RGB, at most 700 pixels wide and high."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    image = Image.open(Path(spec.origin).parent / "data" / name).convert("RGB")
    image.thumbnail((700, 700))
    return image


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def copies(image: Image.Image, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Yield ten copies of a photo: as it is, resized, cropped, compressed, grey, stretched."""
    random = np.random.default_rng(seed)
    width, height = image.size
    yield np.asarray(image)
    for longest in (96, 180, 333):
        small = image.copy()
        small.thumbnail((longest, longest))
        yield np.asarray(small)
    for quality in (20, 75):
        yield np.asarray(Image.open(io.BytesIO(saved(image, "JPEG", quality=quality))))
    left, top = int(random.integers(0, width // 3)), int(random.integers(0, height // 3))
    yield np.asarray(image.crop((left, top, width, height)))
    yield np.asarray(image.convert("L").convert("RGB"))
    yield np.asarray(image.resize((int(random.integers(65, 600)), int(random.integers(65, 600)))))
    yield np.asarray(image.resize((64, 64)))


def hard_pictures() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield pictures whose coefficients are equal, nearly equal or enormous, and pictures of odd shapes, by name."""
    random = np.random.default_rng(7)
    for value in (0, 1, 127, 255):
        yield f"flat {value}", np.full((200, 300, 3), value, np.uint8)
    yield "flat red", np.broadcast_to(np.array([200, 10, 30], np.uint8), (130, 130, 3)).copy()
    for rows, columns in ((64, 64), (65, 64), (63, 200), (128, 128), (129, 128), (300, 400), (511, 513)):
        across = np.linspace(0, 255, columns)
        down = np.linspace(0, 255, rows)[:, None]
        for name, grey in (("across", across + 0 * down), ("down", 0 * across + down), ("both", (across + down) / 2)):
            yield f"gradient {name} {rows}x{columns}", _rgb(grey)
        yield f"noise {rows}x{columns}", random.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        yield f"black and white noise {rows}x{columns}", _rgb(random.integers(0, 2, (rows, columns)) * 255)
        for square in (1, 2, 7, 16, 50):
            yield f"chessboard of {square} {rows}x{columns}", _rgb(_squares(rows, columns, square) % 2 * 255)
    for side in (5, 6, 7, 17, 63, 100):
        for long in (5, 64, 700, 3001):
            yield f"strip {side}x{long}", random.integers(0, 256, (side, long, 3), dtype=np.uint8)
            yield f"strip {long}x{side}", random.integers(0, 256, (long, side, 3), dtype=np.uint8)
    for rows, columns in ((1, 1), (1, 500), (500, 1), (4, 4), (4, 900), (3, 64)):
        yield f"too thin {rows}x{columns}", random.integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def drawn_pictures(seed: int, *, count: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield pictures of many kinds and of sides from 5 to 2900 pixels, most of them small, each with its kind."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        longest = int(2 ** random.uniform(5, 11.5))
        shortest = max(5, int(longest / random.uniform(1, 4.5)))
        rows, columns = random.permutation([longest, shortest])
        kind = KINDS[random.integers(len(KINDS))]
        yield kind, _drawn(kind, int(rows), int(columns), random)


KINDS = ("photo", "noisy photo", "noise", "two colours", "chessboard", "stripes", "gradient", "tiles", "blocks")


def _drawn(kind: str, rows: int, columns: int, random: np.random.Generator) -> NDArray[np.uint8]:
    one, other = random.integers(0, 256, (2, 3))
    size = int(random.integers(1, 80))
    match kind:
        case "photo" | "noisy photo":
            pixels = np.asarray(photo(NAMES[random.integers(len(NAMES))]).resize((columns, rows)))
            noise = random.normal(0, size / 4, pixels.shape) * (kind == "noisy photo")
            return (pixels + noise).clip(0, 255).astype(np.uint8)
        case "noise":
            return random.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        case "gradient":
            slope = random.random() * np.arange(rows)[:, None] / rows + random.random() * np.arange(columns) / columns
            return np.asarray(one + slope[..., None] / slope.max() * (other - one), np.uint8)
        case "tiles":
            tile = random.integers(0, 256, (size, size // 2 + 1, 3), dtype=np.uint8)
            return np.tile(tile, (rows // size + 1, columns // (size // 2 + 1) + 1, 1))[:rows, :columns]
        case "blocks":
            coarse = random.integers(0, 256, (rows // size + 1, columns // size + 1, 3), dtype=np.uint8)
            return coarse.repeat(size, axis=0).repeat(size, axis=1)[:rows, :columns]
    squares = _squares(rows, columns if kind == "chessboard" else 1, size) if kind != "two colours" else 0
    first = random.random((rows, columns)) < random.random() if kind == "two colours" else squares % 2 == 0
    return np.asarray(np.where(np.broadcast_to(first, (rows, columns))[..., None], one, other), np.uint8)


def _squares(rows: int, columns: int, size: int) -> NDArray[np.int64]:
    return np.arange(rows)[:, None] // size + np.arange(columns) // size


def _rgb(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def hash_of_pixels(pixels: NDArray[np.uint8]) -> tuple[str, int]:
    """Return the PDQ hash of pixels in hex, and its quality; the shape is (rows, columns) or (rows, columns, 3)."""
    return pdq.from_picture(picture_from_pixels(pixels))
