"""A request and its answer, the same for both doors: Lambda's events (`payload2.py`) and ASGI (`asgi.py`).

Standard library only, as the Lambda authorizer imports it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it arrived.

    `method` is in upper case, `path` has no doubled slashes and no stage, the names of headers are in lower case.
    `body` is None where it could not be decoded. `authorizer` is what API Gateway's authorizer says of the caller.
    `id` is the id that a failure is logged under; None where the door gives none.
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
    """The answer to a request. A body has a Content-Type among the headers."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def first_values(query: str) -> dict[str, str]:
    """Return the parameters of a query string. If one is repeated, the first value counts, as in HMA."""
    first: dict[str, str] = {}
    if query:
        for name, value in parse_qsl(query, keep_blank_values=True):
            first.setdefault(name, value)
    return first
