"""JPEG: its tables and scans, up to the end of the image.

Source: ITU-T T.81, annex B; libjpeg-turbo, jdmarker.c and jdinput.c, for what is read, passed over and refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from countermark.errors import InvalidContent, UnsupportedContent
from countermark.signals.formats.source import Clock, Piece

START = b"\xff\xd8\xff"
END_MARKER = b"\xff\xd9"

# Between segments junk is passed over. Within a scan a byte FF is data where 00 follows it, and a restart where D0 to
# D7 does. A pattern of two bytes takes linear time however many FF fill the room before a marker.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# With restarts the decoder also passes over codes that are reserved, in search of the next restart.
_AFTER_RESTARTS = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")

_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_OTHER_FRAMES = {
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "lossless and hierarchical",
    0xCB: "lossless and arithmetic",
    0xCD: "hierarchical and arithmetic",
    0xCE: "hierarchical and arithmetic",
    0xCF: "lossless, hierarchical and arithmetic",
}
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_ARITHMETIC = frozenset({0xC9, 0xCA})
# Huffman tables, arithmetic conditioning, quantisation tables, the restart interval.
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})
_SKIPPED = frozenset({0xDC, *range(0xE0, 0xF0), 0xFE})
_SCAN, _END, _RESTART_INTERVAL = 0xDA, 0xD9, 0xDD

_CLOCK_SEGMENTS = 4096
"""After so many segments the time is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jpeg:
    """What a decoder reads of a JPEG.

    `pieces` end before the end marker. `scans` are those that the decoder goes through. `is_whole` says whether the
    end marker is there. `waits` says whether the decoder shows nothing before it has seen all scans. `shown_after` is
    the number of the scan that first shows all of the picture, if only coarsely; 0 where none does.
    """

    pieces: Sequence[Piece]
    scans: int
    is_whole: bool
    waits: bool
    shown_after: int
    is_arithmetic: bool
    coefficient_bytes: int
    """How much the coefficients of a pixel take, where all are held."""


def walk(content: bytes, clock: Clock) -> Jpeg:
    """Return what a decoder reads of a JPEG: what is behind the end of the image, and metadata, is left out.

    Raises:
        ContentTooLarge: It takes too long.
        InvalidContent: There is no scan.
        UnsupportedContent: It is of a kind that is not decoded.
    """
    return _Walk(content, clock).result()


class _Walk:
    def __init__(self, content: bytes, clock: Clock) -> None:
        self._content = content
        self._kept: list[tuple[int, int]] = [(0, 2)]
        self._frame: bytes = b""
        self._code = 0
        self._scans = 0
        self._shown_after = 0
        self._waits = False
        self._restarts = False
        self._is_whole = False
        at: int | None = 2
        segments = 0
        while at is not None:
            segments += 1
            if segments % _CLOCK_SEGMENTS == 0:
                clock.check()
            at = self._next(at)

    def result(self) -> Jpeg:
        if not self._scans:
            raise InvalidContent("a damaged photo: a JPEG without a scan")
        view = memoryview(self._content)
        return Jpeg(
            pieces=[view[start:stop] for start, stop in self._kept],
            scans=self._scans,
            is_whole=self._is_whole,
            waits=self._waits,
            shown_after=self._shown_after,
            is_arithmetic=self._code in _ARITHMETIC,
            coefficient_bytes=_coefficient_bytes(self._frame),
        )

    def _next(self, at: int) -> int | None:
        """Take the next marker and its segment; return where it ends, or None at the end of what is read."""
        content = self._content
        found = _MARKER.search(content, at)
        if found is None:
            return None
        marker, code = found.start(), content[found.start() + 1]
        if code in _BARE:
            return marker + 2
        if code == _END:
            self._is_whole = True
            return None
        length = int.from_bytes(content[marker + 2 : marker + 4])
        stop = marker + 2 + length
        if length < 2 or stop > len(content):
            return None
        body = content[marker + 4 : stop]
        if code == _SCAN:
            return self._scan(marker, stop, body)
        if code in _FRAMES or code in _OTHER_FRAMES:
            if self._frame:
                return None
            self._take_frame(code, body)
        elif code in _TABLES:
            self._restarts = body[:2] not in (b"", b"\0\0") if code == _RESTART_INTERVAL else self._restarts
        elif code not in _SKIPPED:
            return None
        elif not _decides_colours(code, body):
            return stop
        self._keep(marker, stop)
        return stop

    def _take_frame(self, code: int, body: bytes) -> None:
        if code in _OTHER_FRAMES:
            raise UnsupportedContent(f"a JPEG that is {_OTHER_FRAMES[code]}")
        if len(body) < 9:
            raise InvalidContent("a damaged photo: a JPEG whose frame header is too short")
        if body[0] != 8:
            raise UnsupportedContent(f"a JPEG of {body[0]} bits a sample")
        if body[5] not in (1, 3, 4):
            raise UnsupportedContent(f"a JPEG of {body[5]} components")
        self._frame, self._code = body, code

    def _scan(self, marker: int, stop: int, body: bytes) -> int | None:
        """Take a scan: its header, and its data up to the next marker."""
        components = body[0] if body else 0
        if not self._frame or len(body) != 4 + 2 * components:
            return None
        self._scans += 1
        if self._scans == 1:
            self._waits = self._code in _PROGRESSIVE or components < self._frame[5]
        if not self._shown_after and self._frame[6] in body[1:-3:2] and body[-3] == 0:
            self._shown_after = self._scans
        found = (_AFTER_RESTARTS if self._restarts else _AFTER_SCAN).search(self._content, stop)
        end = found.start() if found is not None else _before_fill(self._content, stop)
        self._keep(marker, end)
        if self._waits:
            return end
        # The decoder is done after its only scan: whatever follows is not read.
        self._is_whole = found is not None
        return None

    def _keep(self, start: int, stop: int) -> None:
        begin, end = self._kept[-1]
        if end == start:
            self._kept[-1] = begin, stop
        else:
            self._kept.append((start, stop))


def _coefficient_bytes(frame: bytes) -> int:
    """Return two bytes for each sample of a pixel, fewer where components are sampled more coarsely."""
    sampled = [(each >> 4) * (each & 15) for each in frame[7::3]]
    return -(-2 * sum(sampled) // max(1, *sampled, 1))


def _before_fill(content: bytes, start: int) -> int:
    """Return where data that ends with the content stops: bytes FF at its end begin a marker that is not there."""
    return max(start, len(content.rstrip(b"\xff")))


def _decides_colours(code: int, body: bytes) -> bool:
    """Return whether an application's segment tells the decoder what its components are."""
    if code == 0xE0:
        return len(body) >= 14 and body.startswith(b"JFIF\0")
    return code == 0xEE and len(body) >= 12 and body.startswith(b"Adobe")
