"""`vpdq`: the PDQ hashes of a video's frames, one per second. It recognises a recompressed or shortened video.

A value is a JSON list with a string `"<PDQ hash>,<quality>,<second>"` for each frame. Frames of low quality are
ignored, and equal hashes count once. The signal type is countermark's built-in extension `countermark.extensions.vpdq`.
Comparing and searching need only countermark; hashing a video needs the extra `vpdq`.

Source: python-threatexchange 1.2, extensions/vpdq: the format of `vpdq_to_json`, and the thresholds. A hash can occur
with several qualities. The index of python-threatexchange counts the hash if any of these qualities is high enough, but
its `compare_hash` checks only the first quality. In countermark, the index and the comparison both check all qualities.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from countermark.domain.signal import Comparison, ContentType, IndexKind
from countermark.errors import InvalidSignal
from countermark.signals.pdq import MIN_QUALITY, PDQ, Pdq

if TYPE_CHECKING:
    from countermark.signals.vpdq_hasher import VideoHasher

MIN_QUERY_PERCENT = 80
"""The minimum percentage of the query's frames that are similar to a banked frame. Banked frames have no minimum."""

MAX_SIGNAL_BYTES = 200 * 1024
"""The maximum size of a signal. Such a signal fits into an EventBridge event as JSON, and into a DynamoDB item."""

_FRAME = re.compile(
    r"([0-9a-f]{64}),(100|[0-9]{1,2}),([0-9]{1,12}(?:\.[0-9]{1,12})?(?:e[+-]?[0-9]{1,3})?)", re.IGNORECASE
)
_FORM = "a vpdq signal is a JSON list of '<64 hex digits>,<quality>,<second>'"
# How many pairs of frames are compared at once. The comparison takes a few MiB of memory.
_MAX_PAIRS = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class Vpdq:
    """The signal type. The distance is the percentage of the query's frames that are not in the banked video."""

    name: str = "vpdq"
    content_types: frozenset[ContentType] = frozenset({ContentType.VIDEO})
    index_kind: IndexKind = IndexKind.FRAMES
    match_distance: int = 100 - MIN_QUERY_PERCENT
    # The example of python-threatexchange: a video whose frames are the examples of PDQ.
    examples: tuple[str, ...] = (
        json.dumps([f"{digits},100,{float(second)}" for second, digits in enumerate(PDQ.examples)]),
    )
    frame_type: Pdq = PDQ

    def parse(self, text: str) -> str:
        """Return the canonical value: the hashes in lower case, the seconds unchanged.

        Raises:
            InvalidSignal: The text is not a vpdq signal, or it would match nothing because all frames have low quality.
        """
        if len(text) > MAX_SIGNAL_BYTES:
            raise InvalidSignal(f"a vpdq signal has at most {MAX_SIGNAL_BYTES} bytes, not {len(text)}")
        try:
            frames = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidSignal(f"{_FORM}, not {text[:100]!r}") from error
        if not isinstance(frames, list):
            raise InvalidSignal(f"{_FORM}, not {text[:100]!r}")
        value = json.dumps([_canonical_frame(frame) for frame in frames])
        if len(value) > MAX_SIGNAL_BYTES:
            raise InvalidSignal(f"a vpdq signal has at most {MAX_SIGNAL_BYTES} bytes, not {len(value)}")
        if not hashes(value):
            raise InvalidSignal(f"a vpdq signal needs a frame of at least quality {MIN_QUALITY}, unlike {text[:100]!r}")
        return value

    def key(self, value: str) -> bytes:
        return bytes.fromhex("".join(hashes(value)))

    def value(self, key: bytes) -> None:
        """Return None, because a key does not contain the order, times and qualities of the frames."""
        del key

    def compare(self, query: str, banked: str) -> Comparison:
        query_hashes, banked_hashes = hashes(query), hashes(banked)
        query_similar, banked_similar = _count_similar(query_hashes, banked_hashes)
        return self.compare_counts(
            query_similar=query_similar,
            query_frames=len(query_hashes),
            banked_similar=banked_similar,
            banked_frames=len(banked_hashes),
        )

    def compare_counts(
        self,
        *,
        query_similar: int,
        query_frames: int,
        banked_similar: int,  # noqa: ARG002  # the port's signature; any share of the banked video is enough
        banked_frames: int,  # noqa: ARG002  # as above
    ) -> Comparison:
        # Round up, so that rounding never turns a share below the limit into a match.
        missing_percent = -(-100 * (query_frames - query_similar) // query_frames)
        return Comparison(matches=missing_percent <= self.match_distance, distance=missing_percent)

    def hasher(self) -> "VideoHasher":
        from countermark.signals.vpdq_hasher import VideoHasher

        return VideoHasher(lambda frames: self.parse(from_frames(frames)))

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:
        """Return the percentage of similar frames in the query, then in the banked video, for example `80%[0%]`."""
        del distance
        query_hashes, banked_hashes = hashes(query), hashes(banked)
        query_similar, banked_similar = _count_similar(query_hashes, banked_hashes)
        return f"{100 * query_similar / len(query_hashes):.0f}%[{100 * banked_similar / len(banked_hashes):.0f}%]"


VPDQ = Vpdq()


def hashes(value: str) -> list[str]:
    """Return the distinct hashes in a canonical value, sorted. Hashes of frames with low quality are left out."""
    frames = (frame.split(",") for frame in json.loads(value))
    return sorted({digits for digits, quality, _ in frames if int(quality) >= MIN_QUALITY})


def from_frames(frames: Sequence[tuple[str, int, float]]) -> str:
    """Return the value for a video's frames. A frame is a hash in hex, a quality and a time in seconds.

    Times are written with three significant digits, so that the value has the same bytes as python-threatexchange's.
    """
    return json.dumps([f"{digits},{quality},{second:.3}" for digits, quality, second in frames])


def _canonical_frame(frame: object) -> str:
    found = _FRAME.fullmatch(frame) if isinstance(frame, str) else None
    if found is None or not math.isfinite(float(found[3])):
        raise InvalidSignal(f"{_FORM}, and {str(frame)[:100]!r} is not in this form")
    return f"{found[1].lower()},{int(found[2])},{found[3]}"


def _count_similar(query: Sequence[str], banked: Sequence[str]) -> tuple[int, int]:
    """Return how many of the query's hashes match a banked hash, and how many banked hashes match a query's hash."""
    import numpy as np

    query_hashes, banked_hashes = (
        np.frombuffer(bytes.fromhex("".join(each)), np.uint64).reshape(-1, 4) for each in (query, banked)
    )
    query_similar = 0
    is_banked_similar = np.zeros(len(banked_hashes), bool)
    step = max(1, _MAX_PAIRS // max(1, len(banked_hashes)))
    for start in range(0, len(query_hashes), step):
        chunk = query_hashes[start : start + step, None]
        bits = np.bitwise_count(chunk ^ banked_hashes).sum(axis=2, dtype=np.uint16)
        is_similar = bits <= PDQ.match_distance
        query_similar += int(np.count_nonzero(is_similar.any(axis=1)))
        is_banked_similar |= is_similar.any(axis=0)
    return query_similar, int(np.count_nonzero(is_banked_similar))
