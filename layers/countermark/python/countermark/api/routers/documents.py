"""The OpenAPI document of the API, and a page to read it."""

from countermark.api import wire
from countermark.api.call import Call
from countermark.api.messages import Answer
from countermark.api.routers import Router, answers
from countermark.api.schemas import Object

router = Router("Documents")

_DOCUMENT = answers(Object, "The OpenAPI document.")


@router.get("/openapi.json", summary="Show the OpenAPI document", responses=_DOCUMENT)
def openapi(_call: Call) -> Answer:
    """Return the OpenAPI document of the whole API."""
    return _document()


@router.get("/openapi/openapi.json", summary="Show the OpenAPI document", responses=_DOCUMENT)
def openapi_of_hma(_call: Call) -> Answer:
    """Return the OpenAPI document at the path that HMA uses."""
    return _document()


@router.get(
    "/openapi/swagger",
    summary="Show the OpenAPI document as a page",
    responses={200: {"description": "An HTML page.", "content": {"text/html": {"schema": {"type": "string"}}}}},
)
def swagger(_call: Call) -> Answer:
    """Return a page that shows the document. It loads nothing from other servers."""
    from countermark.api.openapi import swagger_page

    return wire.text_answer(swagger_page(), "text/html; charset=utf-8")


def _document() -> Answer:
    # Import only when needed, because generating the document takes most of a second and imports all routes.
    from countermark.api.openapi import document

    return wire.json_answer(document())
