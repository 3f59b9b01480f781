"""Parts of GIF files: the screen, the colours and the first frame. Comments and application extensions are left out.

Source: GIF89a specification, sections 17 to 27.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from countermark.errors import InvalidContent
from countermark.signals.formats.source import Clock, Piece

SIGNATURES = (b"GIF87a", b"GIF89a")

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_CONTROL = 0xF9
_CLOCK_BLOCKS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Gif:
    """The parts of a GIF that a decoder needs. `frame` is (left, top, right, bottom) of the first frame, in pixels."""

    screen: bytes
    control: bytes
    image: memoryview
    frame: tuple[int, int, int, int]

    @property
    def is_interlaced(self) -> bool:
        """Whether the rows of the frame are stored in four passes."""
        return bool(self.image[9] & 0x40)

    @property
    def pieces(self) -> Sequence[Piece]:
        """A GIF file with only the first frame."""
        return self.screen, self.control, self.image, bytes((0, _TRAILER))

    @property
    def without_control(self) -> Sequence[Piece]:
        """The same file without transparency. So the decoder writes every pixel for which it has data."""
        return self.screen, self.image, bytes((0, _TRAILER))


def walk(content: bytes, clock: Clock) -> Gif:
    """Return the parts of a GIF that a decoder needs for the first frame.

    Raises:
        ContentTooLarge: The time limit has passed.
        InvalidContent: The GIF has no frame.
    """
    at = 13 + _table_bytes(content, 10)
    screen, control = content[:at], b""
    blocks = 0
    while at < len(content) and content[at] != _TRAILER:
        blocks += 1
        if blocks % _CLOCK_BLOCKS == 0:
            clock.check()
        if content[at] == _IMAGE:
            data = at + 10 + _table_bytes(content, at + 9) + 1
            if data > len(content):
                break
            left, top, columns, rows = (
                int.from_bytes(content[place : place + 2], "little") for place in range(at + 1, at + 9, 2)
            )
            stop = _after_blocks(content, data, clock)
            image = memoryview(content)[at:stop]
            return Gif(screen=screen, control=control, image=image, frame=(left, top, left + columns, top + rows))
        if content[at] == _EXTENSION:
            if content[at + 1 : at + 3] == bytes((_CONTROL, 4)):
                control = content[at : at + 7] + b"\0"
            at = _after_blocks(content, at + 2, clock) + 1
        else:
            at += 1
    raise InvalidContent("a damaged photo: a GIF without a frame")


def _table_bytes(content: bytes, at: int) -> int:
    """Return the size in bytes of the colour table that the flags at offset `at` declare; 0 if they declare none."""
    flags = content[at] if at < len(content) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(content: bytes, at: int, clock: Clock) -> int:
    """Return the offset of the terminator of a series of sub-blocks, or the end of the content."""
    blocks = 0
    while at < len(content) and content[at]:
        at += content[at] + 1
        blocks += 1
        if blocks % _CLOCK_BLOCKS == 0:
            clock.check()
    return min(at, len(content))
