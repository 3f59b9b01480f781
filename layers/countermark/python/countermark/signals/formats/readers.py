"""Decodes a photo's file to a picture, with one reader per format. The picture can be complete or partial.

If a part of the picture is missing, the decoder fills it in: with grey for JPEG, with black for other formats. To
measure the missing part, the readers check which rows the decoder had written when the bytes ended.
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

# Bytes to add to a scan that ends early. They change at least its next block. No byte is FF, which begins a marker.
_JUNK = random.Random(7).randbytes(4096).replace(b"\xff", b"\x55")  # noqa: S311  # fixed bytes, no secret

# Replacements for the missing bytes of a WebP. With random bytes, a lossless WebP is often invalid. With a single byte
# repeated, it is valid more often.
_WEBP_FILLINGS = (b"\0", b"\xff", _JUNK, b"\x55", b"\xaa", b"\x0f", b"\xc3")

_ROWS_BEHIND = 40
"""How many rows the JPEG decoder's output can lag behind its input: two rows of 16-pixel blocks, and 8 to smooth."""

_DAMAGE = (OSError, EOFError, ValueError, SyntaxError, LookupError, TypeError)
"""The errors that Pillow raises if the bytes of an image end early or are damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The resources that decoding a photo needs: its pixels, the memory per pixel, and the number of scans."""

    format: str
    width: int
    height: int
    bytes_per_pixel: int
    scans: int = 1


class Admit(Protocol):
    """Reserves the memory to decode a photo, or raises Busy or ContentTooLarge."""

    def __call__(self, claim: Claim, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """The limits of time and memory for reading a photo, and the minimum side of a draft; None: no draft."""

    clock: Clock
    admit: Admit
    draft_pixels: int | None = None


def read(content: bytes, options: ReadOptions) -> Picture | None:
    """Return the picture of a photo; None if the first bytes are not those of a supported format.

    Raises:
        Busy, ContentTooLarge, InvalidContent, MissingExtra, UnsupportedContent: See `decode.picture`.
        Others: Any error that Pillow raises for damaged files.
    """
    for matches, reader in _READERS:
        if matches(content):
            return reader(content, options)
    return None


def _jpeg(content: bytes, options: ReadOptions) -> Picture:
    file = jpeg.walk(content, options.clock)
    with _open(file.pieces, "JPEG", options.clock) as image:
        # A progressive JPEG needs memory for all coefficients. An incomplete JPEG needs memory for a second picture.
        options.admit(
            Claim(
                format="JPEG",
                width=image.width,
                height=image.height,
                bytes_per_pixel=8 + file.coefficient_bytes if file.needs_all_scans else 8,
                scans=file.scans if file.needs_all_scans else 1,
            )
        )
        columns, rows = image.size
        _apply_draft(image, options)
        missing = (_load_scans if file.needs_all_scans else _load_scan)(image, file, options)
        return _picture(image, rows=rows, columns=columns, partial=missing)


def _apply_draft(image: ImageFile.ImageFile, options: ReadOptions) -> None:
    if options.draft_pixels is not None:
        image.draft(None, (options.draft_pixels, options.draft_pixels))


def _load_scan(image: ImageFile.ImageFile, file: jpeg.Jpeg, options: ReadOptions) -> str | None:
    """Decode a JPEG with one scan; return a description of the missing part, or None."""
    written: list[int] = []

    def end() -> bytes:
        written.append(_last_row(image))
        return jpeg.END_MARKER

    _load(image, file, end)
    present = written[0] if written else image.height
    if present == image.height:
        return None
    # The decoder fills missing rows with a colour other than black. So rows that are still black are not missing.
    below = image.im.crop((0, present, *image.size)).getbbox()
    if below is None:
        return None
    present += below[1]
    if image.height - present > _ROWS_BEHIND:
        return _missing_end(image.height - present, image.height)
    # The decoder reads ahead, so it writes the last rows only at the end marker. Here, rows without data are grey.
    return _missing_below(_rows_reached(image, file, options), image.height) if _ends_in_grey(image) else None


def _load_scans(image: ImageFile.ImageFile, file: jpeg.Jpeg, options: ReadOptions) -> str | None:
    """Decode a JPEG that needs all its scans; return a description of the missing part, or None."""
    _load(image, file, lambda: jpeg.END_MARKER)
    is_shown = file.scans > file.first_full_scan > 0
    if file.has_end_marker and is_shown:
        return None
    present = _rows_reached(image, file, options)
    if present < image.height and is_shown:
        return f"the lower {_percent(image.height - present, image.height)} % lack fine detail"
    return _missing_below(present, image.height)


def _load(image: ImageFile.ImageFile, file: jpeg.Jpeg, end: Callable[[], bytes]) -> None:
    source = cast(Source, image.fp)
    source.at_end = end
    if file.is_arithmetic:
        # The decoder for arithmetic coding cannot wait for more bytes, so it gets all bytes at once.
        image.decodermaxblock = source.size_bytes + len(jpeg.END_MARKER)
        source.finish()
    image.load()


def _rows_reached(image: ImageFile.ImageFile, file: jpeg.Jpeg, options: ReadOptions) -> int:
    """Return how many rows the last scan's data covers. Bytes that are added to the data change only the rows below."""
    with _open(file.pieces, "JPEG", options.clock) as other:
        _apply_draft(other, options)
        _load(other, file, lambda: _JUNK + jpeg.END_MARKER)
        changed = np.flatnonzero(_rows_that_differ(image, other))
    return int(changed[0]) if changed.size else image.height


def _ends_in_grey(image: Image.Image) -> bool:
    """Return whether the last pixel looks like a pixel without data: its luma, or its K in CMYK, is about 128."""
    last = image.crop((image.width - 1, image.height - 1, *image.size))
    luma = last.getchannel("K") if last.mode == "CMYK" else last.convert("L")
    return 126 <= int(np.asarray(luma)[0, 0]) <= 129


def _png(content: bytes, options: ReadOptions) -> Picture:
    file = png.walk(content, options.clock)
    with _open(file.pieces, "PNG", options.clock) as image:
        options.admit(Claim(format="PNG", width=image.width, height=image.height, bytes_per_pixel=8))
        is_cut = not _try_to_load(image)
        missing = None
        # If data ends early without an error, the last row stays black.
        if is_cut or _last_row(image) < image.height:
            if file.is_interlaced:
                missing = _fill_passes(image, file, file.rows_present(options.clock))
                missing = missing or ("image data is damaged" if is_cut else None)
            elif is_cut or file.rows_present(options.clock)[0] < image.height:
                # Decoding again takes memory for a second picture. Without an error, do it only if rows are missing.
                reopen = partial(_open, file.pieces, "PNG", options.clock)
                missing = _describe_missing_rows(_rows_written(reopen, _opposite_colours(image)))
        return _picture(image, rows=image.height, columns=image.width, partial=missing or file.damage)


def _fill_passes(image: ImageFile.ImageFile, file: png.Png, rows: Sequence[int]) -> str | None:
    """Fill in an interlaced picture as viewers do: copy each missing pixel from a neighbour in an earlier pass."""
    pass_rows = [max(0, -(-(file.height - top) // down)) for top, down, _, _ in png.PASSES]
    incomplete = [
        number for number, (present, all_rows) in enumerate(zip(rows, pass_rows, strict=True)) if present < all_rows
    ]
    incomplete = [number for number in incomplete if png.PASSES[number][2] < file.width]
    if not incomplete:
        return None
    missing = _missing_below(min(rows[0] * 8, file.height), file.height)
    values = np.array(image)
    for number in incomplete:
        top, down, left, across = png.PASSES[number]
        if number:
            up, back = (0, left) if number % 2 else (top, 0)
            from_rows = values[top - up :: down, left - back :: across]
            target = values[top::down, left::across]
            target[rows[number] :] = from_rows[: target.shape[0], : target.shape[1]][rows[number] :]
    # Pasting does not change the mode and the palette of `image`.
    filled = Image.fromarray(values)
    image.im.paste(filled.im if filled.mode == image.mode else filled.convert(image.mode).im, (0, 0, *image.size))
    return missing or f"the last {len(incomplete)} of 7 passes are not complete: it lacks fine detail"


def _gif(content: bytes, options: ReadOptions) -> Picture:
    file = gif.walk(content, options.clock)
    with _open(file.pieces, "GIF", options.clock) as image:
        options.admit(Claim(format="GIF", width=image.width, height=image.height, bytes_per_pixel=8))
        left, _, right, bottom = file.frame
        is_cut = not _try_to_load(image)
        missing = None
        if is_cut or not image.im.crop((left, bottom - 1, right, bottom)).getbbox():
            reopen = partial(_open, file.without_control, "GIF", options.clock)
            present = _rows_written(reopen, (0, 255), frame=file.frame)
            missing = _describe_missing_rows(present)
            if missing and file.is_interlaced:
                _fill_with_row_above(image, file.frame, present)
        return _picture(image, rows=image.height, columns=image.width, partial=missing)


def _webp(content: bytes, options: ReadOptions) -> Picture:
    file = webp.walk(content, options.clock)
    # Reserve the memory before the file is opened, because the decoder then allocates the canvas immediately.
    options.admit(Claim(format="WebP", width=file.width, height=file.height, bytes_per_pixel=17))
    if file.missing_bytes:
        return _cut_webp(file, options)
    with _open(file.pieces, "WEBP", options.clock) as image:
        image.load()
        return _picture(image, rows=image.height, columns=image.width)


def _cut_webp(file: webp.WebP, options: ReadOptions) -> Picture:
    """Return the picture of a WebP that ends early.

    The decoder returns nothing for an incomplete file. So the file is decoded with two different replacements for the
    missing bytes. The missing rows are those from the first row that differs between the two pictures.
    """
    visible: NDArray[np.uint8] | None = None
    for filling in _WEBP_FILLINGS:
        with suppress(*_DAMAGE), _open(file.filled(filling), "WEBP", options.clock) as image:
            image.load()
            values = np.array(image)
            if visible is not None:
                changed = np.flatnonzero((visible != values).reshape(len(values), -1).any(axis=1))
                present = int(changed[0]) if changed.size else len(values)
                values[present:] = 0
                missing = _missing_below(present, len(values))
                return _picture(Image.fromarray(values), rows=len(values), columns=values.shape[1], partial=missing)
            visible = values
    raise InvalidContent(f"a damaged photo: {file.missing_bytes} bytes of a WebP's picture are missing at its end")


def _avif(content: bytes, options: ReadOptions) -> Picture:
    with _open(boxes.walk(content, options.clock), "AVIF", options.clock) as image:
        options.admit(Claim(format="AVIF", width=image.width, height=image.height, bytes_per_pixel=12))
        image.load()
        return _picture(image, rows=image.height, columns=image.width)


def _heic(content: bytes, options: ReadOptions) -> Picture:
    try:
        heif = import_module("pillow_heif")
    except ImportError as error:
        raise MissingExtra("a HEIC photo is read with pillow-heif: pip install pillow-heif") from error
    heif.register_heif_opener()
    with _open(boxes.walk(content, options.clock), "HEIF", options.clock) as image:
        options.admit(Claim(format="HEIC", width=image.width, height=image.height, bytes_per_pixel=12))
        image.load()
        return _picture(image, rows=image.height, columns=image.width)


def _bmp(content: bytes, options: ReadOptions) -> Picture:
    reopen = partial(_open_bmp, content, options)
    with reopen() as image:
        options.admit(Claim(format="BMP", width=image.width, height=image.height, bytes_per_pixel=8))
        missing = (
            None if _try_to_load(image) else _describe_missing_rows(_rows_written(reopen, _opposite_colours(image)))
        )
        return _picture(image, rows=image.height, columns=image.width, partial=missing)


def _open_bmp(content: bytes, options: ReadOptions) -> ImageFile.ImageFile:
    try:
        return _open([content], "BMP", options.clock)
    except OSError as error:
        # The rest of Pillow's message names the unsupported depth, compression or layout of bit fields.
        if str(error).startswith("Unsupported BMP"):
            raise UnsupportedContent(f"a BMP of this kind is not decoded: {error}") from error
        raise


def _tiff(content: bytes, options: ReadOptions) -> Picture:
    file = tiff.walk(content)
    decode_method = file.decode_method
    is_unchanged = decode_method == "as it is"
    # Samples that Pillow does not support need three temporary copies of 4 bytes each. Signed bytes need 8 bytes more.
    copied_samples = file.samples if decode_method == "side by side" else 0 if is_unchanged else file.colours
    each = 8 + 12 * copied_samples + (8 if is_unchanged and file.format == 2 else 0)
    options.admit(Claim(format="TIFF", width=file.width, height=file.height, bytes_per_pixel=each))
    if is_unchanged:
        reopen = partial(_open_tiff, file, file.unchanged_pieces(), options)
        with reopen() as opened:
            missing = (
                None
                if _try_to_load(opened)
                else _describe_missing_rows(_rows_written(reopen, _opposite_colours(opened)))
            )
            image: Image.Image = opened
            if file.format == 2:
                signed = np.asarray(opened.convert("RGB" if file.photometric == 2 else "L")) ^ np.uint8(0x80)
                image = Image.fromarray(signed)
            elif file.bits == 12:
                image = Image.fromarray((np.asarray(opened) >> 4).astype(np.uint8))
            return _oriented_picture(image, file, missing)
    samples, missing = _samples(file, decode_method, options)
    return _oriented_picture(Image.fromarray(_visible_colours(file, samples)), file, missing)


def _open_tiff(file: tiff.Tiff, pieces: Sequence[Piece], options: ReadOptions) -> ImageFile.ImageFile:
    try:
        return _open(pieces, "TIFF", options.clock)
    except InvalidContent as error:
        raise file.unsupported() from error


def _samples(
    file: tiff.Tiff, decode_method: tiff.DecodeMethod, options: ReadOptions
) -> tuple[NDArray[np.generic], str | None]:
    """Return the colour samples, shape (rows, columns, colours), and a description of missing rows, or None."""
    planes = []
    missing = None
    for pieces in file.planes() if decode_method == "planes" else [file.side_by_side()]:
        reopen = partial(_open_tiff, file, pieces, options)
        with reopen() as image:
            if not _try_to_load(image):
                missing = _describe_missing_rows(_rows_written(reopen, _opposite_colours(image))) or missing
            values = np.asarray(image)
        if values.dtype.itemsize == 4 and file.is_compressed and file.order == ">":
            # libtiff returns samples in this machine's byte order, but Pillow assumes the byte order of the file.
            values = values.byteswap()
        bits = values.astype(values.dtype.newbyteorder("="), copy=False)
        planes.append(bits.view(_SAMPLE_TYPES[file.format, file.bits]))
    if decode_method == "planes":
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


def _visible_colours(file: tiff.Tiff, samples: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return the colours as a person sees them, 8 bits per channel, shape (rows, columns) or (rows, columns, 3)."""
    visible = scale_to_8_bits(samples)
    if file.photometric == 0:
        visible = 255 - visible
    if file.photometric == 5:
        return np.asarray(Image.fromarray(visible, "CMYK").convert("RGB"))
    return visible[..., 0] if visible.shape[2] == 1 else visible


_TRANSPOSE_OF = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _oriented_picture(image: Image.Image, file: tiff.Tiff, missing: str | None) -> Picture:
    """Return a TIFF's picture with its orientation applied, as Pillow and the platforms that exchange hashes do."""
    if file.orientation in _TRANSPOSE_OF:
        image = image.transpose(_TRANSPOSE_OF[file.orientation])
    return _picture(image, rows=image.height, columns=image.width, partial=missing)


def _open(pieces: Sequence[Piece], image_format: str, clock: Clock) -> ImageFile.ImageFile:
    try:
        return Image.open(cast(IO[bytes], Source(pieces, clock)), formats=(image_format,))
    except UnidentifiedImageError as error:
        raise InvalidContent(f"a damaged photo: its header cannot be read as {image_format}") from error


def _picture(image: Image.Image, *, rows: int, columns: int, partial: str | None = None) -> Picture:
    visible = picture_from_image(image, rows=rows, columns=columns, scale=-(-columns // image.width))
    return replace(visible, partial=partial)


def _try_to_load(image: ImageFile.ImageFile) -> bool:
    """Decode an image; return False if only a part was decoded because its bytes end early or are damaged.

    Raises:
        Others: Any error that Pillow raises if nothing was decoded.
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
    """Return the number of rows up to the last row that is not completely black."""
    # Check the last row first. It is seldom black, and if it is not, no other row needs a check.
    if image.im.crop((0, image.height - 1, *image.size)).getbbox():
        return image.height
    filled = image.im.getbbox()
    return filled[3] if filled else 0


Colour = int | tuple[int, ...]


def _opposite_colours(image: Image.Image) -> tuple[Colour, Colour]:
    """Return two colours of an image's mode that differ in every channel."""
    bands = len(image.getbands())
    return (0, 255) if bands == 1 else ((0,) * bands, (255,) * bands)


def _rows_written(
    reopen: Callable[[], ImageFile.ImageFile],
    colours: tuple[Colour, Colour],
    *,
    frame: tuple[int, int, int, int] | None = None,
) -> NDArray[np.bool_]:
    """Return, for each row, whether the decoder writes all its pixels.

    The image is decoded onto each of the two colours. Pixels that the decoder does not write keep the colour, so they
    differ between the two images.
    """
    images = []
    for colour in colours:
        image = reopen()
        image.im = Image.new(image.mode, image.size, colour).im
        _try_to_load(image)
        images.append(image if frame is None else image.crop(frame))
    return ~_rows_that_differ(*images)


def _describe_missing_rows(present: NDArray[np.bool_]) -> str | None:
    """Describe which rows are missing; return None if no row is missing."""
    rows, count = np.flatnonzero(~present), present.size
    if not rows.size:
        return None
    if rows[-1] == count - 1 and rows[0] == count - rows.size:
        return _missing_end(rows.size, count)
    return _missing_share(rows.size, count, "the upper " if rows[-1] == rows.size - 1 else "")


def _fill_with_row_above(image: Image.Image, frame: tuple[int, int, int, int], present: NDArray[np.bool_]) -> None:
    """Replace each missing row with the row above, as viewers do while an interlaced picture loads."""
    above = np.maximum.accumulate(np.where(present, np.arange(present.size), 0))
    part = image.crop(frame)
    filled = Image.fromarray(np.asarray(part)[above])
    image.im.paste(filled.im if filled.mode == image.mode else filled.im.convert(image.mode), frame)


def _rows_that_differ(one: Image.Image, other: Image.Image) -> NDArray[np.bool_]:
    differ = np.zeros(one.height, bool)
    for rows in strips(0, one.height, one.width):
        box = 0, rows.start, one.width, rows.stop
        pair = [_comparable(np.asarray(image.crop(box))) for image in (one, other)]
        differ[rows] = (pair[0] != pair[1]).reshape(rows.stop - rows.start, -1).any(axis=1)
    return differ


def _comparable(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return floats as integers with the same bits, so that NaN is equal to itself."""
    return values.view(np.uint32) if values.dtype == np.float32 else values


def _missing_below(present: int, rows: int) -> str | None:
    return None if present >= rows else _missing_end(rows - present, rows)


def _missing_end(missing: int, rows: int) -> str:
    return _missing_share(missing, rows, "the lower ")


def _missing_share(missing: int, rows: int, where: str) -> str:
    """Describe the share of the rows that is missing.

    Raises:
        InvalidContent: More than half of the rows are missing.
    """
    text = f"{where}{_percent(missing, rows)} % of the rows are missing"
    if 2 * missing > rows:
        raise InvalidContent(f"a damaged photo: {text}, more than half")
    return text


def _percent(part: int, whole: int) -> int:
    return max(1, round(100 * part / whole))


_Reader = Callable[[bytes, ReadOptions], Picture]

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
