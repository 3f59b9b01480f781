"""Routes that hash content."""

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
    'The signals by type; "" if the quality of the content is too low. If content of this type can hold other content, '
    "each type has a list: the signals of the content itself and of all its parts.",
    headers=COVERAGE,
)

Url = Annotated[str, Query(description="The URL of the content: http, https, or s3 in an allowed bucket.")]
ContentTypeName = Annotated[
    str | None,
    Query(
        description="photo, video, text, url, file, or an extension's type, as listed by /c/content_type. By default, "
        "the Content-Type that the URL's server sends determines it."
    ),
]
Types = Annotated[
    str | None, Query(description="The signal types to use, separated by commas; by default all that are enabled.")
]


@router.get("/h/hash", summary="Hash the content at a URL", responses=_SIGNALS)
def hash_by_url(call: Call, url: Url, content_type: ContentTypeName = None, types: Types = None) -> Answer:
    """Return the signals of the content at a URL."""
    return _answer(content.hash_url(call, url, content_type=content_type, types=types))


@router.post("/h/hash", summary="Hash an upload", responses=_SIGNALS)
def hash_upload(call: Call, types: Types = None) -> Answer:
    """Return the signals of the only file of a form."""
    return _answer(content.hash_upload(call, call.parts(), types=types))


def _answer(report: HashReport) -> Answer:
    return wire.json_answer(content.hashed_by_type(report), headers=content.coverage_headers(report))
