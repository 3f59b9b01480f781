"""The routes: a module for each subject, imported when its group is served."""

from typing import Any

from aws_lambda_powertools.event_handler.api_gateway import Router


def new_router() -> Router:
    """Return a router without routes."""
    return Router()  # type: ignore[no-untyped-call]  # Powertools leaves its constructor untyped


def answers(model: Any, description: str, *, status: int = 200) -> dict[int, Any]:
    """Return how the document describes what a route answers when all goes well."""
    return {status: {"description": description, "content": {"application/json": {"model": model}}}}
