"""From the bytes of a photo to its pixels, within limits.

Pillow and NumPy are imported once there is something to decode. Nothing is written to disk, no name is looked at, and
of a photo with several frames only the first is decoded, however many there are.
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
"""The largest photo: 16 megapixels of uncompressed 16-bit RGB."""

MAX_PIXELS = 89_478_485
"""The most pixels: where Pillow begins to warn of a decompression bomb."""

_BYTES_PER_PIXEL = 4
"""How much Pillow keeps of each pixel that was decoded."""

MAX_DECODE_BYTES = 8 * MAX_PIXELS
"""The most memory that decoding one photo may take: formats whose decoders need more a pixel may have fewer pixels."""

MAX_SCANS = 100
"""The most scans of a JPEG: progressive ones have about ten; each makes the decoder go over all pixels again."""

MAX_SCANNED_PIXELS = 20 * MAX_PIXELS
"""The most pixels times scans: the largest photo with twice as many scans as is usual; some ten seconds."""

DRAFT_PIXELS = 1024
"""The shortest side that a draft leaves: each of the 64 samples of PDQ a side is still of 16 pixels."""

MAX_DECODE_S = 30.0
"""How much processor time decoding may take, looked at whenever the decoder asks for more bytes.

A format that is read whole before it is decoded is bounded by its pixels alone.
"""

FORMATS = ("AVIF", "BMP", "GIF", "HEIC", "JPEG", "PNG", "TIFF", "WebP")
"""The formats that are opened, as Pillow names them: what cameras, editors and the web make, and no more."""

# The modules that read them. Pillow would load its readers of all other formats to look for one that is missing.
_PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP")

_LONGEST_REASON = 120
"""How many characters of Pillow's own words an error quotes."""

# What Pillow's decoders raise for damaged files. Anything else is our fault, or Pillow's, and crashes.
_DAMAGE = (
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

# The beginnings of what is uploaded as a photo and is none.
_SIGNATURES = (
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"<", "SVG, HTML or another text with tags"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"8BPS", "a Photoshop document"),
)

# The beginnings of photos that are not decoded here.
_OTHER_PHOTOS = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"II\xbc\x01", "JPEG XR"),
)


def pixels(content: bytes) -> "NDArray[np.uint8]":
    """Return the picture that a person sees, 8 bits a channel.

    Returns:
        Shape (rows, columns) for grey, (rows, columns, 3) for RGB; C order. Alpha is dropped, not composited, and the
        orientation that EXIF asks for is not applied: so do the platforms that hashes are exchanged with.

    Raises:
        ContentTooLarge, InvalidContent, MissingExtra: As `picture`.
    """
    return picture(content).pixels()


def picture(content: bytes, *, draft: bool = False) -> "Picture":
    """Return the picture that a person sees, as `pixels` does, but without a copy of it.

    Bytes that no viewer looks at decide nothing. Of a file that ends early, or is damaged from some place on, the
    picture is what its decoder completes, and `partial` says how much is missing.

    `draft` lets JPEG come out at a half, a quarter or an eighth of its size, while no side gets shorter than
    `DRAFT_PIXELS`: several times faster, but no longer with the bits of others; see docs/hashing.md.

    Raises:
        ContentTooLarge: More than `MAX_PHOTO_BYTES`, `MAX_PIXELS`, `MAX_SCANS` or `MAX_SCANNED_PIXELS`, or
            `MAX_DECODE_S` went by.
        Busy: Other content takes the memory of the process, see `memory`.
        InvalidContent: It is no photo, damaged, or less than half of its rows are there; the error says which.
        MissingExtra: It is HEIC, and what reads it is not installed.
        UnsupportedContent: It is of a format or a variant that is not decoded; the error names it.
    """
    if len(content) > MAX_PHOTO_BYTES:
        raise ContentTooLarge(f"a photo has at most {MAX_PHOTO_BYTES} bytes, not {len(content)}")
    for plugin in _PLUGINS:
        import_module(f"PIL.{plugin}ImagePlugin")
    from PIL import Image, UnidentifiedImageError

    from countermark.signals.formats import readers

    _quieten()
    try:
        admission = _Admission(len(content))
        reading = readers.Reading(
            clock=Clock(MAX_DECODE_S), admit=admission.admit, draft_pixels=DRAFT_PIXELS if draft else None
        )
        with admission:
            read = readers.read(content, reading)
            return admission.kept_by(read) if read is not None else _refuse(content)
    except Image.DecompressionBombError as error:
        raise ContentTooLarge(f"a photo has at most {MAX_PIXELS} pixels: {_reason(error)}") from error
    except UnidentifiedImageError as error:
        raise InvalidContent(f"not a photo that can be read: {_describe(content)}") from error
    except _DAMAGE as error:
        raise InvalidContent(f"a damaged photo: {_reason(error)}") from error


def _refuse(content: bytes) -> NoReturn:
    for signature, what in _OTHER_PHOTOS:
        if content.startswith(signature):
            raise UnsupportedContent(f"a photo in {what}, which is none of {', '.join(FORMATS)}")
    raise InvalidContent(f"not a photo that can be read: {_describe(content)}")


class _Admission:
    """Lets one photo be decoded, with memory of the process's budget."""

    def __init__(self, content_bytes: int) -> None:
        self._content_bytes = content_bytes
        self._lease: Lease | None = None

    def admit(self, claim: "Claim") -> None:
        """Check what a photo's header says, before anything is decoded, and take the memory that this needs.

        Raises:
            Busy: There is no memory in time.
            ContentTooLarge: There are more pixels than are allowed, or a JPEG goes over them too often.
        """
        _check(claim)
        needs_bytes = claim.width * claim.height * claim.bytes_per_pixel
        self._lease = process_budget().take(self._content_bytes + needs_bytes)

    def kept_by(self, picture: "Picture") -> "Picture":
        """Return a picture that keeps, as long as it lives, the memory that its pixels take."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.shrink(_BYTES_PER_PIXEL * picture.rows * picture.columns)
        return replace(picture, lease=lease)

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """Give back what no picture keeps."""
        if self._lease is not None:
            self._lease.release()


def _check(claim: "Claim") -> None:
    """Check how much a photo's header says there is.

    Raises:
        ContentTooLarge: There are more pixels than are allowed, or a JPEG goes over them too often.
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


def _quieten() -> None:
    """Let Pillow keep to itself what it thinks of a file: what matters is in our errors, and all else is noise."""
    warnings.filterwarnings("ignore", module=r"PIL\b")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _quieten_libtiff()


@cache
def _quieten_libtiff() -> None:
    """Let the library that Pillow reads compressed TIFFs with print nothing; where it is hidden within, it prints on.

    Source: TIFFError(3tiff) and TIFFWarning(3tiff): without a handler nothing is printed.
    """
    import ctypes

    from PIL import Image

    extension = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined]  # its types leave out the compiled part
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        set_handler = getattr(extension, name, None)
        if set_handler is not None:
            set_handler.argtypes, set_handler.restype = (ctypes.c_void_p,), ctypes.c_void_p
            set_handler(None)


def looks_like(content: bytes) -> str | None:
    """Say what bytes that are no photo look like, in words; None where they look like nothing that we know."""
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if content[4:8] == b"ftyp":
        return "HEIC" if is_heic(content) else "an MP4 or QuickTime video"
    return next((what for signature, what in _SIGNATURES if start.startswith(signature)), None)


def _describe(content: bytes) -> str:
    """Say what the bytes look like, as the end of a sentence."""
    if not content:
        return "there are no bytes"
    what = looks_like(content)
    return f"it looks like {what}" if what else f"it is none of {', '.join(FORMATS)}"


def _reason(error: BaseException) -> str:
    """Return Pillow's words, on one line and not too many of them."""
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
