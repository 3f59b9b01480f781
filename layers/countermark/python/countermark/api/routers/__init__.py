"""The routes. Each module has the routes of one subject. A module is imported when its group is served."""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from countermark.api.binding import Binding, binding_of
from countermark.api.messages import Answer
from countermark.api.routes import Route, methods_of
from countermark.domain import coverage

MODULES: Mapping[str, tuple[str, ...]] = {
    "status": ("status", "documents"),
    "hash": ("hash",),
    "match": ("match",),
    "curate": ("banks", "contents", "exchanges", "types"),
}
"""The modules of this package by group. A module is imported when its group is first served."""

Function: TypeAlias = Callable[..., Answer]
"""A function that answers a request.

Its first argument is the call. The names in the path, the query and the body are keyword arguments.
"""

AnyFunction = TypeVar("AnyFunction", bound=Function)

Responses: TypeAlias = Mapping[int, Mapping[str, Any]]
"""The answers of a route by status, in the form of OpenAPI. In the document, each `model` is replaced by its schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A route, the function that answers it, and its description in the OpenAPI document."""

    route: Route
    function: Function
    binding: Binding
    tag: str
    summary: str
    responses: Responses


class Router:
    """The endpoints of one subject. A decorator above each function declares them."""

    def __init__(self, tag: str) -> None:
        self.endpoints: list[Endpoint] = []
        self._tag = tag

    def get(self, path: str, *, summary: str, responses: Responses) -> Callable[[AnyFunction], AnyFunction]:
        """Declare the function that answers GET and HEAD."""
        return self._declare("GET", path, summary, responses)

    def post(self, path: str, *, summary: str, responses: Responses) -> Callable[[AnyFunction], AnyFunction]:
        """Declare the function that answers POST."""
        return self._declare("POST", path, summary, responses)

    def put(self, path: str, *, summary: str, responses: Responses) -> Callable[[AnyFunction], AnyFunction]:
        """Declare the function that answers PUT."""
        return self._declare("PUT", path, summary, responses)

    def delete(self, path: str, *, summary: str, responses: Responses) -> Callable[[AnyFunction], AnyFunction]:
        """Declare the function that answers DELETE."""
        return self._declare("DELETE", path, summary, responses)

    def _declare(
        self, method: str, path: str, summary: str, responses: Responses
    ) -> Callable[[AnyFunction], AnyFunction]:
        route = methods_of(path)[method]

        def declare(function: AnyFunction) -> AnyFunction:
            self.endpoints.append(
                Endpoint(
                    route=route,
                    function=function,
                    binding=binding_of(function, re.findall(r"<(\w+)>", path)),
                    tag=self._tag,
                    summary=summary,
                    responses=responses,
                )
            )
            return function

        return declare


def endpoints_of(groups: frozenset[str]) -> Sequence[Endpoint]:
    """Import the modules of groups of routes, and return their endpoints."""
    modules = (f"{__name__}.{name}" for group in sorted(groups) for name in MODULES[group])
    return [endpoint for module in modules for endpoint in importlib.import_module(module).router.endpoints]


COVERAGE = {
    coverage.UNHASHABLE: {
        "description": "Signal types without a signal, each with its reason: `pdq=damaged,vpdq=missing-extra`. The "
        "reasons are low-quality, empty, damaged, unsupported, too-large and missing-extra. Left out if empty.",
        "schema": {"type": "string", "examples": ["pdq=low-quality"]},
    },
    coverage.PARTIAL: {
        "description": "Signal types that hashed only a part of the content: `pdq`. Left out if empty.",
        "schema": {"type": "string", "examples": ["pdq"]},
    },
}
"""The headers that report how much of the content was examined."""


def answers(
    model: Any, description: str, *, status: int = 200, headers: Mapping[str, Any] | None = None
) -> dict[int, Any]:
    """Return the description of a route's answer on success, for the OpenAPI document."""
    described: dict[str, Any] = {"description": description, "content": {"application/json": {"model": model}}}
    return {status: described if headers is None else {**described, "headers": headers}}
