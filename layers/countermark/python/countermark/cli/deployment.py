"""Hashing and matching over the HTTP API of a deployment, instead of with the local state.

The commands print the same output for both. The deployment hashes content with its own signal types. If it could
not examine some content, it reports that in response headers, which `countermark.domain.coverage` defines. A
deployment of version 0.1 does not send these headers.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, cast
from urllib.parse import urlencode

import click

from countermark.cli import output
from countermark.cli.content import Complaint, Complaints, InputItem, Piece, note_partial
from countermark.cli.match_output import FoundMatch
from countermark.cli.session import Session
from countermark.domain import coverage
from countermark.domain.json import JSON
from countermark.domain.opinion import Category
from countermark.domain.signal import ContentType, Signal, Unhashable, UnhashableCode
from countermark.domain.transport import Request, Response, Transport
from countermark.errors import ContentTooLarge, CountermarkError, Forbidden, InvalidContent, InvalidInput, Unavailable

KEY_VARIABLE = "COUNTERMARK_API_KEY"
"""The environment variable with the API key. A flag would show the key to all processes of this machine."""

MAX_SENT_BYTES = 64 * 1024 * 1024
"""The largest content that is sent. A deployment on AWS accepts about 4.5 MB, and refuses more with a message."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""The largest answer that is accepted: tens of thousands of matches with their details."""

_LONGEST_MESSAGE = 300

_REASONS = {
    "low_quality": "its quality is too low",
    "empty": "it contains nothing to hash",
    "damaged": "the deployment cannot read it",
    "unsupported": "the deployment does not read its format",
    "too_large": "it exceeds a limit of the deployment",
    "missing_extra": "the deployment lacks a package for it",
}
"""The text to print for each code. A deployment's headers only contain the codes."""

option = click.option(
    "--deployment",
    metavar="URL",
    help=f"Use the HTTP API at this URL instead of the local state, with the API key in {KEY_VARIABLE}.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The HTTP API at a base URL: a deployment on AWS, or a `countermark serve`."""

    session: Session
    url: str
    key: str = field(repr=False)
    transport: Transport

    @classmethod
    def at(cls, url: str, session: Session) -> "Deployment":
        """Return the deployment at a URL, with the API key from the environment, if any."""
        return cls(
            session=session, url=url.rstrip("/"), key=os.environ.get(KEY_VARIABLE, ""), transport=session.transport()
        )

    def hash_items(self, items: Iterable[InputItem], content_type: ContentType, *, only: str | None) -> Iterator[Piece]:
        """Yield each content with its signals. Raise the errors of single contents together after the last content.

        Raises:
            InvalidContent: The deployment refused a content or could not examine it. Raised at the end.
            Forbidden: The deployment does not accept the API key.
            Unavailable: The deployment cannot be reached, or its answer is malformed.
        """
        for each, answer, gaps in self._post_items(items, "/h/hash", content_type, types=only):
            signals: list[Signal] = []
            unhashable = dict(gaps.unhashable)
            for name, returned in answer.items():
                values = returned if isinstance(returned, list) else [returned]
                signals += (Signal(type=name, value=value) for value in values if value)
                if not all(values) and name not in unhashable:
                    unhashable[name] = _unhashable("low_quality")
                    self.session.note(f"{each.name}: no {name} signal: {unhashable[name].reason}")
            partial = {signal: gaps.partial[signal.type] for signal in signals if signal.type in gaps.partial}
            yield Piece(item=each, signals=tuple(signals), partial=partial, unhashable=unhashable)

    def match_items(
        self,
        items: Iterable[InputItem],
        content_type: ContentType,
        *,
        only: str | None,
        with_rotations: bool,
        content_id: str | None,
    ) -> Iterator[tuple[InputItem, list[FoundMatch]]]:
        """Yield each content with its matches. Raises the same errors as `hash_items`."""
        answers = self._post_items(
            items,
            "/m/lookup",
            content_type,
            types=only,
            rotations="true" if with_rotations else None,
            content_id=content_id,
            include="detail",
        )
        for each, answer, _ in answers:
            yield each, [found for name, by_bank in answer.items() for found in _parse_matches(name, by_bank)]

    def match_signals(self, signals: Sequence[Signal], *, content_id: str | None) -> list[FoundMatch]:
        """Return the matches of at most `content.BATCH` signals of one type, in order. Raises as `hash_items` does."""
        name = signals[0].type
        body = {
            "signal_type": name,
            "signals": [signal.value for signal in signals],
            "include": "detail",
            "content_id": content_id,
        }
        answer, _ = self._post("/m/lookup/batch", json.dumps(body).encode(), {"Content-Type": "application/json"})
        return [found for by_bank in answer for found in _parse_matches(name, by_bank)]

    def _post_items(
        self, items: Iterable[InputItem], path: str, content_type: ContentType, **query: str | None
    ) -> Iterator[tuple[InputItem, Mapping[str, Any], "_Gaps"]]:
        """Send each content, and yield it with the answer and the gaps. Raise errors of single contents at the end."""
        query_string = urlencode({name: value for name, value in query.items() if value is not None})
        complaints = Complaints()
        for each in items:
            try:
                body, headers = _form_body(each, content_type)
            except CountermarkError as error:
                complaints.add(Complaint.of(each.name, error))
                continue
            try:
                answer, answer_headers = self._post(f"{path}?{query_string}" if query_string else path, body, headers)
            except InvalidContent as error:
                complaints.add(Complaint.of(each.name, error))
                continue
            if not isinstance(answer, dict):
                raise Unavailable("the deployment's answer is malformed: check that this is the URL of its API")
            gaps = _read_gaps(answer_headers)
            for name, why in gaps.unhashable.items():
                text = f"no {name} signal: {why.reason}"
                if why.was_examined:
                    self.session.note(f"{each.name}: {text}")
                else:
                    complaints.add(Complaint.of(each.name, InvalidContent(text)))
            note_partial(self.session, each, gaps.partial)
            yield each, answer, gaps
        complaints.raise_all()

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[Any, Mapping[str, str]]:
        """Send a POST request, and return the JSON of the answer and its headers."""
        answer = self.transport.send(
            Request(
                method="POST",
                url=f"{self.url}{path}",
                headers=headers,
                body=body,
                secret_headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
                is_repeatable=True,  # the request changes nothing in the deployment
            ),
            max_bytes=MAX_ANSWER_BYTES,
        )
        try:
            parsed = json.loads(answer.body)
        except ValueError:
            parsed = None
        if answer.status != 200:
            raise _refusal_error(answer, parsed)
        if parsed is None:
            raise Unavailable("the deployment's answer is not JSON: check that this is the URL of its API")
        return parsed, answer.headers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gaps:
    """The signal types for which a deployment hashed a content only in part or not at all, each with the reason."""

    unhashable: Mapping[str, Unhashable]
    partial: Mapping[str, str]


def _read_gaps(headers: Mapping[str, str]) -> _Gaps:
    pairs, partial = coverage.read(headers)
    # A type can have several reasons, one per part of the content. A reason that must be reported as an error wins.
    found = {name: _unhashable(code) for name, code in pairs}
    found |= {name: why for name, code in pairs if not (why := _unhashable(code)).was_examined}
    return _Gaps(
        unhashable=found, partial=dict.fromkeys(map(output.one_line, partial), "the deployment read only a part of it")
    )


def _unhashable(code: str) -> Unhashable:
    """Return the reason for a deployment's code. An unknown code, from a newer deployment, is used as the text."""
    short = output.one_line(code)[:_LONGEST_MESSAGE]
    return Unhashable(code=cast(UnhashableCode, short), reason=_REASONS.get(short, short))


def _refusal_error(answer: Response, parsed: JSON) -> InvalidInput | Forbidden:
    """Return the error for a refusal: about the content, the API key, or the request."""
    message = parsed.get("message") if isinstance(parsed, dict) else None
    text = output.one_line(str(message))[:_LONGEST_MESSAGE] if message else f"status {answer.status}"
    match answer.status:
        case 400:
            return InvalidContent(text)
        case 413:
            return ContentTooLarge(text)
        case 401 | 403:
            return Forbidden(f"the deployment refused the request: {text}; check the API key in {KEY_VARIABLE}")
        case _:
            return InvalidInput(f"the deployment refused the request: {text}")


def _form_body(item: InputItem, content_type: ContentType) -> tuple[bytes, Mapping[str, str]]:
    """Return content as a form with one file, and the form's headers.

    Raises:
        ContentTooLarge: The content has more than `MAX_SENT_BYTES`.
    """
    with item.open() as stream:
        content = stream.read(MAX_SENT_BYTES + 1)
    if len(content) > MAX_SENT_BYTES:
        raise ContentTooLarge(
            f"at most {MAX_SENT_BYTES} bytes can be sent: use the deployment's upload bucket for larger content"
        )
    # Send only the suffix of the name, which can show the content type. The rest of the name is private.
    suffix = PurePosixPath(item.name).suffix
    filename = f"content{suffix}" if suffix[1:].isascii() and suffix[1:].isalnum() else "content"
    boundary = uuid.uuid4().hex
    disposition = f'Content-Disposition: form-data; name="{content_type}"; filename="{filename}"'
    body = f"--{boundary}\r\n{disposition}\r\n\r\n".encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def _parse_matches(signal_type: str, by_bank: Mapping[str, Any]) -> Iterator[FoundMatch]:
    """Yield the matches in an answer. The answer lists them by bank.

    Raises:
        InvalidInput: The answer is an error message about an invalid signal.
        Unavailable: The answer is malformed.
    """
    try:
        if "message" in by_bank:  # not a bank: names of banks are in upper case
            raise InvalidInput(str(by_bank["message"])[:_LONGEST_MESSAGE])
        for bank, matches in by_bank.items():
            for match in matches:
                detail = match["detail"]
                default: dict[str, Any] = {"collaboration": bank, "category": "POSITIVE_CLASS", "tags": []}
                source = next(iter(detail["sources"]), default)
                yield FoundMatch(
                    signal_type=signal_type,
                    source=source["collaboration"],
                    category=Category[source["category"]],
                    tags=source["tags"],
                    distance=detail["distance"],
                    shown_distance=match["distance"],
                    detail=detail,
                    rotation=match.get("rotation"),
                )
    except (KeyError, TypeError, AttributeError) as error:
        raise Unavailable("the deployment's answer is malformed: check that this is the URL of its API") from error
