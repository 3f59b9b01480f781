"""The eight variants of a photo, and the trimming of its black borders."""

import numpy as np
import pytest
from PIL import Image

from countermark.domain.signal import Unhashable
from countermark.signals import decode, pdq
from countermark.signals import photo as pictures
from countermark.signals.picture import picture_from_pixels
from tests.signals.photos import NAMES, copies, hash_of_pixels, photo, saved

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


@pytest.mark.parametrize("name", NAMES)
def test_one_pass_gives_the_hashes_of_all_variants_within_the_tolerance(name: str) -> None:
    for number, pixels in enumerate(copies(photo(name), seed=3)):
        hashes, quality = pdq.variants_from_picture(picture_from_pixels(pixels))
        assert (hashes["ORIGINAL"], quality) == hash_of_pixels(pixels)
        if quality >= pdq.MIN_QUALITY:
            for variant, turned in pictures.variants(pixels).items():
                apart = int(hashes[variant], 16) ^ int(hash_of_pixels(turned)[0], 16)
                assert apart.bit_count() <= pdq.VARIANT_TOLERANCE_BITS, (number, variant)


@pytest.mark.parametrize("shape", [(4, 90, 3), (64, 64), (64, 64, 3), (5, 200, 3), (300, 70)])
def test_variants_of_any_shape_have_hashes_by_the_same_names(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    hashes, _ = pdq.variants_from_picture(picture_from_pixels(pixels))
    assert list(hashes) == list(pictures.variants(pixels))
    for variant, turned in pictures.variants(pixels).items():
        assert (int(hashes[variant], 16) ^ int(hash_of_pixels(turned)[0], 16)).bit_count() <= 2


def test_the_variants_of_a_draft_are_near_those_of_the_whole() -> None:
    content = saved(photo("coffee.png").resize((2401, 2049)), "JPEG")
    near, _ = pdq.variants_from_picture(decode.picture(content, draft=True))
    whole, _ = pdq.variants_from_picture(decode.picture(content))
    for name, value in whole.items():
        assert (int(value, 16) ^ int(near[name], 16)).bit_count() <= 2, name


def test_a_hasher_of_variants_gives_the_original_first_or_says_why_not() -> None:
    def hashed(content: bytes) -> object:
        hasher = pdq.PDQ.variants_hasher()
        hasher.update(content)
        return hasher.finish()

    image = photo("coffee.png")
    hashes = hashed(saved(image, "PNG"))
    assert isinstance(hashes, dict)
    assert next(iter(hashes.items())) == ("ORIGINAL", hash_of_pixels(np.asarray(image))[0])
    low, broken = hashed(saved(Image.new("L", (90, 90)), "PNG")), hashed(b"no photo")
    assert isinstance(low, Unhashable)
    assert isinstance(broken, Unhashable)
    assert (low.code, broken.code) == ("low_quality", "damaged")


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
