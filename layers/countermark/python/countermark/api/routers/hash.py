"""Content in, signals out."""

from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Request, Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from countermark.api import content, wire
from countermark.api.call import call_of
from countermark.api.routers import COVERAGE, answers, new_router
from countermark.api.schemas import ByType
from countermark.flows.hash import HashReport

router = new_router()

_SIGNALS = answers(
    ByType | dict[str, list[str]],
    'The signals by type; "" where the content is of too low a quality for one. Lists, where content of its type may '
    "hold other content: of what it is, and of what lies within.",
    headers=COVERAGE,
)

Url = Annotated[str, Query(description="Where the content is: http, https, or s3 in a named bucket.")]
ContentTypeName = Annotated[
    str | None,
    Query(
        description="photo, video, text, url, file, or one of an extension: see /c/content_type. Without it, what the "
        "server of the URL says."
    ),
]
Types = Annotated[str | None, Query(description="The signal types that are wanted, separated by commas.")]


@router.get("/h/hash", tags=["Hash"], summary="Hash the content at a URL", responses=_SIGNALS)
def hash_by_url(request: Request, url: Url, content_type: ContentTypeName = None, types: Types = None) -> Response[Any]:
    """Answer the signals of the content at a URL."""
    return _answer(content.hash_url(call_of(request), url, content_type=content_type, types=types))


@router.post("/h/hash", tags=["Hash"], summary="Hash an upload", responses=_SIGNALS)
def hash_upload(request: Request, types: Types = None) -> Response[Any]:
    """Answer the signals of the one file of a form."""
    call = call_of(request)
    return _answer(content.hash_upload(call, call.parts(), types=types))


def _answer(report: HashReport) -> Response[Any]:
    return wire.json_answer(content.hashed_by_type(report), headers=content.coverage_headers(report))
