"""Content in, signals out."""

from typing import Annotated

from countermark.api import content, wire
from countermark.api.binding import Query
from countermark.api.call import Call
from countermark.api.messages import Answer
from countermark.api.routers import COVERAGE, Router, answers
from countermark.api.schemas import ByType
from countermark.flows.hash import HashReport

router = Router("Hash")

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


@router.get("/h/hash", summary="Hash the content at a URL", responses=_SIGNALS)
def hash_by_url(call: Call, url: Url, content_type: ContentTypeName = None, types: Types = None) -> Answer:
    """Answer the signals of the content at a URL."""
    return _answer(content.hash_url(call, url, content_type=content_type, types=types))


@router.post("/h/hash", summary="Hash an upload", responses=_SIGNALS)
def hash_upload(call: Call, types: Types = None) -> Answer:
    """Answer the signals of the one file of a form."""
    return _answer(content.hash_upload(call, call.parts(), types=types))


def _answer(report: HashReport) -> Answer:
    return wire.json_answer(content.hashed_by_type(report), headers=content.coverage_headers(report))
