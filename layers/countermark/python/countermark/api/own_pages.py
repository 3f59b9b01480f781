"""A guard for servers that ask for no key: pages of other sites, open in the same browser, are not callers.

A browser lets any page send requests to this machine. What gives such a page away is its `Origin`, or, where
a name of its own was made to resolve to this machine (DNS rebinding), the `Host` that it asks for.
"""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from countermark.api.asgi import Receive, Scope, Send

REFUSAL = b'{"message":"this server asks for no key, and so answers no page of another site"}\n'


class OwnPages:
    """Passes on what no other site's page sent; refuses the rest with 403.

    `loopback_only` says that the server listens on loopback, where only loopback's own names are asked for.
    """

    def __init__(self, app: Any, *, loopback_only: bool) -> None:
        self._app = app
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "http" and not self._is_own(dict(scope["headers"])):
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(REFUSAL)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})
            return
        await self._app(scope, receive, send)

    def _is_own(self, headers: dict[bytes, bytes]) -> bool:
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
