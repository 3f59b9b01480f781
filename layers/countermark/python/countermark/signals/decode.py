"""Decodes the bytes of a photo to pixels, within limits.

Pillow and NumPy are imported when the first photo is decoded. Decoding writes nothing to disk and ignores file names.
If a photo has several frames, only the first is decoded.
"""

import logging
import struct
import warnings
import zlib
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from countermark.errors import ContentTooLarge, InvalidContent, UnsupportedContent
from countermark.signals.formats.boxes import is_heic
from countermark.signals.formats.source import Clock
from countermark.signals.memory import Lease, process_budget

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from countermark.signals.formats.readers import Claim
    from countermark.signals.picture import Picture

MAX_PHOTO_BYTES = 100 * 1024 * 1024
"""The maximum size of a photo file. It is enough for 16 megapixels of uncompressed 16-bit RGB."""

MAX_PIXELS = 89_478_485
"""The maximum number of pixels of a photo. Above it, Pillow warns of a decompression bomb."""

_BYTES_PER_PIXEL = 4
"""How many bytes of memory a decoded pixel takes in Pillow."""

MAX_DECODE_BYTES = 8 * MAX_PIXELS
"""The maximum memory for decoding one photo. If a decoder needs more memory per pixel, fewer pixels are allowed."""

MAX_SCANS = 100
"""The maximum number of scans of a JPEG. The decoder processes all pixels in each scan. Ten scans are usual."""

MAX_SCANNED_PIXELS = 20 * MAX_PIXELS
"""The maximum of pixels times scans: the largest photo with twice the usual scans. Decoding it takes about 10 s."""

DRAFT_PIXELS = 1024
"""The minimum side of a draft, in pixels. With it, each of PDQ's 64 samples per side covers at least 16 pixels."""

MAX_DECODE_S = 30.0
"""The maximum processor time for decoding one photo, in seconds. It is checked when the decoder reads more bytes.

Some decoders read the whole file first. For their formats, only the number of pixels limits the time.
"""

FORMATS = ("AVIF", "BMP", "GIF", "HEIC", "JPEG", "PNG", "TIFF", "WebP")
"""Pillow's names of the formats that are decoded. Cameras, editors and websites use these formats."""

# The Pillow plugins for these formats. If one of them were not loaded, Pillow would load all its plugins to find it.
_PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP")

_LONGEST_REASON = 120
"""How many characters of Pillow's message an error quotes at most."""

# The errors that Pillow's decoders raise for damaged files. Any other error is a bug here or in Pillow. It propagates.
_DAMAGE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

# The first bytes of files that are not photos, but that people upload as photos.
_SIGNATURES = (
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"<", "SVG, HTML or another text with tags"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"8BPS", "a Photoshop document"),
)

# The first bytes of photos in formats that are not decoded.
_UNSUPPORTED_PHOTOS = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"II\xbc\x01", "JPEG XR"),
)


def pixels(content: bytes) -> "NDArray[np.uint8]":
    """Return the pixels of a photo as a person sees them, 8 bits per channel.

    Returns:
        Shape (rows, columns) for grey, (rows, columns, 3) for RGB; C order. Alpha is dropped, not composited. The
        orientation in EXIF is not applied. The platforms that exchange hashes with countermark do the same.

    Raises:
        Busy, ContentTooLarge, InvalidContent, MissingExtra, UnsupportedContent: See `picture`.
    """
    return picture(content).pixels()


def picture(content: bytes, *, draft: bool = False) -> "Picture":
    """Decode a photo, and return its picture as a person sees it. Unlike `pixels`, this makes no copy of the pixels.

    Bytes that viewers ignore do not change the picture. If a file ends early, or is damaged after some point, the
    decoder fills in the missing part, and the picture's `partial` says how much is missing.

    If `draft` is true, a JPEG can be decoded at a half, a quarter or an eighth of its size, but with no side shorter
    than `DRAFT_PIXELS`. This is several times faster, but the hash can differ in some bits; see docs/hashing.md.

    Raises:
        ContentTooLarge: The photo exceeds `MAX_PHOTO_BYTES`, `MAX_PIXELS`, `MAX_DECODE_BYTES`, `MAX_SCANS`,
            `MAX_SCANNED_PIXELS` or `MAX_DECODE_S`.
        Busy: The memory of the process is in use for decoding other content; see `memory`.
        InvalidContent: The bytes are not a photo or are damaged, or more than half of the rows are missing. The error
            states the reason.
        MissingExtra: The photo is HEIC, and the library that reads HEIC is not installed.
        UnsupportedContent: The format, or the variant of it, is not decoded. The error names it.
    """
    if len(content) > MAX_PHOTO_BYTES:
        raise ContentTooLarge(f"a photo has at most {MAX_PHOTO_BYTES} bytes, not {len(content)}")
    for plugin in _PLUGINS:
        import_module(f"PIL.{plugin}ImagePlugin")
    from PIL import Image, UnidentifiedImageError

    from countermark.signals.formats import readers

    _silence_pillow()
    try:
        admission = _Admission(len(content))
        options = readers.ReadOptions(
            clock=Clock(MAX_DECODE_S), admit=admission.admit, draft_pixels=DRAFT_PIXELS if draft else None
        )
        with admission:
            read = readers.read(content, options)
            return admission.attach_lease(read) if read is not None else _refuse(content)
    except Image.DecompressionBombError as error:
        raise ContentTooLarge(f"a photo has at most {MAX_PIXELS} pixels: {_reason(error)}") from error
    except UnidentifiedImageError as error:
        raise InvalidContent(f"not a photo that can be read: {_describe(content)}") from error
    except _DAMAGE_ERRORS as error:
        raise InvalidContent(f"a damaged photo: {_reason(error)}") from error


def _refuse(content: bytes) -> NoReturn:
    for signature, description in _UNSUPPORTED_PHOTOS:
        if content.startswith(signature):
            raise UnsupportedContent(f"a photo in {description}, which is none of {', '.join(FORMATS)}")
    raise InvalidContent(f"not a photo that can be read: {_describe(content)}")


class _Admission:
    """Allows the decoding of one photo if its size is allowed, and reserves memory from the budget of the process."""

    def __init__(self, content_bytes: int) -> None:
        self._content_bytes = content_bytes
        self._lease: Lease | None = None

    def admit(self, claim: "Claim") -> None:
        """Check the sizes in a photo's header before decoding, and take the memory that decoding needs.

        Raises:
            Busy: The memory did not become free in time.
            ContentTooLarge: The photo has too many pixels, or a JPEG has too many scans.
        """
        _check(claim)
        needs_bytes = claim.width * claim.height * claim.bytes_per_pixel
        self._lease = process_budget().take(self._content_bytes + needs_bytes)

    def attach_lease(self, picture: "Picture") -> "Picture":
        """Return the picture with a lease for the memory of its pixels. The lease ends when the picture is freed."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.shrink(_BYTES_PER_PIXEL * picture.rows * picture.columns)
        return replace(picture, lease=lease)

    def __enter__(self) -> None:
        """Do nothing: `admit` takes the lease."""

    def __exit__(self, *_: object) -> None:
        """Release the memory, unless `attach_lease` passed the lease to a picture."""
        if self._lease is not None:
            self._lease.release()


def _check(claim: "Claim") -> None:
    """Check the sizes in a photo's header.

    Raises:
        ContentTooLarge: The photo has too many pixels, or a JPEG has too many scans.
    """
    pixels = claim.width * claim.height
    if pixels > MAX_PIXELS:
        raise ContentTooLarge(f"a photo has at most {MAX_PIXELS} pixels, not {claim.width} x {claim.height}")
    if pixels * claim.bytes_per_pixel > MAX_DECODE_BYTES:
        most = MAX_DECODE_BYTES // claim.bytes_per_pixel
        raise ContentTooLarge(
            f"a photo in {claim.format} of this kind has at most {most} pixels, not {claim.width} x {claim.height}: "
            f"its decoder takes {claim.bytes_per_pixel} bytes for each"
        )
    if claim.scans > MAX_SCANS or claim.scans * pixels > MAX_SCANNED_PIXELS:
        most = min(MAX_SCANS, MAX_SCANNED_PIXELS // pixels)
        raise ContentTooLarge(
            f"a JPEG of {claim.width} x {claim.height} pixels has at most {most} scans, not {claim.scans}"
        )


def _silence_pillow() -> None:
    """Silence Pillow's warnings and log records: countermark's errors already contain the important facts."""
    warnings.filterwarnings("ignore", module=r"PIL\b")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _silence_libtiff()


@cache
def _silence_libtiff() -> None:
    """Stop libtiff, with which Pillow reads compressed TIFFs, from printing messages.

    This has no effect if Pillow's build does not export libtiff's functions.
    Source: TIFFError(3tiff) and TIFFWarning(3tiff): without a handler nothing is printed.
    """
    import ctypes

    from PIL import Image

    extension = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined]  # its type hints omit the compiled module
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        set_handler = getattr(extension, name, None)
        if set_handler is not None:
            set_handler.argtypes, set_handler.restype = (ctypes.c_void_p,), ctypes.c_void_p
            set_handler(None)


def looks_like(content: bytes) -> str | None:
    """Describe bytes that are not a photo, for example "a ZIP archive"; return None if the format is unknown."""
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if content[4:8] == b"ftyp":
        return "HEIC" if is_heic(content) else "an MP4 or QuickTime video"
    return next((description for signature, description in _SIGNATURES if start.startswith(signature)), None)


def _describe(content: bytes) -> str:
    """Describe what the bytes look like, as the end of a sentence."""
    if not content:
        return "there are no bytes"
    description = looks_like(content)
    return f"it looks like {description}" if description else f"it is none of {', '.join(FORMATS)}"


def _reason(error: BaseException) -> str:
    """Return Pillow's message on one line, cut to `_LONGEST_REASON`."""
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
