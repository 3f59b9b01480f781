"""Sending in batches to services that may refuse part of one: EventBridge and SQS."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from countermark.aws.retry import attempts
from countermark.errors import InvalidInput

Entry = TypeVar("Entry")


def batched(
    entries: Sequence[Entry], *, max_entries: int, max_bytes: int, size_bytes: Callable[[Entry], int]
) -> Iterator[list[Entry]]:
    """Yield the entries, in order, in as few batches as the limits allow.

    Raises:
        InvalidInput: One entry alone is too large; nothing was yielded yet.
    """
    sizes = [size_bytes(entry) for entry in entries]
    if max(sizes, default=0) > max_bytes:
        raise InvalidInput(f"a message has at most {max_bytes} bytes, not {max(sizes)}")
    batch: list[Entry] = []
    room_bytes = max_bytes
    for entry, size in zip(entries, sizes, strict=True):
        if len(batch) == max_entries or size > room_bytes:
            yield batch
            batch, room_bytes = [], max_bytes
        batch.append(entry)
        room_bytes -= size
    if batch:
        yield batch


def send_all(what: str, batch: list[Entry], send: Callable[[list[Entry]], list[int]]) -> None:
    """Send a batch; `send` returns the positions that were refused, and these are sent again.

    Raises:
        Unavailable: Some were refused to the end.
    """
    for _ in attempts(what):
        refused = send(batch)
        if not refused:
            return
        batch = [batch[position] for position in refused]
