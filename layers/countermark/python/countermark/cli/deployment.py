"""A deployment's HTTP API, for the commands that otherwise ask the state of this machine.

What a command prints is the same. The deployment hashes, by the signal types that it has. What it could not look at it
names in the headers of `countermark.domain.coverage`, which a deployment of version 0.1 does not send.
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
"""The variable of the environment that holds the API key: a flag would show it to every process of this machine."""

MAX_SENT_BYTES = 64 * 1024 * 1024
"""The largest content that is sent; a deployment on AWS takes some 4.5 MB, and says so itself."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""The largest answer: tens of thousands of matches with all that is known of each."""

_LONGEST_MESSAGE = 300

_REASONS = {
    "low_quality": "of too low a quality",
    "empty": "nothing is left of it to hash",
    "damaged": "the deployment cannot read it",
    "unsupported": "the deployment does not read its format",
    "too_large": "it exceeds a limit of the deployment",
    "missing_extra": "the deployment lacks a package for it",
}
"""What the codes of a deployment say in words: its headers give no more."""

option = click.option(
    "--deployment",
    metavar="URL",
    help=f"Ask the HTTP API at this URL instead of the state of this machine; its key is in {KEY_VARIABLE}.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment at a base URL: on AWS, or a `countermark serve`."""

    session: Session
    url: str
    key: str = field(repr=False)
    transport: Transport

    @classmethod
    def at(cls, url: str, session: Session) -> "Deployment":
        """Return the deployment at a URL, asked with the key of the environment, if any."""
        return cls(
            session=session, url=url.rstrip("/"), key=os.environ.get(KEY_VARIABLE, ""), transport=session.transport()
        )

    def hash_items(self, items: Iterable[InputItem], content_type: ContentType, *, only: str | None) -> Iterator[Piece]:
        """Yield each piece of content with its signals; complain at the end of what could not be hashed.

        Raises:
            InvalidContent: The deployment refuses some content, or could not look at it: after all were yielded.
            Forbidden: It asks for another key.
            Unavailable: It cannot be reached, or its answer makes no sense.
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
        """Yield each piece of content with its matches; complains and raises as `hashed`."""
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
        """Return the matches of at most `content.BATCH` signals of one type, in their order; raises as `hashed`."""
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
        """Yield each piece of content with the answer to it, and what of it was seen; complain at the end."""
        query_string = urlencode({name: value for name, value in query.items() if value is not None})
        complaints = Complaints()
        for each in items:
            try:
                body, headers = _form_body(each, content_type)
            except CountermarkError as error:
                complaints.add(Complaint.of(each.name, error))
                continue
            try:
                answer, answered = self._post(f"{path}?{query_string}" if query_string else path, body, headers)
            except InvalidContent as error:
                complaints.add(Complaint.of(each.name, error))
                continue
            if not isinstance(answer, dict):
                raise Unavailable("the deployment answered what makes no sense")
            gaps = _read_gaps(answered)
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
        """Return the JSON of the answer, and its headers."""
        answer = self.transport.send(
            Request(
                method="POST",
                url=f"{self.url}{path}",
                headers=headers,
                body=body,
                secret_headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
                is_repeatable=True,  # nothing is changed by asking
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
            raise Unavailable("the deployment answered what is no JSON: is this the URL of its API?")
        return parsed, answer.headers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gaps:
    """What the headers of an answer say of the content, by signal type."""

    unhashable: Mapping[str, Unhashable]
    partial: Mapping[str, str]


def _read_gaps(headers: Mapping[str, str]) -> _Gaps:
    pairs, partial = coverage.read(headers)
    # A type may have several reasons, for parts of the content: the one that must be reported counts.
    found = {name: _unhashable(code) for name, code in pairs}
    found |= {name: why for name, code in pairs if not (why := _unhashable(code)).was_examined}
    return _Gaps(unhashable=found, partial=dict.fromkeys(map(output.one_line, partial), "the deployment saw no more"))


def _unhashable(code: str) -> Unhashable:
    """Return a reason for a code of a deployment, which may be newer and have others."""
    short = output.one_line(code)[:_LONGEST_MESSAGE]
    return Unhashable(code=cast(UnhashableCode, short), reason=_REASONS.get(short, short))


def _refusal_error(answer: Response, parsed: JSON) -> InvalidInput | Forbidden:
    """Return what a refusal comes to: what is said of the content, of the key, or of the request."""
    message = parsed.get("message") if isinstance(parsed, dict) else None
    text = output.one_line(str(message))[:_LONGEST_MESSAGE] if message else f"status {answer.status}"
    match answer.status:
        case 400:
            return InvalidContent(text)
        case 413:
            return ContentTooLarge(text)
        case 401 | 403:
            return Forbidden(f"the deployment refuses: {text}; its key is read from {KEY_VARIABLE}")
        case _:
            return InvalidInput(f"the deployment refuses: {text}")


def _form_body(item: InputItem, content_type: ContentType) -> tuple[bytes, Mapping[str, str]]:
    """Return content as a form with one file, and the headers of it.

    Raises:
        ContentTooLarge: It is larger than what is sent.
    """
    with item.open() as stream:
        content = stream.read(MAX_SENT_BYTES + 1)
    if len(content) > MAX_SENT_BYTES:
        raise ContentTooLarge(f"at most {MAX_SENT_BYTES} bytes are sent: put it into the deployment's upload bucket")
    # Of the name, what may tell what it is: the rest is the user's own.
    suffix = PurePosixPath(item.name).suffix
    filename = f"content{suffix}" if suffix[1:].isascii() and suffix[1:].isalnum() else "content"
    boundary = uuid.uuid4().hex
    disposition = f'Content-Disposition: form-data; name="{content_type}"; filename="{filename}"'
    body = f"--{boundary}\r\n{disposition}\r\n\r\n".encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def _parse_matches(signal_type: str, by_bank: Mapping[str, Any]) -> Iterator[FoundMatch]:
    """Yield the matches of an answer by bank.

    Raises:
        InvalidInput: It is none, but says what is wrong with a signal.
        Unavailable: It makes no sense.
    """
    try:
        if "message" in by_bank:  # no bank has a name in lower case
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
        raise Unavailable("the deployment answered what makes no sense") from error
