"""HTTP servers on loopback that answer as they are told, rightly or wrongly."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Answer = Callable[[socket.socket, bytes], None]
"""Takes the connection and the request's head, and answers as it likes."""


def answer(*parts: bytes, status: str = "200 OK", headers: Sequence[str] = (), length: int | None = None) -> Answer:
    """Return an answer of these parts of a body, with their length or the one that is claimed."""

    def send(connection: socket.socket, head: bytes) -> None:
        size = sum(map(len, parts)) if length is None else length
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}", *headers, "Connection: close"]
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        for part in parts:
            connection.sendall(part)

    return send


def redirect(location: str, *, status: str = "302 Found") -> Answer:
    """Return an answer that leads elsewhere."""
    return answer(b"", status=status, headers=[f"Location: {location}"])


class Server:
    """A server that gives the same answer to each request, and remembers what was asked."""

    def __init__(self, listener: socket.socket, send: Answer) -> None:
        self.port: int = listener.getsockname()[1]
        self.heads: list[bytes] = []
        self.stopping = threading.Event()
        self.send = send


@contextmanager
def serving(send: Answer, *, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Serve on a loopback port until the block ends; the answer may be set anew meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(listener, send)
        thread = threading.Thread(target=_accept, args=(listener, server, context), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            # Shutting the listener down ends accept() at once.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)


def _accept(listener: socket.socket, server: Server, context: ssl.SSLContext | None) -> None:
    while not server.stopping.is_set():
        try:
            raw, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(raw, server, context), daemon=True).start()


def _serve(raw: socket.socket, server: Server, context: ssl.SSLContext | None) -> None:
    try:
        with raw if context is None else context.wrap_socket(raw, server_side=True) as connection:
            connection.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head:
                chunk = connection.recv(4096)
                if not chunk:
                    return
                head += chunk
            server.heads.append(head)
            server.send(connection, head)
    except OSError:
        return  # the client hung up, as it may
