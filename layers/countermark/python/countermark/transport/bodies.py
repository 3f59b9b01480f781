"""Reads and decompresses the complete body of an HTTP response, or raises an error. Size and time are limited."""

import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import SHUT_RDWR, socket

from urllib3.response import BaseHTTPResponse

CHUNK_BYTES = 64 * 1024
"""The maximum size of one read from a connection."""


class TooLarge(Exception):
    """A body is larger than its limit, either as sent or after decompression."""


class TooSlow(Exception):
    """The deadline passed before the body ended."""


class Unreadable(Exception):
    """A body is incomplete, or its compression is wrong or not supported. The message says which."""


@contextmanager
def shut_down_at(deadline_s: float, connected: socket | None) -> Iterator[None]:
    """Shut a socket down at the deadline, `deadline_s` of the monotonic clock.

    The time-out of the socket is not enough, because a server that sends one byte per second never causes it. Pass the
    socket, not the connection: if a response ends the connection, the connection gives its socket to the response.
    """

    def end() -> None:
        # The client or the server can have closed the connection already.
        with suppress(OSError):
            if connected is not None:
                connected.shutdown(SHUT_RDWR)

    # The timer is 10 ms late, so that the deadline has passed when the reader notices the shutdown.
    timer = threading.Timer(max(0.0, deadline_s - time.monotonic()) + 0.01, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def read_body(response: BaseHTTPResponse, *, max_bytes: int, deadline_s: float) -> bytes:
    """Return the decompressed body of a response. Decompression stops one byte after `max_bytes`.

    `deadline_s` is a time of the monotonic clock.

    Raises:
        TooLarge: The body is larger than `max_bytes`, as sent or after decompression.
        TooSlow: The deadline passed before the body ended.
        Unreadable: The body is incomplete, or its compression is wrong or not supported.
        HTTPError, HTTPException, OSError: The connection failed.
    """
    declared = response.headers.get("Content-Length", "")
    declared_bytes = int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 20 else None
    if declared_bytes is not None and declared_bytes > max_bytes:
        raise TooLarge
    unpacker = _new_unpacker(response)
    sent_bytes = 0
    body = bytearray()
    while chunk := response.read1(CHUNK_BYTES, decode_content=False):
        sent_bytes += len(chunk)
        try:
            # One byte beyond the limit shows that the body is too large.
            body += chunk if unpacker is None else unpacker.decompress(chunk, max_bytes + 1 - len(body))
        except zlib.error as error:
            raise Unreadable("the body could not be decompressed") from error
        if max(sent_bytes, len(body)) > max_bytes:
            raise TooLarge
        if time.monotonic() >= deadline_s:
            raise TooSlow
    # If a connection was shut down at the deadline, its body can seem to have ended normally.
    if time.monotonic() >= deadline_s:
        raise TooSlow
    is_unpacked = unpacker is None or not sent_bytes or (unpacker.eof and not unpacker.unused_data)
    if not is_unpacked or (declared_bytes is not None and sent_bytes != declared_bytes):
        raise Unreadable("the body was cut off")
    return bytes(body)


def _new_unpacker(response: BaseHTTPResponse) -> "zlib._Decompress | None":
    """Return a decompressor for the body; None if it is not compressed.

    Raises:
        Unreadable: The body has an encoding that the request did not offer.
    """
    match response.headers.get("Content-Encoding", "").strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            # Adding 32 makes zlib accept both gzip and zlib headers.
            return zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
        case _:
            raise Unreadable("the server used an encoding that was not requested")
