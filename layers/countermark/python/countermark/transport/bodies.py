"""The body of an answer: whole, unpacked, and within limits of size and time; or not at all."""

import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import SHUT_RDWR, socket

from urllib3.response import BaseHTTPResponse

CHUNK_BYTES = 64 * 1024
"""How much is read from a connection at a time."""


class TooLarge(Exception):
    """A body is longer than its limit, as sent or unpacked."""


class TooSlow(Exception):
    """The deadline came before the end of a body."""


class Unreadable(Exception):
    """A body is not whole, or not packed as it says; the text says which."""


@contextmanager
def ended_at(deadline_s: float, connected: socket | None) -> Iterator[None]:
    """Shut a socket down at the deadline: a server that sends a byte a second never times out by itself.

    It is the socket and not the connection, which hands it over to an answer that it ends with.
    """

    def end() -> None:
        # It may be closed by now, and so may the other side.
        with suppress(OSError):
            if connected is not None:
                connected.shutdown(SHUT_RDWR)

    # A moment late, so that the clock is past the deadline when the shutdown is noticed.
    timer = threading.Timer(max(0.0, deadline_s - time.monotonic()) + 0.01, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def read_body(answer: BaseHTTPResponse, *, max_bytes: int, deadline_s: float) -> bytes:
    """Read the body of an answer, never unpacking more than a byte beyond the limit.

    `deadline_s` is of the monotonic clock.

    Raises:
        TooLarge, TooSlow, Unreadable: As their names say.
        HTTPError, HTTPException, OSError: The connection failed.
    """
    declared = answer.headers.get("Content-Length", "")
    declared_bytes = int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 20 else None
    if declared_bytes is not None and declared_bytes > max_bytes:
        raise TooLarge
    unpacker = _unpacker(answer)
    sent_bytes = 0
    body = bytearray()
    while chunk := answer.read1(CHUNK_BYTES, decode_content=False):
        sent_bytes += len(chunk)
        try:
            # One byte more than there is room for shows that there is more.
            body += chunk if unpacker is None else unpacker.decompress(chunk, max_bytes + 1 - len(body))
        except zlib.error as error:
            raise Unreadable("the body could not be unpacked") from error
        if max(sent_bytes, len(body)) > max_bytes:
            raise TooLarge
        if time.monotonic() >= deadline_s:
            raise TooSlow
    # A connection that was shut down at the deadline may look like one that came to its end.
    if time.monotonic() >= deadline_s:
        raise TooSlow
    is_unpacked = unpacker is None or not sent_bytes or (unpacker.eof and not unpacker.unused_data)
    if not is_unpacked or (declared_bytes is not None and sent_bytes != declared_bytes):
        raise Unreadable("the body was cut off")
    return bytes(body)


def _unpacker(answer: BaseHTTPResponse) -> "zlib._Decompress | None":
    """Return what unpacks a body; None where it is not packed.

    Raises:
        Unreadable: It is packed in a way that was not asked for.
    """
    match answer.headers.get("Content-Encoding", "").strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            # 32 takes the headers of gzip and of zlib alike.
            return zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
        case _:
            raise Unreadable("the server used an encoding that was not asked for")
