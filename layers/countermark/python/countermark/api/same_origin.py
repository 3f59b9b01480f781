"""A guard against cross-site requests, for servers that require no key.

A browser lets the pages of any site send requests to this machine. The `Origin` header shows from which site a page
comes. A site can also make its own host name resolve to this machine (DNS rebinding). The `Host` header then has that
host name.
"""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from countermark.api.asgi import Receive, Scope, Send

REFUSAL = b'{"message":"this server asks for no key, and so answers no page of another site"}\n'


class SameOriginGuard:
    """Passes on requests that do not come from pages of other sites, and answers all others with 403.

    With `loopback_only`, for a server that listens on loopback, the `Host` must be `localhost` or a loopback address.
    """

    def __init__(self, app: Any, *, loopback_only: bool) -> None:
        self._app = app
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "http" and not self._is_same_origin(dict(scope["headers"])):
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(REFUSAL)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})
            return
        await self._app(scope, receive, send)

    def _is_same_origin(self, headers: dict[bytes, bytes]) -> bool:
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1") not in {f"http://{host}", f"https://{host}"}:
            return False
        return not self._loopback_only or _is_loopback_name(host)


def _is_loopback_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
