"""A request and its answer. Lambda's events (`payload2.py`) and ASGI (`asgi.py`) use the same classes.

This module only imports the standard library, because the Lambda authorizer imports it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request, in the form that the application uses.

    `method` is in upper case. `path` has no repeated slashes and no stage. The names of `headers` are in lower case.
    `body` is None if it could not be decoded. `authorizer` is the context from API Gateway's authorizer. `id`
    identifies the request in logs of failures. It is None if the server does not assign ids.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = b""
    authorizer: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a request. If it has a body, the headers include its Content-Type."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def first_values(query: str) -> dict[str, str]:
    """Return the parameters of a query string. The first value of a repeated parameter is used, as in HMA."""
    first: dict[str, str] = {}
    if query:
        for name, value in parse_qsl(query, keep_blank_values=True):
            first.setdefault(name, value)
    return first
