"""Photos that end early or are damaged from some place on: what a viewer shows is hashed, and said to be a part."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from countermark.domain.signal import Partial, Unhashable
from countermark.errors import InvalidContent
from countermark.signals import decode, pdq
from countermark.signals.formats import png
from tests.signals.photos import photo, saved
from tests.signals.test_decode import hashed
from tests.signals.test_metadata import chunk, chunks_of

IMAGE = photo("coffee.png").resize((300, 200))
WHOLE = {
    "JPEG": saved(IMAGE, "JPEG", quality=90),
    "grey JPEG": saved(IMAGE.convert("L"), "JPEG", quality=90),
    "CMYK JPEG": saved(IMAGE.convert("CMYK"), "JPEG", quality=90),
    "JPEG without subsampling": saved(IMAGE, "JPEG", quality=90, subsampling=0),
    "JPEG with restarts": saved(IMAGE, "JPEG", quality=90, restart_marker_rows=1),
    "PNG": saved(IMAGE, "PNG"),
    "palette PNG": saved(IMAGE.quantize(64), "PNG"),
    "16-bit PNG": saved(Image.fromarray(np.asarray(IMAGE.convert("L")).astype(np.uint16) * 257), "PNG"),
    "GIF": saved(IMAGE.quantize(64), "GIF", interlace=0),
    "BMP": saved(IMAGE, "BMP"),
    "WebP": saved(IMAGE, "WEBP", quality=90),
}
PROGRESSIVE = saved(IMAGE, "JPEG", quality=90, progressive=True)


def rows_of(reason: str | None) -> float:
    """Return the share of rows that are there, by the reason of a part."""
    if reason is None:
        return 1.0
    found = re.fullmatch(r"the (lower|upper) (\d+) % of the rows are missing", reason)
    assert found, reason
    return 1 - int(found[2]) / 100


@pytest.mark.parametrize("share", [0.6, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_photo_that_ends_late_is_hashed_as_far_as_it_goes(kind: str, share: float) -> None:
    content = WHOLE[kind]
    whole, part = decode.pixels(content), decode.picture(content[: int(len(content) * share)])
    there = rows_of(part.partial)
    # Some photos have more to say above than below.
    assert share - 0.15 <= there < 1
    rows = int(there * len(whole)) - 3
    same = (part.pixels() == whole).reshape(len(whole), -1).all(axis=1)
    assert same[-rows:].all() if kind == "BMP" else same[:rows].all()
    # Of the rest next to nothing: the row that was under way.
    assert same.mean() <= there + 0.03


@pytest.mark.parametrize("share", [0.05, 0.2, 0.35])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_photo_of_which_less_than_half_is_there_has_no_hash(kind: str, share: float) -> None:
    content = WHOLE[kind]
    result = hashed(content[: int(len(content) * share)])
    assert isinstance(result, Unhashable)
    assert result.code == "damaged"
    assert re.search(r"a damaged photo: .*(missing|header)", result.reason)


@pytest.mark.parametrize("kind", [*WHOLE, "progressive JPEG"])
def test_a_whole_photo_is_no_part(kind: str) -> None:
    content = {**WHOLE, "progressive JPEG": PROGRESSIVE}[kind]
    assert decode.picture(content).partial is None
    assert isinstance(hashed(content), str)


@pytest.mark.parametrize("kind", ["JPEG", "grey JPEG", "CMYK JPEG", "JPEG with restarts", "progressive JPEG"])
def test_a_jpeg_that_lacks_only_its_end_marker_is_whole(kind: str) -> None:
    content = {**WHOLE, "progressive JPEG": PROGRESSIVE}[kind]
    assert content.endswith(b"\xff\xd9")
    for end in (b"", b"\xff", b"\x00", b"\xff\x00junk"):
        cut = decode.picture(content[:-2] + end)
        assert cut.partial is None
        assert np.array_equal(cut.pixels(), decode.pixels(content))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (16, 17), (33, 15), (64, 300), (500, 7), (257, 64)])
@pytest.mark.parametrize("colour", ["grey", "black", "white", "photo"])
def test_a_whole_jpeg_of_any_size_and_colour_is_no_part(size: tuple[int, int], colour: str) -> None:
    image = IMAGE.resize(size) if colour == "photo" else Image.new("RGB", size, colour)
    for options in ({}, {"progressive": True}, {"subsampling": 0}):
        content = saved(image, "JPEG", **options)
        assert decode.picture(content).partial is None
        assert decode.picture(content[:-2]).partial is None
        assert np.array_equal(decode.pixels(content[:-2]), np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("kind", ["JPEG", "CMYK JPEG", "JPEG with restarts", "PNG", "palette PNG"])
def test_a_part_is_what_pillow_completes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own switch is one for all threads of a process, so we do without it."""
    content = WHOLE[kind][: int(len(WHOLE[kind]) * 0.7)]
    ours = decode.picture(content).pixels()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    theirs = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.array_equal(ours, theirs)


def test_a_jpeg_whose_end_marker_comes_early_is_a_part() -> None:
    content = WHOLE["JPEG"]
    for share, is_hashed in ((0.8, True), (0.3, False)):
        early = content[: int(len(content) * share)] + b"\xff\xd9" + content[-2:]
        assert isinstance(hashed(early), Partial if is_hashed else Unhashable)


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_a_progressive_jpeg_that_ends_late_lacks_only_detail(share: float) -> None:
    result, whole = hashed(PROGRESSIVE[: int(len(PROGRESSIVE) * share)]), hashed(PROGRESSIVE)
    assert isinstance(result, Partial)
    assert isinstance(whole, str)
    assert re.fullmatch(r"the lower \d+ % lack fine detail", result.reason)
    assert pdq.PDQ.compare(result.value, whole).distance in range(9)


def test_a_progressive_jpeg_that_ends_in_its_first_scan_counts_its_rows() -> None:
    first, second = (match.start() for match in list(re.finditer(b"\xff\xda", PROGRESSIVE))[:2])
    share = decode.picture(PROGRESSIVE[: first + (second - first) * 3 // 4]).partial
    assert 0.5 <= rows_of(share) <= 0.95
    with pytest.raises(InvalidContent, match="more than half"):
        decode.picture(PROGRESSIVE[: first + (second - first) // 4])


def interlaced(image: Image.Image) -> bytes:
    """Return an RGB picture as an interlaced PNG, which Pillow does not write."""
    pixels = np.asarray(image)
    rows = b"".join(
        b"\0" + row.tobytes()
        for top, down, left, across in png.PASSES
        for row in pixels[top::down, left::across]
        if row.size
    )
    header = image.width.to_bytes(4) + image.height.to_bytes(4) + bytes((8, 2, 0, 0, 1))
    return png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(300, 200), (61, 47), (9, 9), (8, 300), (300, 8)])
def test_an_interlaced_png_that_ends_late_lacks_only_detail(size: tuple[int, int]) -> None:
    image = IMAGE.resize(size)
    content = interlaced(image)
    assert np.array_equal(decode.picture(content).pixels(), np.asarray(image))
    assert decode.picture(content).partial is None
    # Everything from the last row on: no pixel is made up, and none is left black.
    cut = decode.picture(content[: len(content) * 3 // 4])
    assert cut.partial
    assert "detail" in cut.partial
    near = np.abs(cut.pixels().astype(int) - np.asarray(image).astype(int)).mean()
    assert near < np.asarray(image).mean() / 4


def test_the_hash_of_an_interlaced_png_without_its_last_pass_is_near() -> None:
    content = interlaced(photo("coffee.png"))
    result, whole = hashed(content[: len(content) // 2]), hashed(content)
    assert isinstance(result, Partial)
    assert isinstance(whole, str)
    assert pdq.PDQ.compare(result.value, whole).distance in range(9)


def test_an_interlaced_gif_that_ends_late_shows_the_row_above() -> None:
    content = saved(photo("coffee.png").quantize(64), "GIF", interlace=1)
    result, whole = hashed(content[: len(content) * 6 // 10]), hashed(content)
    assert isinstance(result, Partial)
    assert isinstance(whole, str)
    assert re.fullmatch(r"\d+ % of the rows are missing", result.reason)
    assert pdq.PDQ.compare(result.value, whole).distance in range(9)


def test_a_png_whose_data_ends_properly_but_early_is_a_part() -> None:
    rows = np.asarray(IMAGE)[:150]
    short = saved(Image.fromarray(rows), "PNG")
    head = bytearray(short[16:29])
    head[4:8] = (200).to_bytes(4)
    result = decode.picture(short[:8] + chunk(b"IHDR", bytes(head)) + short[33:])
    assert result.partial == "the lower 25 % of the rows are missing"
    assert np.array_equal(result.pixels()[:150], rows)
    assert not result.pixels()[150:].any()


def test_a_png_with_black_rows_below_is_whole() -> None:
    black = np.asarray(IMAGE).copy()
    black[60:] = 0
    assert decode.picture(saved(Image.fromarray(black), "PNG")).partial is None
    assert decode.picture(saved(Image.new("L", (50, 50)), "GIF")).partial is None


def test_image_data_whose_checksum_is_wrong_counts_as_missing() -> None:
    content = bytearray(saved(photo("coffee.png"), "PNG"))
    ends = [stop for kind, _, stop in chunks_of(bytes(content)) if kind == b"IDAT"]
    assert len(ends) > 4
    content[ends[-1]] ^= 1
    assert re.fullmatch(r"the lower \d+ % of the rows are missing", decode.picture(bytes(content)).partial or "")
    content[ends[0]] ^= 1
    with pytest.raises(InvalidContent, match="checksum of image data is wrong"):
        decode.picture(bytes(content))


def test_bit_errors_within_a_jpeg_are_hashed_as_viewers_show_them() -> None:
    content = bytearray(WHOLE["JPEG"])
    content[len(content) * 3 // 4] ^= 0x10
    result = decode.picture(bytes(content))
    whole = decode.pixels(WHOLE["JPEG"])
    assert np.array_equal(result.pixels()[:80], whole[:80])
    assert not np.array_equal(result.pixels(), whole)


@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1))
@settings(max_examples=120, deadline=None)
def test_wherever_a_photo_ends_it_is_hashed_as_a_part_or_refused(kind: str, share: float) -> None:
    content = WHOLE[kind]
    result = hashed(content[: int(len(content) * share)])
    if isinstance(result, Unhashable):
        assert result.code in ("damaged", "low_quality")
        assert share < 0.75 or result.code == "low_quality"
    elif isinstance(result, Partial):
        assert 0.5 <= rows_of(result.reason) < 1
    else:
        assert share > 0.9


def test_variants_of_a_part_are_a_part() -> None:
    hasher = pdq.PDQ.variants_hasher()
    hasher.update(WHOLE["JPEG"][: len(WHOLE["JPEG"]) * 3 // 4])
    result = hasher.finish()
    assert isinstance(result, Partial)
    assert next(iter(result.value)) == "ORIGINAL"


def png_of(data: bytes, *, interlaced: bool = False) -> bytes:
    header = struct.pack(">IIBBBBB", *IMAGE.size, 8, 2, 0, 0, interlaced)
    return png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def rows_of_passes(values: np.ndarray) -> bytes:
    """Return the unpacked data of an interlaced PNG, all rows without a filter."""
    passes = (values[top::down, left::across] for top, down, left, across in png.PASSES)
    return b"".join(b"\0" + row.tobytes() for each in passes for row in each)


PLAIN = b"".join(b"\0" + row.tobytes() for row in np.asarray(IMAGE))


@pytest.mark.parametrize("share", [0.55, 0.8, 0.95])
def test_of_image_data_that_cannot_be_unpacked_to_its_end_the_rows_before_count(share: float) -> None:
    data = bytearray(zlib.compress(PLAIN))
    at = int(len(data) * share)
    # The end of the data is lost in the middle: what follows is no part of a deflate stream.
    data[at:] = b"\xff" * (len(data) - at)
    part = decode.picture(png_of(bytes(data)))
    there = rows_of(part.partial)
    assert share - 0.1 < there < share + 0.1
    rows = int(there * IMAGE.height) - 3
    assert np.array_equal(part.pixels()[:rows], np.asarray(IMAGE)[:rows])


def test_of_damaged_data_of_an_interlaced_picture_the_passes_before_count() -> None:
    data = bytearray(zlib.compress(rows_of_passes(np.asarray(IMAGE))))
    data[int(len(data) * 0.9) :] = b"\xff" * 500
    part = decode.picture(png_of(bytes(data), interlaced=True))
    assert part.partial == "the last 1 of 7 passes are not complete: it lacks fine detail"


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_wrong_checksum_behind_all_pixels_costs_a_row_or_two(interlaced: bool) -> None:
    rows = rows_of_passes(np.asarray(IMAGE)) if interlaced else PLAIN
    data = zlib.compress(rows)
    whole = hashed(png_of(data, interlaced=interlaced))
    damaged = hashed(png_of(data[:-4] + b"\0\0\0\0", interlaced=interlaced))
    assert not isinstance(whole, Unhashable)
    assert not isinstance(damaged, Unhashable)
    values = [each.value if isinstance(each, Partial) else each for each in (whole, damaged)]
    assert (int(values[0], 16) ^ int(values[1], 16)).bit_count() <= 20


@pytest.mark.parametrize(("row", "reason"), [(180, "the lower 10 % of the rows are missing"), (0, None)])
def test_rows_of_a_png_behind_a_filter_that_does_not_exist_are_missing(row: int, reason: str | None) -> None:
    rows = bytearray(PLAIN)
    rows[row * (1 + 3 * IMAGE.width)] = 9
    content = png_of(zlib.compress(bytes(rows)))
    if reason is None:
        with pytest.raises(InvalidContent, match="100 % of the rows are missing"):
            decode.picture(content)
    else:
        assert decode.picture(content).partial == reason


def test_a_lossless_webp_that_ends_late_is_hashed_as_far_as_it_goes() -> None:
    content = saved(IMAGE, "WEBP", lossless=True)
    for percent in range(60, 100, 5):
        part = decode.picture(content[: len(content) * percent // 100])
        assert abs(rows_of(part.partial) - percent / 100) < 0.2
