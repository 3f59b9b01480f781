"""The API's own description, and a page to read it on."""

from typing import Any

from aws_lambda_powertools.event_handler import Response

from countermark.api import wire
from countermark.api.routers import answers, new_router
from countermark.api.schemas import Object

router = new_router()

_DOCUMENT = answers(Object, "The OpenAPI document.")


@router.get("/openapi.json", tags=["Documents"], summary="The OpenAPI document", responses=_DOCUMENT)
def openapi() -> Response[Any]:
    """Answer the OpenAPI document of the whole API."""
    return _document()


@router.get("/openapi/openapi.json", tags=["Documents"], summary="The OpenAPI document", responses=_DOCUMENT)
def openapi_of_hma() -> Response[Any]:
    """Answer the OpenAPI document where HMA has it."""
    return _document()


@router.get(
    "/openapi/swagger",
    tags=["Documents"],
    summary="The document as a page",
    responses={200: {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}}},
)
def swagger() -> Response[Any]:
    """Answer a page that shows the document; it loads nothing from elsewhere."""
    from countermark.api.openapi import swagger_page

    return Response(status_code=200, content_type="text/html; charset=utf-8", body=swagger_page())


def _document() -> Response[Any]:
    # Making the document takes most of a second, and the modules of all routes.
    from countermark.api.openapi import document

    return wire.json_answer(document())
