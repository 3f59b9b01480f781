"""From a photo's file to its picture, whole or in part: one reader for each format.

A picture in part is what its decoder completes: JPEG grey, all others black. How much is there is measured, by what
the decoder wrote when its bytes ended.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import IO, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from countermark.errors import InvalidContent, MissingExtra, UnsupportedContent
from countermark.signals.formats import boxes, gif, jpeg, png, tiff, webp
from countermark.signals.formats.source import Clock, Piece, Source
from countermark.signals.picture import Picture, picture_from_image, scale_to_8_bits, strips

# Enough to change at least the next block of a scan that is not complete; no byte of it is FF.
_JUNK = random.Random(7).randbytes(4096).replace(b"\xff", b"\x55")  # noqa: S311  # fixed bytes, no secret

# In place of the missing bytes of a WebP. Of a lossless one, many bytes are no picture; the same byte over and over is.
_FILLINGS = (b"\0", b"\xff", _JUNK, b"\x55", b"\xaa", b"\x0f", b"\xc3")

_ROWS_BEHIND = 40
"""How many rows the decoder of JPEG may be behind its bytes: two rows of blocks of 16, and some to smooth colours."""

_DAMAGE = (OSError, EOFError, ValueError, SyntaxError, LookupError, TypeError)
"""What Pillow raises where the bytes of an image end, or stop making sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What decoding a photo will take: pixels, how often the decoder goes over them, and bytes a pixel."""

    format: str
    width: int
    height: int
    bytes_per_pixel: int
    scans: int = 1


class Admit(Protocol):
    """Lets a photo be decoded, or raises ContentTooLarge."""

    def __call__(self, claim: Claim, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a photo is read: what bounds its time and memory, and the shortest side of a draft."""

    clock: Clock
    admit: Admit
    draft_pixels: int | None = None


def read(content: bytes, reading: Reading) -> Picture | None:
    """Return the picture of a photo; None where its bytes begin as no format that is read.

    Raises:
        ContentTooLarge, InvalidContent, MissingExtra, UnsupportedContent: As `decode.picture`.
        Others: Whatever Pillow raises of damaged files.
    """
    for begins, reader in _READERS:
        if begins(content):
            return reader(content, reading)
    return None


def _jpeg(content: bytes, reading: Reading) -> Picture:
    file = jpeg.walk(content, reading.clock)
    with _opened(file.pieces, "JPEG", reading.clock) as image:
        # Of a progressive picture all coefficients are held, and of one that is cut a second picture.
        reading.admit(
            Claim(
                format="JPEG",
                width=image.width,
                height=image.height,
                bytes_per_pixel=8 + file.coefficient_bytes if file.waits else 8,
                scans=file.scans if file.waits else 1,
            )
        )
        columns, rows = image.size
        _draft(image, reading)
        missing = (_load_scans if file.waits else _load_scan)(image, file, reading)
        return _picture(image, rows=rows, columns=columns, partial=missing)


def _draft(image: ImageFile.ImageFile, reading: Reading) -> None:
    if reading.draft_pixels is not None:
        image.draft(None, (reading.draft_pixels, reading.draft_pixels))


def _load_scan(image: ImageFile.ImageFile, file: jpeg.Jpeg, reading: Reading) -> str | None:
    """Decode a JPEG whose rows come with its one scan; return what is missing."""
    written: list[int] = []

    def end() -> bytes:
        written.append(_last_row(image))
        return jpeg.END_MARKER

    _finish(image, file, end)
    there = written[0] if written else image.height
    if there == image.height:
        return None
    # What was black and stays black was decoded; what the decoder had yet to complete is another colour now.
    below = image.im.crop((0, there, *image.size)).getbbox()
    if below is None:
        return None
    there += below[1]
    if image.height - there > _ROWS_BEHIND:
        return _lower(image.height - there, image.height)
    # The decoder looks ahead, so its last rows come with the end marker. Without data they are grey.
    return _lower_of(_rows_reached(image, file, reading), image.height) if _ends_in_grey(image) else None


def _load_scans(image: ImageFile.ImageFile, file: jpeg.Jpeg, reading: Reading) -> str | None:
    """Decode a JPEG that is shown after all its scans; return what is missing."""
    _finish(image, file, lambda: jpeg.END_MARKER)
    is_shown = file.scans > file.shown_after > 0
    if file.is_whole and is_shown:
        return None
    there = _rows_reached(image, file, reading)
    if there < image.height and is_shown:
        return f"the lower {_percent(image.height - there, image.height)} % lack fine detail"
    return _lower_of(there, image.height)


def _finish(image: ImageFile.ImageFile, file: jpeg.Jpeg, end: Callable[[], bytes]) -> None:
    source = cast(Source, image.fp)
    source.at_end = end
    if file.is_arithmetic:
        # The decoder of this coding cannot wait for more bytes.
        image.decodermaxblock = source.size_bytes + len(jpeg.END_MARKER)
        source.finish()
    image.load()


def _rows_reached(image: ImageFile.ImageFile, file: jpeg.Jpeg, reading: Reading) -> int:
    """Return how many rows the data of the last scan reaches: more bytes behind it change the rows below alone."""
    with _opened(file.pieces, "JPEG", reading.clock) as other:
        _draft(other, reading)
        _finish(other, file, lambda: _JUNK + jpeg.END_MARKER)
        changed = np.flatnonzero(_rows_that_differ(image, other))
    return int(changed[0]) if changed.size else image.height


def _ends_in_grey(image: Image.Image) -> bool:
    """Return whether the last pixel could be one that had no data: its luma, or its black of CMYK, is in the middle."""
    last = image.crop((image.width - 1, image.height - 1, *image.size))
    luma = last.getchannel("K") if last.mode == "CMYK" else last.convert("L")
    return 126 <= int(np.asarray(luma)[0, 0]) <= 129


def _png(content: bytes, reading: Reading) -> Picture:
    file = png.walk(content, reading.clock)
    with _opened(file.pieces, "PNG", reading.clock) as image:
        reading.admit(Claim(format="PNG", width=image.width, height=image.height, bytes_per_pixel=8))
        is_cut = not _try_to_load(image)
        missing = None
        # Data that ends too early, but properly, leaves the last row black.
        if is_cut or _last_row(image) < image.height:
            if file.is_interlaced:
                missing = _fill_passes(image, file, file.rows_there(reading.clock))
                missing = missing or ("image data is damaged" if is_cut else None)
            elif is_cut or file.rows_there(reading.clock)[0] < image.height:
                # A second picture takes memory, so one whose last rows are black is counted first.
                again = partial(_opened, file.pieces, "PNG", reading.clock)
                missing = _rows_missing(_rows_written(again, _fills(image)))
        return _picture(image, rows=image.height, columns=image.width, partial=missing or file.damage)


def _fill_passes(image: ImageFile.ImageFile, file: png.Png, rows: Sequence[int]) -> str | None:
    """Complete an interlaced picture as viewers do, each pixel by its neighbour of the pass before."""
    of_pass = [max(0, -(-(file.height - top) // down)) for top, down, _, _ in png.PASSES]
    lacking = [number for number, (there, all_rows) in enumerate(zip(rows, of_pass, strict=True)) if there < all_rows]
    lacking = [number for number in lacking if png.PASSES[number][2] < file.width]
    if not lacking:
        return None
    missing = _lower_of(min(rows[0] * 8, file.height), file.height)
    values = np.array(image)
    for number in lacking:
        top, down, left, across = png.PASSES[number]
        if number:
            up, back = (0, left) if number % 2 else (top, 0)
            from_rows = values[top - up :: down, left - back :: across]
            target = values[top::down, left::across]
            target[rows[number] :] = from_rows[: target.shape[0], : target.shape[1]][rows[number] :]
    # The same values in the same mode, and for a palette with the same colours.
    filled = Image.fromarray(values)
    image.im.paste(filled.im if filled.mode == image.mode else filled.convert(image.mode).im, (0, 0, *image.size))
    return missing or f"the last {len(lacking)} of 7 passes are not complete: it lacks fine detail"


def _gif(content: bytes, reading: Reading) -> Picture:
    file = gif.walk(content, reading.clock)
    with _opened(file.pieces, "GIF", reading.clock) as image:
        reading.admit(Claim(format="GIF", width=image.width, height=image.height, bytes_per_pixel=8))
        left, _, right, bottom = file.frame
        is_cut = not _try_to_load(image)
        missing = None
        if is_cut or not image.im.crop((left, bottom - 1, right, bottom)).getbbox():
            again = partial(_opened, file.without_control, "GIF", reading.clock)
            there = _rows_written(again, (0, 255), frame=file.frame)
            missing = _rows_missing(there)
            if missing and file.is_interlaced:
                _repeat_rows(image, file.frame, there)
        return _picture(image, rows=image.height, columns=image.width, partial=missing)


def _webp(content: bytes, reading: Reading) -> Picture:
    file = webp.walk(content, reading.clock)
    # Before it is opened: the decoder takes memory for the canvas at once.
    reading.admit(Claim(format="WebP", width=file.width, height=file.height, bytes_per_pixel=17))
    if file.lacks:
        return _cut_webp(file, reading)
    with _opened(file.pieces, "WEBP", reading.clock) as image:
        image.load()
        return _picture(image, rows=image.height, columns=image.width)


def _cut_webp(file: webp.WebP, reading: Reading) -> Picture:
    """Return the picture of a WebP that ends early: bytes in place of those that are missing change the rows below.

    The decoder gives nothing of a picture that is not whole, so it gets one that is.
    """
    seen: NDArray[np.uint8] | None = None
    for filling in _FILLINGS:
        with suppress(*_DAMAGE), _opened(file.filled(filling), "WEBP", reading.clock) as image:
            image.load()
            values = np.array(image)
            if seen is not None:
                changed = np.flatnonzero((seen != values).reshape(len(values), -1).any(axis=1))
                there = int(changed[0]) if changed.size else len(values)
                values[there:] = 0
                missing = _lower_of(there, len(values))
                return _picture(Image.fromarray(values), rows=len(values), columns=values.shape[1], partial=missing)
            seen = values
    raise InvalidContent(f"a damaged photo: {file.lacks} bytes of a WebP's picture are missing at its end")


def _avif(content: bytes, reading: Reading) -> Picture:
    with _opened(boxes.walk(content, reading.clock), "AVIF", reading.clock) as image:
        reading.admit(Claim(format="AVIF", width=image.width, height=image.height, bytes_per_pixel=12))
        image.load()
        return _picture(image, rows=image.height, columns=image.width)


def _heic(content: bytes, reading: Reading) -> Picture:
    try:
        heif = import_module("pillow_heif")
    except ImportError as error:
        raise MissingExtra("a HEIC photo is read with pillow-heif: pip install pillow-heif") from error
    heif.register_heif_opener()
    with _opened(boxes.walk(content, reading.clock), "HEIF", reading.clock) as image:
        reading.admit(Claim(format="HEIC", width=image.width, height=image.height, bytes_per_pixel=12))
        image.load()
        return _picture(image, rows=image.height, columns=image.width)


def _bmp(content: bytes, reading: Reading) -> Picture:
    again = partial(_opened_bmp, content, reading)
    with again() as image:
        reading.admit(Claim(format="BMP", width=image.width, height=image.height, bytes_per_pixel=8))
        missing = None if _try_to_load(image) else _rows_missing(_rows_written(again, _fills(image)))
        return _picture(image, rows=image.height, columns=image.width, partial=missing)


def _opened_bmp(content: bytes, reading: Reading) -> ImageFile.ImageFile:
    try:
        return _opened([content], "BMP", reading.clock)
    except OSError as error:
        # Pillow's own words: a depth, a compression or a layout of bit fields.
        if str(error).startswith("Unsupported BMP"):
            raise UnsupportedContent(f"a BMP of this kind is not decoded: {error}") from error
        raise


def _tiff(content: bytes, reading: Reading) -> Picture:
    file = tiff.walk(content)
    way = file.way
    plain = way == "as it is"
    # Of samples that Pillow does not know there are three copies of 4 bytes on the way, of signed ones four of a byte.
    copied = file.samples if way == "side by side" else 0 if plain else file.colours
    each = 8 + 12 * copied + (8 if plain and file.format == 2 else 0)
    reading.admit(Claim(format="TIFF", width=file.width, height=file.height, bytes_per_pixel=each))
    if plain:
        again = partial(_opened_tiff, file, file.as_it_is(), reading)
        with again() as opened:
            missing = None if _try_to_load(opened) else _rows_missing(_rows_written(again, _fills(opened)))
            image: Image.Image = opened
            if file.format == 2:
                signed = np.asarray(opened.convert("RGB" if file.photometric == 2 else "L")) ^ np.uint8(0x80)
                image = Image.fromarray(signed)
            elif file.bits == 12:
                image = Image.fromarray((np.asarray(opened) >> 4).astype(np.uint8))
            return _oriented(image, file, missing)
    samples, missing = _samples(file, way, reading)
    return _oriented(Image.fromarray(_seen(file, samples)), file, missing)


def _opened_tiff(file: tiff.Tiff, pieces: Sequence[Piece], reading: Reading) -> ImageFile.ImageFile:
    try:
        return _opened(pieces, "TIFF", reading.clock)
    except InvalidContent as error:
        raise file.unsupported() from error


def _samples(file: tiff.Tiff, way: tiff.Way, reading: Reading) -> tuple[NDArray[np.generic], str | None]:
    """Return the samples that make a TIFF's colours, shape (rows, columns, colours), and which rows are missing."""
    planes = []
    missing = None
    for pieces in file.planes() if way == "planes" else [file.side_by_side()]:
        again = partial(_opened_tiff, file, pieces, reading)
        with again() as image:
            if not _try_to_load(image):
                missing = _rows_missing(_rows_written(again, _fills(image))) or missing
            values = np.asarray(image)
        if values.dtype.itemsize == 4 and file.is_compressed and file.order == ">":
            # Pillow takes samples of libtiff, which have this machine's byte order, for those of the file.
            values = values.byteswap()
        bits = values.astype(values.dtype.newbyteorder("="), copy=False)
        planes.append(bits.view(_SAMPLE_TYPES[file.format, file.bits]))
    if way == "planes":
        return np.stack(planes, axis=2), missing
    return planes[0].reshape(file.height, file.width, file.samples)[..., : file.colours], missing


_SAMPLE_TYPES = {
    (1, 8): np.uint8,
    (2, 8): np.int8,
    (1, 16): np.uint16,
    (2, 16): np.int16,
    (3, 16): np.float16,
    (1, 32): np.uint32,
    (2, 32): np.int32,
    (3, 32): np.float32,
}


def _seen(file: tiff.Tiff, samples: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return the 8 bits of each colour that a person sees, shape (rows, columns) or (rows, columns, 3)."""
    seen = scale_to_8_bits(samples)
    if file.photometric == 0:
        seen = 255 - seen
    if file.photometric == 5:
        return np.asarray(Image.fromarray(seen, "CMYK").convert("RGB"))
    return seen[..., 0] if seen.shape[2] == 1 else seen


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _oriented(image: Image.Image, file: tiff.Tiff, missing: str | None) -> Picture:
    """Turn a TIFF as its own tag says: Pillow does so as well, and with it those whom hashes are exchanged with."""
    if file.orientation in _TURNS:
        image = image.transpose(_TURNS[file.orientation])
    return _picture(image, rows=image.height, columns=image.width, partial=missing)


def _opened(pieces: Sequence[Piece], image_format: str, clock: Clock) -> ImageFile.ImageFile:
    try:
        return Image.open(cast(IO[bytes], Source(pieces, clock)), formats=(image_format,))
    except UnidentifiedImageError as error:
        raise InvalidContent(f"a damaged photo: its header cannot be read as {image_format}") from error


def _picture(image: Image.Image, *, rows: int, columns: int, partial: str | None = None) -> Picture:
    seen = picture_from_image(image, rows=rows, columns=columns, scale=-(-columns // image.width))
    return replace(seen, partial=partial)


def _try_to_load(image: ImageFile.ImageFile) -> bool:
    """Decode an image; return False where its bytes ended or were damaged after some rows, which then are there.

    Raises:
        Others: What Pillow raises where nothing was decoded.
    """
    try:
        image.load()
    except _DAMAGE:
        image.tile = []
        with suppress(ValueError, OSError):
            image.load()
            return False
        raise
    return True


def _last_row(image: Image.Image) -> int:
    """Return the number of the row behind the last one that is not black."""
    # The last row first: it is seldom black, and then no other has to be looked at.
    if image.im.crop((0, image.height - 1, *image.size)).getbbox():
        return image.height
    filled = image.im.getbbox()
    return filled[3] if filled else 0


Colour = int | tuple[int, ...]


def _fills(image: Image.Image) -> tuple[Colour, Colour]:
    """Return two colours of an image's mode that have no channel in common."""
    bands = len(image.getbands())
    return (0, 255) if bands == 1 else ((0,) * bands, (255,) * bands)


def _rows_written(
    again: Callable[[], ImageFile.ImageFile],
    fills: tuple[Colour, Colour],
    *,
    frame: tuple[int, int, int, int] | None = None,
) -> NDArray[np.bool_]:
    """Return of each row whether the decoder writes all of it: then it is the same whatever colour was there before."""
    images = []
    for fill in fills:
        image = again()
        image.im = Image.new(image.mode, image.size, fill).im
        _try_to_load(image)
        images.append(image if frame is None else image.crop(frame))
    return ~_rows_that_differ(*images)


def _rows_missing(there: NDArray[np.bool_]) -> str | None:
    """Return which rows are missing, in words."""
    rows, count = np.flatnonzero(~there), there.size
    if not rows.size:
        return None
    if rows[-1] == count - 1 and rows[0] == count - rows.size:
        return _lower(rows.size, count)
    return _share(rows.size, count, "the upper " if rows[-1] == rows.size - 1 else "")


def _repeat_rows(image: Image.Image, frame: tuple[int, int, int, int], there: NDArray[np.bool_]) -> None:
    """Show the row above in place of each that is missing, as viewers do while an interlaced picture arrives."""
    above = np.maximum.accumulate(np.where(there, np.arange(there.size), 0))
    part = image.crop(frame)
    filled = Image.fromarray(np.asarray(part)[above])
    image.im.paste(filled.im if filled.mode == image.mode else filled.im.convert(image.mode), frame)


def _rows_that_differ(one: Image.Image, other: Image.Image) -> NDArray[np.bool_]:
    differ = np.zeros(one.height, bool)
    for rows in strips(0, one.height, one.width):
        box = 0, rows.start, one.width, rows.stop
        pair = [_bits(np.asarray(image.crop(box))) for image in (one, other)]
        differ[rows] = (pair[0] != pair[1]).reshape(rows.stop - rows.start, -1).any(axis=1)
    return differ


def _bits(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return floats as their bits, by which also those that are no numbers are equal."""
    return values.view(np.uint32) if values.dtype == np.float32 else values


def _lower_of(there: int, rows: int) -> str | None:
    return None if there >= rows else _lower(rows - there, rows)


def _lower(missing: int, rows: int) -> str:
    return _share(missing, rows, "the lower ")


def _share(missing: int, rows: int, where: str) -> str:
    """Return a sentence on how many rows are missing.

    Raises:
        InvalidContent: It is more than half of them.
    """
    text = f"{where}{_percent(missing, rows)} % of the rows are missing"
    if 2 * missing > rows:
        raise InvalidContent(f"a damaged photo: {text}, more than half")
    return text


def _percent(part: int, whole: int) -> int:
    return max(1, round(100 * part / whole))


_Reader = Callable[[bytes, Reading], Picture]

_READERS: Sequence[tuple[Callable[[bytes], bool], _Reader]] = (
    (lambda content: content.startswith(jpeg.START), _jpeg),
    (lambda content: content.startswith(png.SIGNATURE), _png),
    (webp.is_webp, _webp),
    (lambda content: content.startswith(gif.SIGNATURES), _gif),
    (boxes.is_heic, _heic),
    (boxes.is_avif, _avif),
    (lambda content: content.startswith(b"BM"), _bmp),
    (lambda content: content.startswith(tiff.STARTS), _tiff),
)
