"""The API in Lambda: converts API Gateway's events of payload 2.0 to requests, and answers to responses.

Source: API Gateway, "Lambda proxy integrations for HTTP APIs", payload 2.0.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from countermark.api.messages import Answer, Request, first_values
from countermark.api.routes import normal_path, path_of


def request_of(event: Mapping[str, Any], *, request_id: str | None = None) -> Request:
    """Return the request of an event."""
    context = event["requestContext"]
    query = event.get("rawQueryString")
    authorizer = (context.get("authorizer") or {}).get("lambda")
    return Request(
        method=context["http"]["method"].upper(),
        path=normal_path(path_of(event)),
        query=dict(event.get("queryStringParameters") or {}) if query is None else first_values(query),
        headers={name.lower(): value for name, value in (event.get("headers") or {}).items()},
        body=_body(event.get("body") or "", is_base64=bool(event.get("isBase64Encoded"))),
        authorizer=authorizer if isinstance(authorizer, Mapping) else {},
        id=request_id,
    )


def response_of(answer: Answer) -> dict[str, Any]:
    """Return an answer as a response of payload 2.0. A body that is not UTF-8 text is encoded as base64."""
    try:
        body, is_base64 = answer.body.decode("utf-8"), False
    except UnicodeDecodeError:
        body, is_base64 = base64.b64encode(answer.body).decode("ascii"), True
    return {
        "statusCode": answer.status,
        "headers": dict(answer.headers),
        "body": body,
        "isBase64Encoded": is_base64,
        "cookies": [],
    }


def _body(text: str, *, is_base64: bool) -> bytes | None:
    """Return the body as bytes, or None if it is not valid base64 or UTF-8."""
    try:
        return base64.b64decode(text, validate=True) if is_base64 else text.encode("utf-8")
    except (binascii.Error, ValueError):
        return None
