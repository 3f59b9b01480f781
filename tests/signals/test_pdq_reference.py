"""PDQ of pixels beside pdqhash, the reference implementation: every bit, every quality."""

import numpy as np
import pdqhash
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from countermark.signals import pdq_referee, pdq_transform, picture
from countermark.signals.picture import picture_from_pixels
from tests.signals.photos import NAMES, copies, drawn_pictures, hard_pictures, hash_of_pixels, photo

HARD_PICTURES = dict(hard_pictures())

SMALL_PICTURES = st.tuples(st.integers(1, 150), st.integers(1, 150)).flatmap(
    lambda sides: arrays(np.uint8, (*sides, 3), fill=st.integers(0, 255))
)
LARGER_PICTURES = st.tuples(st.integers(64, 400), st.integers(64, 400), st.integers(0, 2**32), st.integers(1, 64))


def reference(pixels: NDArray[np.uint8]) -> tuple[str, int]:
    """Return hash and quality as pdqhash computes them."""
    bits, quality = pdqhash.compute(np.ascontiguousarray(pixels))
    return np.packbits(bits.astype(np.uint8)).tobytes().hex(), quality


@pytest.mark.parametrize("name", NAMES)
def test_every_copy_of_a_photo_has_the_reference_s_hash_and_quality(name: str) -> None:
    for number, pixels in enumerate(copies(photo(name), seed=len(name))):
        assert hash_of_pixels(pixels) == reference(pixels), number


@pytest.mark.parametrize("name", HARD_PICTURES)
def test_a_hard_picture_has_the_reference_s_hash_and_quality(name: str) -> None:
    assert hash_of_pixels(HARD_PICTURES[name]) == reference(HARD_PICTURES[name])


@given(SMALL_PICTURES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_small_picture_has_the_reference_s_hash_and_quality(pixels: NDArray[np.uint8]) -> None:
    assert hash_of_pixels(pixels) == reference(pixels)


@given(LARGER_PICTURES)
@settings(max_examples=60, deadline=None)
def test_any_larger_picture_has_the_reference_s_hash_and_quality(parameters: tuple[int, int, int, int]) -> None:
    rows, columns, seed, block = parameters
    coarse = np.random.default_rng(seed).integers(0, 256, (rows // block + 1, columns // block + 1, 3), dtype=np.uint8)
    pixels = coarse.repeat(block, axis=0).repeat(block, axis=1)[:rows, :columns]
    assert hash_of_pixels(pixels) == reference(pixels)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_a_hundred_pictures_of_any_kind_have_the_reference_s_hash_and_quality(seed: int) -> None:
    for number, (kind, pixels) in enumerate(drawn_pictures(seed, count=100)):
        assert hash_of_pixels(pixels) == reference(pixels), (number, kind, pixels.shape)


@pytest.mark.parametrize("name", [name for name in HARD_PICTURES if not name.startswith("too thin")])
def test_the_referee_s_coefficients_are_the_reference_s_to_the_last_bit(name: str) -> None:
    pixels = HARD_PICTURES[name]
    coefficients, quality = pdqhash.compute_float(pixels)
    image = pdq_referee.downsample(picture_from_pixels(pixels))
    assert np.array_equal(pdq_referee.coefficients(image).ravel()[::-1], coefficients)
    assert pdq_referee.quality(image) == quality


@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png", "rocket.jpg"])
def test_the_referee_s_coefficients_of_a_photo_are_the_reference_s_to_the_last_bit(name: str) -> None:
    pixels = np.asarray(photo(name))
    coefficients, quality = pdqhash.compute_float(pixels)
    image = pdq_referee.downsample(picture_from_pixels(pixels))
    assert np.array_equal(pdq_referee.coefficients(image).ravel()[::-1], coefficients)
    assert pdq_referee.quality(image) == quality


@pytest.mark.parametrize("block_rows", [1, 5, 64, 299])
@pytest.mark.parametrize(("rows", "columns"), [(300, 513), (300, 20), (1000, 65), (70, 900)])
def test_the_referee_s_bits_do_not_depend_on_its_blocks(
    rows: int, columns: int, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdq_referee, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(pdq_referee, "_BLOCK_PIXELS", 1)
    monkeypatch.setattr(picture, "_STRIP_PIXELS", 2000)
    pixels = np.asarray(photo("coffee.png").resize((columns, rows)))
    coefficients, _ = pdqhash.compute_float(pixels)
    assert np.array_equal(
        pdq_referee.coefficients(pdq_referee.downsample(picture_from_pixels(pixels))).ravel()[::-1], coefficients
    )


def test_luma_is_the_reference_s_for_every_colour() -> None:
    green, blue = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    for red in range(256):
        pixels = np.stack([np.full_like(green, red), green, blue], axis=2)
        expected = (pixels[..., 0] * 0.299 + pixels[..., 1] * 0.587) + pixels[..., 2] * 0.114
        luma = np.concatenate([strip for _, strip in picture_from_pixels(pixels).luma(0, 256)])
        assert np.array_equal(luma, expected.astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_matrix_products_stay_well_within_the_tolerances_on_photos(name: str) -> None:
    for pixels in list(copies(photo(name), seed=1))[:4]:
        fast, exact = (
            pdq_transform.downsample(picture_from_pixels(pixels)),
            pdq_referee.downsample(picture_from_pixels(pixels)),
        )
        apart = np.abs(pdq_referee.COSINES @ (fast - exact) @ pdq_referee.COSINES.T)
        assert (apart < pdq_transform._SLACK / 2).all()
        gradients_apart = pdq_referee.gradients(fast) - pdq_referee.gradients(exact)
        assert np.abs(gradients_apart).max() < pdq_transform.GRADIENT_TOLERANCE / 4


def test_few_photos_need_a_referee_and_a_flat_picture_does() -> None:
    refereed = [
        pdq_transform.hash_picture(picture_from_pixels(pixels)).refereed
        for name in NAMES
        for pixels in list(copies(photo(name), seed=1))[:9]
    ]
    assert 0 < sum(refereed) < len(refereed) / 10
    assert pdq_transform.hash_picture(picture_from_pixels(HARD_PICTURES["flat 127"])).refereed


@pytest.mark.parametrize(
    ("rows", "columns", "trusted"),
    [(65, 64, True), (64, 256, True), (64, 257, False), (63, 100, False), (8192, 2048, True), (8193, 4000, False)],
)
def test_only_sizes_for_which_the_tolerances_were_measured_are_trusted(rows: int, columns: int, trusted: bool) -> None:
    assert pdq_transform._is_trusted(rows, columns) is trusted
    assert pdq_transform._is_trusted(columns, rows) is trusted


@pytest.mark.parametrize("length", [64, 65, 816, 4000, 8192])
def test_no_product_is_so_large_that_openblas_gives_it_to_threads(length: int) -> None:
    most = 262_144
    assert most >= picture._STRIP_PIXELS * pdq_transform._BAND_OUTPUTS
    for band in pdq_transform._bands(length, scale=1, mirrored=False):
        assert pdq_referee.SIDE * band.weights.size <= most


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("length", "scale"), [(64, 1), (65, 1), (129, 1), (1000, 1), (4096, 2), (4097, 4), (9001, 8)])
def test_the_weights_of_each_output_add_up_to_one(length: int, scale: int, mirrored: bool) -> None:
    for band in pdq_transform._bands(length, scale=scale, mirrored=mirrored):
        assert np.allclose(band.weights.sum(axis=1), 1, atol=1e-5)
        assert 0 <= band.first < band.last <= -(-length // scale)


@pytest.mark.parametrize("longest_pixels", [64, 512, 2048, 8192])
def test_the_halves_of_the_coefficients_must_lie_two_tolerances_apart(longest_pixels: int) -> None:
    growth = max(1, longest_pixels / 512) ** 0.5
    apart = 2 * pdq_transform.COEFFICIENT_TOLERANCE * growth

    def certain(gap: float, *, edge: bool = False) -> bool:
        # 127 and 128 stand in the middle, or in the first column.
        coefficients = np.roll(np.arange(256, dtype=np.float32), 0 if edge else 8).reshape(16, 16)
        coefficients[coefficients > 127] += gap - 1
        return pdq_transform.is_certain(coefficients, longest_pixels=longest_pixels)

    assert certain(apart * 1.01)
    assert not certain(apart * 0.99)
    of_edge = (pdq_transform.COEFFICIENT_TOLERANCE + pdq_transform.EDGE_TOLERANCE) * growth
    assert certain(of_edge * 1.01, edge=True)
    assert not certain(of_edge * 0.99, edge=True)


def test_coefficients_of_which_many_are_equal_are_not_certain() -> None:
    assert not pdq_transform.is_certain(np.zeros((16, 16), np.float32), longest_pixels=64)


def test_a_quality_that_rounding_could_change_is_not_certain() -> None:
    def quality(image: NDArray[np.float32], longest_pixels: int = 512) -> int | None:
        return pdq_transform.quality_if_certain(image, longest_pixels=longest_pixels)

    image = np.zeros((64, 64), np.float32)
    image[:, 32:] = 2.55
    assert quality(image) == 0, "64 gradients about 1 are less than 90, however rounded"
    image[:, 48:] = 5.1
    assert quality(image) is None, "128 may all fall below 1 or not"
    image[:, 32:] += 0.01
    image[:, 48:] += 0.01
    assert quality(image) == 1, "they lie 0.004 above 1"
    assert quality(image, longest_pixels=4096) is None, "of a larger picture that is within what rounding does"


@pytest.mark.parametrize("name", ["astronaut.png", "moon.png", "text.png"])
def test_grey_pixels_hash_as_the_same_grey_in_rgb(name: str) -> None:
    grey = np.asarray(photo(name).convert("L"))
    assert hash_of_pixels(grey) == reference(np.repeat(grey[..., None], 3, axis=2))


def test_pixels_need_not_lie_in_order() -> None:
    pixels = np.asarray(photo("chelsea.png"))
    assert hash_of_pixels(pixels[::-1, ::-1]) == reference(pixels[::-1, ::-1])


def test_a_side_below_five_pixels_hashes_to_zeros_of_no_quality() -> None:
    assert hash_of_pixels(np.full((4, 900, 3), 9, np.uint8)) == ("0" * 64, 0)
    assert hash_of_pixels(np.asarray(photo("astronaut.png").resize((5, 900))))[0] != "0" * 64
