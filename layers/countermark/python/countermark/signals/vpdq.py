"""`vpdq`: a video known again by the PDQ hashes of its frames, one a second, however it was compressed or cut.

A value is a JSON list of `"<PDQ hash>,<quality>,<second>"`, one a frame. Frames of low quality are passed over, and of
equal ones each counts once. It is an extension of ours, `countermark.extensions.vpdq`: comparing and searching need
nothing but countermark, hashing a video needs the extra `vpdq`.

Source: python-threatexchange 1.2, extensions/vpdq: the form that `vpdq_to_json` writes, and the thresholds. Where a
hash comes with several qualities, its index counts it if one of them is high enough, and its `compare_hash` only if
the first is; here both do as the index does.
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
"""How many of a hundred frames of the query have to be alike one of the banked video. Of the banked one 0 will do."""

MAX_SIGNAL_BYTES = 200 * 1024
"""The longest signal: an event of EventBridge has room for it as JSON, and so has an item of DynamoDB."""

_FRAME = re.compile(
    r"([0-9a-f]{64}),(100|[0-9]{1,2}),([0-9]{1,12}(?:\.[0-9]{1,12})?(?:e[+-]?[0-9]{1,3})?)", re.IGNORECASE
)
_FORM = "a vpdq signal is a JSON list of '<64 hex digits>,<quality>,<second>'"
# How many pairs of frames are compared at once: some MiB of numbers.
_PAIRS = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class Vpdq:
    """The signal type. Its distance is in percent of the query's frames: those that are not in the banked video."""

    name: str = "vpdq"
    content_types: frozenset[ContentType] = frozenset({ContentType.VIDEO})
    index_kind: IndexKind = IndexKind.FRAMES
    match_distance: int = 100 - MIN_QUERY_PERCENT
    # What python-threatexchange gives: PDQ's examples as a video of them.
    examples: tuple[str, ...] = (
        json.dumps([f"{digits},100,{float(second)}" for second, digits in enumerate(PDQ.examples)]),
    )
    frame_type: Pdq = PDQ

    def parse(self, text: str) -> str:
        """Return the canonical value: the hashes in lower case, the seconds as they came.

        Raises:
            InvalidSignal: It is none, or no frame is of a quality that counts: it would match nothing.
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
            raise InvalidSignal(f"a vpdq signal has a frame of at least quality {MIN_QUALITY}, unlike {text[:100]!r}")
        return value

    def key(self, value: str) -> bytes:
        return bytes.fromhex("".join(hashes(value)))

    def value(self, key: bytes) -> None:
        """Return None: a key has neither order nor time nor quality of the frames."""
        del key

    def compare(self, query: str, banked: str) -> Comparison:
        asked, known = hashes(query), hashes(banked)
        query_similar, banked_similar = _alike(asked, known)
        return self.compare_counts(
            query_similar=query_similar,
            query_frames=len(asked),
            banked_similar=banked_similar,
            banked_frames=len(known),
        )

    def compare_counts(
        self,
        *,
        query_similar: int,
        query_frames: int,
        banked_similar: int,  # noqa: ARG002  # the port's: of the banked video any share will do
        banked_frames: int,  # noqa: ARG002  # as above
    ) -> Comparison:
        # Rounded up, so that less than the share never looks like it.
        missing_percent = -(-100 * (query_frames - query_similar) // query_frames)
        return Comparison(matches=missing_percent <= self.match_distance, distance=missing_percent)

    def hasher(self) -> "VideoHasher":
        from countermark.signals.vpdq_hasher import VideoHasher

        return VideoHasher(lambda frames: self.parse(from_frames(frames)))

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:
        """Return the shares of both that are alike the other, the banked one's in brackets: `80%[0%]`."""
        del distance
        asked, known = hashes(query), hashes(banked)
        query_similar, banked_similar = _alike(asked, known)
        return f"{100 * query_similar / len(asked):.0f}%[{100 * banked_similar / len(known):.0f}%]"


VPDQ = Vpdq()


def hashes(value: str) -> list[str]:
    """Return the distinct hashes of a canonical value's frames of sufficient quality, ascending."""
    frames = (frame.split(",") for frame in json.loads(value))
    return sorted({digits for digits, quality, _ in frames if int(quality) >= MIN_QUALITY})


def from_frames(frames: Sequence[tuple[str, int, float]]) -> str:
    """Return the value of a video's frames, of hash in hex, quality and second.

    The seconds have three significant digits, as in python-threatexchange: a value is equal to its own to the last bit.
    """
    return json.dumps([f"{digits},{quality},{second:.3}" for digits, quality, second in frames])


def _canonical_frame(frame: object) -> str:
    found = _FRAME.fullmatch(frame) if isinstance(frame, str) else None
    if found is None or not math.isfinite(float(found[3])):
        raise InvalidSignal(f"{_FORM}, and {str(frame)[:100]!r} is none of those")
    return f"{found[1].lower()},{int(found[2])},{found[3]}"


def _alike(query: Sequence[str], banked: Sequence[str]) -> tuple[int, int]:
    """Return how many hashes of each are within PDQ's distance of one of the other."""
    import numpy as np

    asked, known = (np.frombuffer(bytes.fromhex("".join(each)), np.uint64).reshape(-1, 4) for each in (query, banked))
    query_similar = 0
    is_known = np.zeros(len(known), bool)
    step = max(1, _PAIRS // max(1, len(known)))
    for start in range(0, len(asked), step):
        some = asked[start : start + step, None]
        bits = np.bitwise_count(some ^ known).sum(axis=2, dtype=np.uint16)
        is_alike = bits <= PDQ.match_distance
        query_similar += int(np.count_nonzero(is_alike.any(axis=1)))
        is_known |= is_alike.any(axis=0)
    return query_similar, int(np.count_nonzero(is_known))
