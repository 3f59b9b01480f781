"""Parts of JPEG files: the tables and the scans, up to the end of the image.

Source: ITU-T T.81, annex B. Segments are read, skipped or refused as in libjpeg-turbo, jdmarker.c and jdinput.c.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from countermark.errors import InvalidContent, UnsupportedContent
from countermark.signals.formats.source import Clock, Piece

START = b"\xff\xd8\xff"
END_MARKER = b"\xff\xd9"

# Between segments, bytes that are not a marker are skipped. Within a scan, FF 00 is data, and FF D0 to FF D7 are
# restarts. The patterns match exactly two bytes, so a search takes linear time even in a long series of FF bytes.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# In a JPEG with restarts, the decoder also skips reserved codes when it searches for the next restart.
_AFTER_RESTARTS = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")

_WITHOUT_SEGMENT = frozenset({0x01, *range(0xD0, 0xD8)})
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
# Markers of Huffman tables, arithmetic conditioning, quantisation tables and the restart interval.
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})
_SKIPPED = frozenset({0xDC, *range(0xE0, 0xF0), 0xFE})
_SCAN, _END, _RESTART_INTERVAL = 0xDA, 0xD9, 0xDD

_CLOCK_SEGMENTS = 4096
"""The time limit is checked after this many segments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jpeg:
    """The parts of a JPEG that a decoder needs.

    `pieces` contain the file up to the end marker, which is excluded. `scans` is the number of scans that the decoder
    reads. `has_end_marker` says whether the file has an end marker. `needs_all_scans` says whether the decoder outputs
    pixels only after all scans. `first_full_scan` is the number of the first scan that covers the whole picture, at
    least coarsely. It counts from 1, and is 0 if no scan does.
    """

    pieces: Sequence[Piece]
    scans: int
    has_end_marker: bool
    needs_all_scans: bool
    first_full_scan: int
    is_arithmetic: bool
    coefficient_bytes: int
    """How many bytes per pixel the decoder needs to store all coefficients."""


def walk(content: bytes, clock: Clock) -> Jpeg:
    """Return the parts of a JPEG that a decoder needs. Metadata and bytes after the end of the image are left out.

    Raises:
        ContentTooLarge: The time limit has passed.
        InvalidContent: The JPEG has no scan, or its frame header is too short.
        UnsupportedContent: This kind of JPEG is not decoded.
    """
    return _Walk(content, clock).result()


class _Walk:
    def __init__(self, content: bytes, clock: Clock) -> None:
        self._content = content
        self._kept: list[tuple[int, int]] = [(0, 2)]
        self._frame: bytes = b""
        self._code = 0
        self._scans = 0
        self._first_full_scan = 0
        self._needs_all_scans = False
        self._restarts = False
        self._has_end_marker = False
        at: int | None = 2
        segments = 0
        while at is not None:
            segments += 1
            if segments % _CLOCK_SEGMENTS == 0:
                clock.check()
            at = self._read_segment(at)

    def result(self) -> Jpeg:
        if not self._scans:
            raise InvalidContent("a damaged photo: a JPEG without a scan")
        view = memoryview(self._content)
        return Jpeg(
            pieces=[view[start:stop] for start, stop in self._kept],
            scans=self._scans,
            has_end_marker=self._has_end_marker,
            needs_all_scans=self._needs_all_scans,
            first_full_scan=self._first_full_scan,
            is_arithmetic=self._code in _ARITHMETIC,
            coefficient_bytes=_coefficient_bytes(self._frame),
        )

    def _read_segment(self, at: int) -> int | None:
        """Read the next marker and its segment; return the segment's end, or None if the decoder stops here."""
        content = self._content
        found = _MARKER.search(content, at)
        if found is None:
            return None
        marker, code = found.start(), content[found.start() + 1]
        if code in _WITHOUT_SEGMENT:
            return marker + 2
        if code == _END:
            self._has_end_marker = True
            return None
        length = int.from_bytes(content[marker + 2 : marker + 4])
        stop = marker + 2 + length
        if length < 2 or stop > len(content):
            return None
        body = content[marker + 4 : stop]
        if code == _SCAN:
            return self._read_scan(marker, stop, body)
        if code in _FRAMES or code in _OTHER_FRAMES:
            if self._frame:
                return None
            self._read_frame(code, body)
        elif code in _TABLES:
            self._restarts = body[:2] not in (b"", b"\0\0") if code == _RESTART_INTERVAL else self._restarts
        elif code not in _SKIPPED:
            return None
        elif not _affects_colours(code, body):
            return stop
        self._keep(marker, stop)
        return stop

    def _read_frame(self, code: int, body: bytes) -> None:
        if code in _OTHER_FRAMES:
            raise UnsupportedContent(f"a JPEG that is {_OTHER_FRAMES[code]}")
        if len(body) < 9:
            raise InvalidContent("a damaged photo: a JPEG whose frame header is too short")
        if body[0] != 8:
            raise UnsupportedContent(f"a JPEG of {body[0]} bits per sample")
        if body[5] not in (1, 3, 4):
            raise UnsupportedContent(f"a JPEG of {body[5]} components")
        self._frame, self._code = body, code

    def _read_scan(self, marker: int, stop: int, body: bytes) -> int | None:
        """Read a scan's header, and its data up to the next marker; return the same as `_read_segment`."""
        components = body[0] if body else 0
        if not self._frame or len(body) != 4 + 2 * components:
            return None
        self._scans += 1
        if self._scans == 1:
            self._needs_all_scans = self._code in _PROGRESSIVE or components < self._frame[5]
        if not self._first_full_scan and self._frame[6] in body[1:-3:2] and body[-3] == 0:
            self._first_full_scan = self._scans
        found = (_AFTER_RESTARTS if self._restarts else _AFTER_SCAN).search(self._content, stop)
        end = found.start() if found is not None else _end_of_data(self._content, stop)
        self._keep(marker, end)
        if self._needs_all_scans:
            return end
        # The decoder stops after its only scan, and does not read the rest.
        self._has_end_marker = found is not None
        return None

    def _keep(self, start: int, stop: int) -> None:
        begin, end = self._kept[-1]
        if end == start:
            self._kept[-1] = begin, stop
        else:
            self._kept.append((start, stop))


def _coefficient_bytes(frame: bytes) -> int:
    """Return how many bytes per pixel the coefficients take: two per component, or fewer if subsampled."""
    sampled = [(each >> 4) * (each & 15) for each in frame[7::3]]
    return -(-2 * sum(sampled) // max(1, *sampled, 1))


def _end_of_data(content: bytes, start: int) -> int:
    """Return the end of scan data in a file that ends early. Final FF bytes are excluded: they begin a marker."""
    return max(start, len(content.rstrip(b"\xff")))


def _affects_colours(code: int, body: bytes) -> bool:
    """Return whether the decoder reads the meaning of the colour components from this application segment."""
    if code == 0xE0:
        return len(body) >= 14 and body.startswith(b"JFIF\0")
    return code == 0xEE and len(body) >= 12 and body.startswith(b"Adobe")
