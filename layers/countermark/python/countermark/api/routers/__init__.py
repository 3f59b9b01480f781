"""The routes: a module for each subject, imported when its group is served."""

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.event_handler.api_gateway import Router

from countermark.domain import coverage


def new_router() -> Router:
    """Return a router without routes."""
    return Router()  # type: ignore[no-untyped-call]  # Powertools leaves its constructor untyped


COVERAGE = {
    coverage.UNHASHABLE: {
        "description": "Signal types that gave no signal, each with its reason: `pdq=damaged,vpdq=missing-extra`. The "
        "reasons are low-quality, empty, damaged, unsupported, too-large and missing-extra. Only where there are any.",
        "schema": {"type": "string", "examples": ["pdq=low-quality"]},
    },
    coverage.PARTIAL: {
        "description": "Signal types that saw only a part of the content: `pdq`. Only where there are any.",
        "schema": {"type": "string", "examples": ["pdq"]},
    },
}
"""The headers that say how much of content was looked at."""


def answers(
    model: Any, description: str, *, status: int = 200, headers: Mapping[str, Any] | None = None
) -> dict[int, Any]:
    """Return how the document describes what a route answers when all goes well."""
    described: dict[str, Any] = {"description": description, "content": {"application/json": {"model": model}}}
    return {status: described if headers is None else {**described, "headers": headers}}
