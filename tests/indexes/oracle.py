"""What an index must answer, by comparing everything."""

from collections.abc import Iterable

from countermark.domain.decision import Candidate
from countermark.domain.signal import SignalType


def answer(
    signal_type: SignalType, entries: Iterable[tuple[str, int]], query: str, *, max_distance: int | None = None
) -> list[Candidate]:
    """Return the candidates among entries of value and content id, nearest first, each content once."""
    nearest: dict[int, int | None] = {}
    for value, content_id in entries:
        comparison = signal_type.compare(query, value)
        distance = comparison.distance
        if not comparison.matches or (max_distance is not None and (distance or 0) > max_distance):
            continue
        known = nearest.get(content_id)
        nearest[content_id] = distance if known is None or distance is None else min(known, distance)
    found = [Candidate(content_id=content_id, distance=distance) for content_id, distance in nearest.items()]
    return sorted(found, key=lambda candidate: (candidate.distance or 0, candidate.content_id))
