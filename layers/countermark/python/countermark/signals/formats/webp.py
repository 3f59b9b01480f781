"""WebP: its picture, or the first frame of its animation. Profiles and metadata are passed over, and so is alpha.

Source: WebP Container Specification (developers.google.com/speed/webp/docs/riff_container).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from countermark.errors import InvalidContent
from countermark.signals.formats.source import Clock, Piece

_PICTURES = (b"VP8 ", b"VP8L")
_ANIMATION_FLAG = 0x02
_CLOCK_CHUNKS = 4096
_SPARE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class WebP:
    """What a decoder reads of a WebP. `lacks` is how many bytes of its picture are missing at the end."""

    pieces: Sequence[Piece]
    width: int
    height: int
    lacks: int

    def filled(self, filling: bytes) -> Sequence[Piece]:
        """Return the file with something in place of the bytes that are missing.

        Raises:
            InvalidContent: Too many are missing.
        """
        _, picture, *others = self.pieces
        there = len(picture)
        if len(others) > 1 or self.lacks > 4 * there:
            raise InvalidContent(f"a damaged photo: {self.lacks} bytes of a WebP's picture are missing at its end")
        # The decoder may take more bits of what is filled in than of what was there.
        size = self.lacks + max(_SPARE_BYTES, there)
        rest = (filling * (size // len(filling) + 1))[:size]
        head = _chunk_head(bytes(picture[:4]), there - 8 + size)
        return _file([head, memoryview(picture)[8:], rest], self.width, self.height, lacks=0).pieces


def is_webp(content: bytes) -> bool:
    """Return whether bytes begin as WebP does."""
    return content.startswith(b"RIFF") and content[8:12] == b"WEBP"


def walk(content: bytes, clock: Clock) -> WebP:
    """Return what a decoder reads of a WebP, a file of its own with one picture.

    Raises:
        ContentTooLarge: It takes too long.
        InvalidContent: There is no picture.
    """
    view = memoryview(content)
    extended = animation = b""
    # Not the size in the header: a viewer that reads on shows the picture as well.
    for number, (kind, start, stop) in enumerate(_chunks(content, 12, len(content))):
        if number % _CLOCK_CHUNKS == 0:
            clock.check()
        if kind in _PICTURES:
            width, height = _size(content[start : start + 10], kind)
            return _file([view[start - 8 : stop]], width, height, lacks=max(0, stop - len(content)))
        if kind == b"VP8X" and stop - start >= 10:
            extended = content[start : start + 10]
        elif kind == b"ANIM" and stop - start >= 6:
            animation = content[start : start + 6]
        elif kind == b"ANMF" and extended:
            frame = _frame(view, start, stop)
            if frame is not None:
                pieces, lacks = frame
                width, height = (int.from_bytes(extended[at : at + 3], "little") + 1 for at in (4, 7))
                head = _chunk_head(b"VP8X", 10) + bytes((_ANIMATION_FLAG,)) + bytes(3) + extended[4:10]
                head += _chunk_head(b"ANIM", 6) + (animation or bytes(6))
                return _file([head, *pieces], width, height, lacks=lacks)
    raise InvalidContent("a damaged photo: a WebP without a picture")


def _frame(view: memoryview, start: int, stop: int) -> tuple[list[Piece], int] | None:
    """Return a frame of an animation with nothing but its picture in it, and how many of its bytes are missing."""
    for kind, begin, end in _chunks(view, start + 16, min(stop, len(view))):
        if kind in _PICTURES:
            size = 16 + 8 + end - begin + (end - begin) % 2
            padding = bytes((end - begin) % 2)
            lacks = max(0, end - len(view))
            return [_chunk_head(b"ANMF", size), view[start : start + 16], view[begin - 8 : end], padding], lacks
    return None


def _chunks(content: bytes | memoryview, at: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk, where its data begins and where it should end."""
    while at + 8 <= stop:
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        yield bytes(content[at : at + 4]), at + 8, at + 8 + length
        at += 8 + length + length % 2


def _size(head: bytes, kind: bytes) -> tuple[int, int]:
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return width, height


def _file(pieces: Sequence[Piece], width: int, height: int, *, lacks: int) -> WebP:
    size = sum(map(len, pieces))
    padding = bytes(size % 2)
    head = b"RIFF" + (4 + size + len(padding)).to_bytes(4, "little") + b"WEBP"
    return WebP(pieces=[head, *pieces, padding], width=width, height=height, lacks=lacks)


def _chunk_head(kind: bytes, size: int) -> bytes:
    return kind + size.to_bytes(4, "little")
