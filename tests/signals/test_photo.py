"""The eight variants of a photo, and the trimming of its black borders."""

import numpy as np
import pytest
from PIL import Image

from countermark.signals import photo as pictures
from tests.signals.photos import photo

TURN = Image.Transpose

# As python-threatexchange makes them with Pillow.
PEER = {
    "ORIGINAL": lambda image: image,
    "ROTATE90": lambda image: image.rotate(90, expand=True),
    "ROTATE180": lambda image: image.rotate(180, expand=True),
    "ROTATE270": lambda image: image.rotate(270, expand=True),
    "FLIPX": lambda image: image.transpose(TURN.FLIP_TOP_BOTTOM),
    "FLIPY": lambda image: image.transpose(TURN.FLIP_LEFT_RIGHT),
    "FLIPPLUS1": lambda image: image.transpose(TURN.ROTATE_270).transpose(TURN.FLIP_LEFT_RIGHT),
    "FLIPMINUS1": lambda image: image.transpose(TURN.ROTATE_90).transpose(TURN.FLIP_LEFT_RIGHT),
}


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_eight_variants_are_the_peer_s_in_its_order(mode: str) -> None:
    image = photo("chelsea.png").convert(mode)
    variants = pictures.variants(np.asarray(image))
    assert list(variants) == list(PEER)
    for name, pixels in variants.items():
        assert np.array_equal(pixels, np.asarray(PEER[name](image))), name


@pytest.mark.parametrize("channels", [(), (3,)])
def test_black_borders_are_stripped_up_to_the_threshold(channels: tuple[int, ...]) -> None:
    inner = np.full((20, 30, *channels), 90, np.uint8)
    inner[5:15, 5:25] = 0
    boxed = np.full((40, 70, *channels), 15, np.uint8)
    boxed[8:28, 11:41] = inner
    assert np.array_equal(pictures.unletterbox(boxed), inner)
    boxed[39, 69] = 16
    assert pictures.unletterbox(boxed).shape[:2] == (32, 59)
    assert pictures.unletterbox(boxed, threshold=14).shape == boxed.shape


def test_one_bright_channel_makes_a_border_part_of_the_picture() -> None:
    boxed = np.zeros((10, 10, 3), np.uint8)
    boxed[0, 0, 2] = 200
    assert pictures.unletterbox(boxed).shape == (1, 1, 3)


def test_a_picture_that_is_dark_all_over_stays_whole() -> None:
    dark = np.full((10, 12, 3), 15, np.uint8)
    assert pictures.unletterbox(dark).shape == dark.shape
