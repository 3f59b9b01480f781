"""Batches for services that can refuse some entries of a batch, such as EventBridge and SQS."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from countermark.aws.retry import attempts
from countermark.errors import InvalidInput

Entry = TypeVar("Entry")


def in_batches(
    entries: Sequence[Entry], *, max_entries: int, max_bytes: int, size_bytes: Callable[[Entry], int]
) -> Iterator[list[Entry]]:
    """Yield the entries, in order, in as few batches as the limits allow.

    Raises:
        InvalidInput: An entry is larger than `max_bytes`. This is raised before the first batch is yielded.
    """
    sizes = [size_bytes(entry) for entry in entries]
    if max(sizes, default=0) > max_bytes:
        raise InvalidInput(f"a message can have at most {max_bytes} bytes, not {max(sizes)}")
    batch: list[Entry] = []
    free_bytes = max_bytes
    for entry, size in zip(entries, sizes, strict=True):
        if len(batch) == max_entries or size > free_bytes:
            yield batch
            batch, free_bytes = [], max_bytes
        batch.append(entry)
        free_bytes -= size
    if batch:
        yield batch


def send_all(action: str, batch: list[Entry], send: Callable[[list[Entry]], list[int]]) -> None:
    """Send a batch with `send`, and send refused entries again.

    `send` accepts a list of entries and returns the positions of the refused entries in this list.

    Raises:
        Unavailable: Some entries were still refused at the last attempt. The message begins with `action`.
    """
    for _ in attempts(action):
        refused = send(batch)
        if not refused:
            return
        batch = [batch[position] for position in refused]
