"""StopNCII.org: hashes of intimate images, created by the people in them, so that platforms can block the images.

Operator: SWGfL, a British charity, for platforms that it admits. Documentation: members receive it with their keys.
This module follows the client of python-threatexchange 1.2.16, and the pages that were recorded for the tests of that
client. Credentials: an Azure function key and a subscription key, and another base URL if the operator requires it.

`FetchHashes` returns the records that changed since a timestamp. These records form a *set*. The pages of a set have up
to 800 records. Each page contains the token of the next page, and the timestamp at which the next set begins. A record
contains everything that is known about a hash: the cases of the people who submitted it, and the platforms' feedback.
The timestamp is valid only if the complete set was read. In the middle of a set, a fetch resumes with the token. If the
token is too old, the fetch resumes at the beginning of the set.

The JSON of a page can be damaged. In September 2026, one page was damaged for 40 hours, although its status was 200. A
damaged page is requested again, and then its records are requested in smaller pages, so that the records around the
damage arrive unchanged. If even the smallest page is damaged, its readable records are used. The other records are
counted as unreadable, and the fetch reports their number. A page that does not contain the position of the next page,
such as an error page, ends the fetch. The next fetch requests the page again.

Limits: 32 MiB per page, 256 KiB per record, 1,000 consecutive pages without a record. A token must not occur twice in a
set. A fetch can resume with a token for 12 hours. It is an error if the next set begins before the current set.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlencode, urlsplit

from countermark.domain.exchange import CredentialSource, Delta, Fetch, Field
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion, SharedOpinion, Verdict
from countermark.domain.signal import Signal
from countermark.domain.transport import Request, Response, Transport
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges.config import parse_fields, parse_one_line, required_credentials
from countermark.exchanges.pages import (
    MAX_PAGE_BYTES,
    EmptyPageCounter,
    host_of,
    is_storable,
    parse_body,
    refusal_error,
    salvage_json,
    went_back_error,
)
from countermark.exchanges.verdicts import verdict_term

BASE_URL = "https://api.stopncii.org/v1"

PAGE_SIZE = 800

SMALLER_PAGE_SIZES = (100, 10, 1)
"""The page sizes to request, one after the other, if a page is damaged. Each size is about a tenth of the previous
size, so that thirty requests find a damaged record."""

SIZE_REFUSED = frozenset({400, 404, 410, 422})
"""The statuses that can mean that the exchange does not accept a page size."""

REQUIRED_FIELDS = ("signalType", "hashValue", "hashStatus")
"""The fields that all records have."""

LEADING_FIELDS = (*REQUIRED_FIELDS, "lastModtimestamp", "caseNumbers", "hashRegions", "CSPFeedbacks")
"""The fields with which a record can begin."""

PAGE_FIELDS = ("count", "nextPageToken", "nextSetTimestamp", "hasMoreRecords")
"""The fields of a page other than the list of records."""

FIRST_TIMESTAMP = 10
"""The timestamp at which the first set begins. The exchange accepts no lower timestamp."""

STALE_AFTER_S = 30 * 24 * 3600
"""The maximum age of the last fetch, in seconds. The exchange possibly does not return older withdrawals."""

TOKEN_LIFETIME_S = 12 * 3600
"""The time for which the page tokens of a fetch are used, in seconds from the beginning of the fetch. The exchange
states only that tokens do not last long."""

TOKEN_REFUSED = frozenset({400, 404, 410})
"""The statuses that can mean that a token has expired."""

TYPES = {"ImagePDQ": "pdq", "VideoMD5": "video_md5", "Text": "raw_text", "URL": "url"}
"""countermark's signal type for each signal type of the exchange. The exchange also has VideoTMK and possibly other
types. Records of these other types are stored, but they have no signal."""

TOMBSTONES = frozenset({"Withdrawn", "Deleted"})
"""The hash statuses of a withdrawn case. The other statuses are Unknown, Received and Active."""

FEEDBACK = {"Blocked": Category.POSITIVE_CLASS, "NotBlocked": Category.NEGATIVE_CLASS}
"""The category for each feedback value of a platform.

Unknown, None, QualityUnknown, PendingReview, Withdrawn and Deleted express no opinion of the content. Any other value
is ignored too.
"""

SENT_FEEDBACK = {
    Verdict.TRUE_POSITIVE: "Blocked",
    Verdict.FALSE_POSITIVE: "NotBlocked",
    Verdict.SEEN: "PendingReview",
}

CREDENTIAL_FIELDS = (
    Field(name="fetch_function_key", type="str", required=True, help="the function key, sent as x-functions-key"),
    Field(
        name="subscription_key",
        type="str",
        required=True,
        help="the subscription key, sent as Ocp-Apim-Subscription-Key",
    ),
    Field(name="base_url_override", type="str", required=False, help=f"an https URL in place of {BASE_URL}"),
    Field(
        name="submit_hashes_function_key",
        type="str",
        required=False,
        help="the function key of SubmitHashes, if it differs from that of FetchHashes",
    ),
    Field(
        name="submit_feedback_function_key",
        type="str",
        required=False,
        help="the function key of SubmitFeedback, if it differs from that of FetchHashes",
    ),
)
"""The one-line form of the credentials consists of the first three fields."""

CREDENTIAL_SOURCE = CredentialSource(
    environment_variable="TX_STOPNCII_KEYS",
    dot_file=".tx_stopncii_keys",
    form="function key,subscription key[,base url]",
)

FUNCTION_KEYS = {
    "FetchHashes": "fetch_function_key",
    "SubmitHashes": "submit_hashes_function_key",
    "SubmitFeedback": "submit_feedback_function_key",
}
"""The credential field that contains the function key of each endpoint. If the field is not set, the key of FetchHashes
is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A parsed page. `changes` contains the records by key; None stands for a withdrawn case.

    `next_token` is the token of the next page; None on the last page of a set. `next_timestamp` is the timestamp at
    which the next set begins.
    """

    changes: Mapping[str, Mapping[str, JSON] | None]
    malformed_items: int
    unreadable_items: int = 0
    next_token: str | None
    next_timestamp: int


def parse_page(body: Mapping[str, JSON]) -> Page:
    """Return a parsed page of `FetchHashes`. Malformed records are counted and left out.

    Raises:
        ValueError: The body is not a page.
    """
    items = body.get("hashRecords")
    if items is None and body.get("count") == 0:
        items = []
    timestamp, has_more, token = body.get("nextSetTimestamp"), body.get("hasMoreRecords"), body.get("nextPageToken")
    if not isinstance(items, list) or not _is_timestamp(timestamp) or not isinstance(has_more, bool):
        raise ValueError("hashRecords, nextSetTimestamp or hasMoreRecords")
    if has_more and not (isinstance(token, str) and token):
        raise ValueError("nextPageToken")
    records = [item for item in items if _is_record(item)]
    return Page(
        changes={_key(record): None if record["hashStatus"] in TOMBSTONES else record for record in records},
        malformed_items=len(items) - len(records),
        next_token=str(token) if has_more else None,
        next_timestamp=int(str(timestamp)),
    )


def salvage_page(body: bytes) -> Page:
    """Return the readable part of a damaged page. Missing records are counted as unreadable.

    Raises:
        ValueError: The body is not a page, or does not contain the position of the next page.
    """
    salvage = salvage_json(
        body,
        list_name="hashRecords",
        leading_fields=LEADING_FIELDS,
        required_fields=REQUIRED_FIELDS,
        page_fields=PAGE_FIELDS,
    )
    page = parse_page({**salvage.fields, "hashRecords": [*salvage.records]})
    count = salvage.fields.get("count")
    missing = count - len(salvage.records) if isinstance(count, int) else 0
    return replace(page, unreadable_items=max(salvage.damages, missing))


def signals_of(data: Mapping[str, JSON]) -> list[Signal]:
    """Return the signal of a record, or an empty list if countermark does not support the record's type."""
    name = TYPES.get(str(data["signalType"]))
    return [] if name is None else [Signal(type=name, value=str(data["hashValue"]))]


def opinions_of(data: Mapping[str, JSON]) -> list[Opinion]:
    """Return the platforms' opinions of a record, and the implicit opinion of the person who submitted it.

    The exchange does not report which feedback is the platform's own, so no opinion has `is_mine`.
    """
    return [
        *(
            Opinion(category=FEEDBACK[value], tags=frozenset(_tags(feedback)))
            for feedback in _feedbacks(data)
            if (value := str(feedback["feedbackValue"])) in FEEDBACK
        ),
        Opinion(category=Category.INVESTIGATION_SEED),
    ]


def feedback_body(feedbacks: Sequence[tuple[str, str, Sequence[str]]]) -> bytes:
    """Return the body of `SubmitFeedback`. Each of `feedbacks` is a hash value, a feedback value and tags."""
    items = [{"tags": [*tags], "feedbackValue": value, "hashValue": signal} for signal, value, tags in feedbacks]
    return json.dumps({"count": len(items), "hashFeedbacks": items}).encode("ascii")


def hashes_body(hashes: Sequence[tuple[str, str, str, Sequence[str]]], *, now_s: int) -> bytes:
    """Return the body of `SubmitHashes`.

    Each of `hashes` is the exchange's name of a signal type, a hash value, a feedback value and tags.
    """
    records = [
        {
            "lastModtimestamp": now_s,
            "signalType": signal_type,
            "hashValue": signal,
            "CSPFeedbacks": [{"tags": [*tags], "feedbackValue": value}],
        }
        for signal_type, signal, value, tags in hashes
    ]
    return json.dumps({"count": len(records), "hashRecords": records}).encode("ascii")


class StopNcii:
    """Yields the records that changed, one page per delta. Only tests pass `base_url`."""

    kind = "stop_ncii"
    config_fields: Sequence[Field] = ()
    credential_fields: Sequence[Field] | None = CREDENTIAL_FIELDS
    credential_source: CredentialSource | None = CREDENTIAL_SOURCE

    def __init__(self, transport: Transport, *, base_url: str = BASE_URL) -> None:
        self._transport = transport
        self._base_url = base_url

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the configuration, which has no fields.

        Raises:
            InvalidInput: The configuration has a field.
        """
        return parse_fields(self.kind, self.config_fields, config)

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Return the keys in a line, and the base URL if the line has one.

        Raises:
            InvalidInput: The line does not have the expected form, or the base URL is not an https URL. The error does
                not show the line.
        """
        fields = CREDENTIAL_FIELDS[:3]
        return _checked_credentials(parse_one_line(self.kind, CREDENTIAL_SOURCE.form, fields, text.split(",")))

    def check_credentials(self, credentials: Mapping[str, str]) -> None:
        """Check that the base URL in the credentials, if any, is an https URL.

        Raises:
            InvalidInput: The base URL is not an https URL, or a required field is missing. The error does not show the
                URL.
        """
        _checked_credentials(credentials)

    def joined(self, config: Mapping[str, JSON]) -> Self:
        """Return this exchange, because it has no configuration.

        Raises:
            InvalidInput: The configuration has a field.
        """
        self.parse_config(config)
        return self

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch of the set after the checkpoint, or continue in the middle of a set.

        The fetch restarts if the last fetch is too old, or used another base URL. The checkpoint contains the timestamp
        at which the set begins, the time of the fetch, and a digest of the base URL if the credentials have one. In the
        middle of a set, it also contains the token of the next page.

        Raises:
            InvalidInput: The credentials are missing, or their base URL is not an https URL.
            ExchangeFailed: During iteration of the deltas: the exchange refused a request, sent an answer that is not
                in the expected format, or returned an earlier position than before.
        """
        keys = _checked_credentials(credentials)
        age_s = None if checkpoint is None else now_s - int(str(checkpoint["last_fetch_time"]))
        is_same_scope = checkpoint is not None and {name: checkpoint.get(name) for name in _scope(keys)} == _scope(keys)
        if checkpoint is None or age_s is None or not is_same_scope or age_s > STALE_AFTER_S:
            return Fetch(restarts=True, deltas=self._deltas(keys, FIRST_TIMESTAMP, None, now_s))
        token = checkpoint.get("next_page_token")
        resume_token = str(token) if token is not None and age_s <= TOKEN_LIFETIME_S else None
        return Fetch(
            restarts=False, deltas=self._deltas(keys, int(str(checkpoint["update_time"])), resume_token, now_s)
        )

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signal of a record."""
        return signals_of(data)

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return the opinions of a record."""
        return opinions_of(data)

    def opinion_requests(
        self,
        data: Mapping[str, JSON],
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
    ) -> Sequence[Request]:
        """Return the request that sends feedback on a record. The feedback replaces the platform's earlier feedback.

        Raises:
            InvalidInput: The record has no signal of the opinion's type, the opinion has a reason, or the exchange does
                not accept its verdict.
        """
        signal_types = [signal.type for signal in signals_of(data)]
        if opinion.signal_type is not None and opinion.signal_type not in signal_types:
            raise InvalidInput(f"the record of {self.kind} has no signal of type {opinion.signal_type!r}")
        feedback = (str(data["hashValue"]), *_feedback_of(opinion))
        return [self._submission("SubmitFeedback", credentials, feedback_body([feedback]))]

    def signal_requests(
        self,
        signal: Signal,
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
        now_s: int,
    ) -> Sequence[Request]:
        """Return the request that shares a signal, together with the platform's feedback on this signal.

        Raises:
            InvalidInput: The exchange has no type for the signal, the opinion has a reason, or the exchange does not
                accept its verdict.
        """
        for exchange_type, signal_type in TYPES.items():
            if signal_type == signal.type:
                body = hashes_body([(exchange_type, signal.value, *_feedback_of(opinion))], now_s=now_s)
                return [self._submission("SubmitHashes", credentials, body)]
        raise InvalidInput(f"{self.kind} accepts no signals of type {signal.type!r}")

    def _deltas(self, keys: Mapping[str, str], start: int, resume_token: str | None, now_s: int) -> Iterator[Delta]:
        token, seen_tokens, size = resume_token, {resume_token}, _PageSize()
        empty_page_counter = EmptyPageCounter()
        while True:
            request = self._page_request(keys, start, token, size.records)
            try:
                page = self._fetch_page(keys, start, token, size)
            except ExchangeFailed as error:
                if token is None or token != resume_token or error.status not in TOKEN_REFUSED:
                    raise
                # The token is from an earlier fetch and is no longer valid. Request the set again from the start.
                token, resume_token, seen_tokens = None, None, {None}
                continue
            yield Delta(
                changes=page.changes,
                checkpoint={**_scope(keys), **_checkpoint(request, start, page, now_s)},
                malformed_items=page.malformed_items,
                unreadable_items=page.unreadable_items,
            )
            token = page.next_token
            if token is None:
                return
            if token in seen_tokens:
                raise ExchangeFailed(f"{host_of(request.url)} names an earlier page as its next page")
            items = len(page.changes) + page.malformed_items + page.unreadable_items
            empty_page_counter.count_page(request, items=items)
            seen_tokens.add(token)

    def _fetch_page(self, keys: Mapping[str, str], start: int, token: str | None, size: "_PageSize") -> Page:
        """Return a page. If it is damaged, return a smaller page, or the readable part of the smallest page.

        Raises:
            ExchangeFailed: The request was refused. Or even the smallest page is damaged, and it does not contain the
                position of the next page.
        """
        damaged: Response | None = None
        while True:
            request = self._page_request(keys, start, token, size.records)
            response = self._transport.send(request, max_bytes=MAX_PAGE_BYTES)
            if damaged is not None and response.status in SIZE_REFUSED:
                break
            if response.status != 200:
                raise refusal_error(request, response)
            page = _parse_undamaged(response)
            if page is not None:
                size.count_page()
                return page
            is_first, damaged = damaged is None, response
            # If a full page is damaged, request it a second time before reducing the size.
            if not (is_first and size.is_full) and not size.lower():
                break
        size.reset()
        return parse_body(request, salvage_page, damaged.body)

    def _page_request(self, keys: Mapping[str, str], start: int, token: str | None, size: int) -> Request:
        query = {"startTimestamp": str(start), "pageSize": str(size)}
        return self._request("FetchHashes", keys, query if token is None else query | {"nextPageToken": token})

    def _submission(self, endpoint: str, credentials: Mapping[str, str], body: bytes) -> Request:
        request = self._request(endpoint, _checked_credentials(credentials), {})
        return Request(
            url=request.url,
            method="POST",
            headers={"Content-Type": "application/json"},
            body=body,
            secret_headers=request.secret_headers,
            # A platform has at most one feedback per hash, so sending the request twice has the same effect as sending
            # it once.
            is_repeatable=True,
        )

    def _request(self, endpoint: str, keys: Mapping[str, str], query: Mapping[str, str]) -> Request:
        base_url = keys.get("base_url_override") or self._base_url
        return Request(
            url=f"{base_url.rstrip('/')}/{endpoint}" + (f"?{urlencode(query)}" if query else ""),
            secret_headers={
                "x-functions-key": keys.get(FUNCTION_KEYS[endpoint]) or keys["fetch_function_key"],
                "Ocp-Apim-Subscription-Key": keys["subscription_key"],
            },
        )


@dataclass(slots=True)
class _PageSize:
    """The number of records per page. It is reduced when a page is damaged, and raised again after the damage."""

    records: int = PAGE_SIZE
    pages: int = 0

    @property
    def is_full(self) -> bool:
        return self.records == PAGE_SIZE

    def lower(self) -> bool:
        """Switch to the next smaller size. Return False if no smaller size exists."""
        smaller = next((each for each in SMALLER_PAGE_SIZES if each < self.records), None)
        self.records, self.pages = smaller or self.records, 0
        return smaller is not None

    def count_page(self) -> None:
        """Count a page that was read.

        When the counted pages contain as many records as one page of the next larger size, switch to that size.
        """
        self.pages += 1
        larger = min((each for each in (PAGE_SIZE, *SMALLER_PAGE_SIZES) if each > self.records), default=PAGE_SIZE)
        if self.pages * self.records >= larger:
            self.records, self.pages = larger, 0

    def reset(self) -> None:
        """Switch back to full pages after the damage."""
        self.records, self.pages = PAGE_SIZE, 0


def _parse_undamaged(response: Response) -> Page | None:
    """Return the page in an answer; None if the page is damaged."""
    try:
        body = json.loads(response.body)
        return parse_page(body) if isinstance(body, dict) else None
    except (ValueError, RecursionError):
        return None


def _checkpoint(request: Request, start: int, page: Page, now_s: int) -> Mapping[str, JSON]:
    """Return the checkpoint after a page.

    Raises:
        ExchangeFailed: The next set begins before the current set.
    """
    if page.next_token is not None:
        return {"update_time": start, "last_fetch_time": now_s, "next_page_token": page.next_token}
    update_time = max(page.next_timestamp, FIRST_TIMESTAMP)
    if update_time < start:
        raise went_back_error(request)
    return {"update_time": update_time, "last_fetch_time": now_s}


def _scope(keys: Mapping[str, str]) -> Mapping[str, JSON]:
    """Return the scope of a checkpoint: a digest of the base URL in the credentials, or None for the default URL."""
    url = keys.get("base_url_override")
    return {"base_url": hashlib.sha256(url.rstrip("/").encode()).hexdigest() if url else None}


def _checked_credentials(credentials: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the credentials after checking them.

    Raises:
        InvalidInput: A required field is missing, or the base URL is not a valid https URL. The error does not show the
            credentials.
    """
    checked = required_credentials(StopNcii.kind, CREDENTIAL_FIELDS, credentials)
    url = checked.get("base_url_override")
    if url and not _is_https(url):
        raise InvalidInput(
            "the base URL in the credentials of stop_ncii must be an https URL without user, query or fragment"
        )
    return checked


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and not {"@", "?", "#"} & set(url)


def _is_timestamp(value: JSON) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_record(item: JSON) -> bool:
    """Return whether an item of a page is a valid record, with a well-formed hash, status and feedback.

    In a withdrawn record, only the hash and the status must be valid, so that malformed feedback does not prevent the
    removal of the record.
    """
    if not isinstance(item, dict):
        return False
    required = {name: item.get(name) for name in ("signalType", "hashValue", "hashStatus")}
    if not all(isinstance(value, str) and value for value in required.values()) or not is_storable(required):
        return False
    if item["hashStatus"] in TOMBSTONES:
        return True
    feedbacks = item.get("CSPFeedbacks")
    return (
        (feedbacks is None or isinstance(feedbacks, list))
        and all(map(_is_feedback, feedbacks or ()))
        and is_storable(item)
    )


def _is_feedback(item: JSON) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("feedbackValue"), str):
        return False
    tags = item.get("tags")
    return tags is None or (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags))


def _key(record: Mapping[str, JSON]) -> str:
    """Return a record's key: its signal type and a digest of its hash value. The hash value can have any length."""
    value = str(record["hashValue"]).encode("utf-8", "surrogatepass")
    return f"{record['signalType']} {hashlib.sha256(value).hexdigest()}"


def _feedbacks(data: Mapping[str, JSON]) -> Sequence[Mapping[str, JSON]]:
    feedbacks = data.get("CSPFeedbacks")
    return [each for each in feedbacks if isinstance(each, Mapping)] if isinstance(feedbacks, list) else []


def _tags(feedback: Mapping[str, JSON]) -> Sequence[str]:
    tags = feedback.get("tags")
    return [str(tag) for tag in tags] if isinstance(tags, list) else []


def _feedback_of(opinion: SharedOpinion) -> tuple[str, Sequence[str]]:
    """Return an opinion in the exchange's terms: a feedback value and tags.

    Raises:
        InvalidInput: The opinion has a reason, which the exchange does not support, or the exchange does not accept its
            verdict.
    """
    if opinion.reason is not None:
        raise InvalidInput("stop_ncii accepts no reason with an opinion; use tags instead")
    return verdict_term(StopNcii.kind, SENT_FEEDBACK, opinion.verdict), sorted(set(opinion.tags))
