"""StopNCII.org: hashes that people made of intimate images of themselves, for platforms to keep them off.

Who runs it: SWGfL, a British charity, for platforms that it admits. Documentation: given to members with their
keys; the format is that of the client of python-threatexchange 1.2.16, and of the pages that its tests recorded.
Credentials: an Azure function key and a subscription key, and where the operator says so another base URL.

`FetchHashes` tells the records that changed since a timestamp: a *set*, in pages of up to 800, each page with the
token of the next and the timestamp that the next set begins at. A record says all there is of a hash: the cases
of the people who sent it, and the feedback of the platforms that met it. The timestamp holds for the whole set,
so until the last page a fetch is resumed by the token, and a token that has grown old by its set's beginning.

A page can be damaged: in September 2026 one was, for 40 hours, with status 200. It is asked for again, then in
smaller pages, so that the records around the damage come as they are. Of the smallest page the records that can be
read are taken, and the others are counted as unreadable, which the fetch reports. A page that does not say where the
next one is, such as an error page, ends the run, and the next run asks for it again.

Limits: 32 MiB a page, 256 KiB a record; 1,000 pages without a record; a token comes once in a set, and is resumed
for 12 hours; the timestamp of a next set that lies behind the one before is an error.
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
from countermark.exchanges.config import needed_credentials, parse_fields, parse_one_line
from countermark.exchanges.pages import (
    MAX_PAGE_BYTES,
    Patience,
    host_of,
    is_storable,
    parsed,
    refused,
    salvaged,
    went_back,
)
from countermark.exchanges.verdicts import sent

BASE_URL = "https://api.stopncii.org/v1"

PAGE_SIZE = 800

SMALLER_PAGE_SIZES = (100, 10, 1)
"""How many records are asked for at once where a page is damaged, one size after the other. Each is about a tenth of
the one before, so that a damaged record is found with thirty requests."""

SIZE_REFUSED = frozenset({400, 404, 410, 422})
"""The statuses that a size of pages which the exchange does not take may be answered with."""

RECORD_NAMES = ("signalType", "hashValue", "hashStatus")
"""The fields that every record has."""

FIRST_NAMES = (*RECORD_NAMES, "lastModtimestamp", "caseNumbers", "hashRegions", "CSPFeedbacks")
"""The fields that a record may begin with."""

PAGE_NAMES = ("count", "nextPageToken", "nextSetTimestamp", "hasMoreRecords")
"""The fields of a page beside its records."""

FIRST_TIMESTAMP = 10
"""Where the first set begins: the exchange takes none that is lower."""

STALE_AFTER_S = 30 * 24 * 3600
"""How old the last fetch may be: what was withdrawn before that may be told no more."""

TOKEN_LASTS_S = 12 * 3600
"""How long after the beginning of its fetch a page's token is still used: not for long, the exchange says."""

TOKEN_REFUSED = frozenset({400, 404, 410})
"""The statuses that a token which is not known any more may be answered with."""

TYPES = {"ImagePDQ": "pdq", "VideoMD5": "video_md5", "Text": "raw_text", "URL": "url"}
"""Our signal types by the exchange's names. It has VideoTMK besides, and may have more: kept, and no signal of ours."""

TOMBSTONES = frozenset({"Withdrawn", "Deleted"})
"""The hash statuses by which a case was taken back. The others are Unknown, Received and Active."""

FEEDBACK = {"Blocked": Category.POSITIVE_CLASS, "NotBlocked": Category.NEGATIVE_CLASS}
"""What a platform's feedback says.

Unknown, None, QualityUnknown, PendingReview, Withdrawn and Deleted say nothing of the content, and neither does a
value that is new to us.
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
        help="the function key of SubmitHashes, where it has one of its own",
    ),
    Field(
        name="submit_feedback_function_key",
        type="str",
        required=False,
        help="the function key of SubmitFeedback, where it has one of its own",
    ),
)
"""The first three are the parts of the one-line form."""

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
"""The credential that each endpoint's function key is; one that is not given is that of FetchHashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page as parsed: records by key, None where the case was taken back.

    `next_token` asks for the next page; None where it is the last of its set, and then the next set begins at
    `next_timestamp`.
    """

    changes: Mapping[str, Mapping[str, JSON] | None]
    malformed_items: int
    unreadable_items: int = 0
    next_token: str | None
    next_timestamp: int


def parse_page(body: Mapping[str, JSON]) -> Page:
    """Return what a page of `FetchHashes` says. Records that are malformed are counted and left out.

    Raises:
        ValueError: It is no such page.
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
    """Return what can be read of a damaged page. The records that are missing are counted as unreadable.

    Raises:
        ValueError: It does not say where the next page is, or is no page at all.
    """
    found = salvaged(
        body, list_name="hashRecords", first_names=FIRST_NAMES, needed_names=RECORD_NAMES, field_names=PAGE_NAMES
    )
    page = parse_page({**found.fields, "hashRecords": [*found.records]})
    count = found.fields.get("count")
    missing = count - len(found.records) if isinstance(count, int) else 0
    return replace(page, unreadable_items=max(found.damages, missing))


def signals_of(data: Mapping[str, JSON]) -> list[Signal]:
    """Return the signal of a record; none where its type is not one of ours."""
    name = TYPES.get(str(data["signalType"]))
    return [] if name is None else [Signal(type=name, value=str(data["hashValue"]))]


def opinions_of(data: Mapping[str, JSON]) -> list[Opinion]:
    """Return what the platforms say of a record, and the implicit opinion of whoever sent it in.

    Which platform we are ourselves, the exchange does not tell: no opinion is ours.
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
    """Return the body of `SubmitFeedback`: hash values, each with a feedback value and tags."""
    told = [{"tags": [*tags], "feedbackValue": value, "hashValue": signal} for signal, value, tags in feedbacks]
    return json.dumps({"count": len(told), "hashFeedbacks": told}).encode("ascii")


def hashes_body(hashes: Sequence[tuple[str, str, str, Sequence[str]]], *, now_s: int) -> bytes:
    """Return the body of `SubmitHashes`: bare signal types and hash values, each with a feedback value and tags."""
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
    """Yields the sets of changed records, a page at a time. `base_url` is for tests."""

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
            InvalidInput: It has one.
        """
        return parse_fields(self.kind, self.config_fields, config)

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Return the keys that a line holds, and the base URL where there is one.

        Raises:
            InvalidInput: The line is of another form, or the URL is not one of https. The error does not show them.
        """
        fields = CREDENTIAL_FIELDS[:3]
        return _checked(parse_one_line(self.kind, CREDENTIAL_SOURCE.form, fields, text.split(",")))

    def check_credentials(self, credentials: Mapping[str, str]) -> None:
        """Check that the base URL, where there is one, is one of https.

        Raises:
            InvalidInput: It is not. The error does not show it.
        """
        _checked(credentials)

    def joined(self, config: Mapping[str, JSON]) -> Self:
        """Return this exchange: there is nothing to configure.

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
        """Begin a fetch of the set after the checkpoint, or go on in it.

        It restarts where the last one is too old, or was of another base URL. The checkpoint holds the timestamp
        that the set begins at, when it was fetched, a digest of the base URL in the credentials where there is one,
        and within a set the token of the next page.

        Raises:
            InvalidInput: There are no credentials, or their base URL is not one of https.
            ExchangeFailed: From the deltas: it refused, answered outside its format, or went back in time.
        """
        keys = _checked(credentials)
        age_s = None if checkpoint is None else now_s - int(str(checkpoint["last_fetch_time"]))
        is_ours = checkpoint is not None and {name: checkpoint.get(name) for name in _scope(keys)} == _scope(keys)
        if checkpoint is None or age_s is None or not is_ours or age_s > STALE_AFTER_S:
            return Fetch(restarts=True, deltas=self._deltas(keys, FIRST_TIMESTAMP, None, now_s))
        token = checkpoint.get("next_page_token")
        resumed = str(token) if token is not None and age_s <= TOKEN_LASTS_S else None
        return Fetch(restarts=False, deltas=self._deltas(keys, int(str(checkpoint["update_time"])), resumed, now_s))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signal of a record."""
        return signals_of(data)

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return what the platforms say of a record."""
        return opinions_of(data)

    def opinion_requests(
        self,
        data: Mapping[str, JSON],
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
    ) -> Sequence[Request]:
        """Return the request that gives feedback on a record, in place of what we gave before.

        Raises:
            InvalidInput: The opinion is of a signal that the record has not, or gives a reason.
        """
        carried = [signal.type for signal in signals_of(data)]
        if opinion.signal_type is not None and opinion.signal_type not in carried:
            raise InvalidInput(f"the record of {self.kind} has no signal of type {opinion.signal_type!r}")
        feedback = (str(data["hashValue"]), *_sent(opinion))
        return [self._submission("SubmitFeedback", credentials, feedback_body([feedback]))]

    def signal_requests(
        self,
        signal: Signal,
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
        now_s: int,
    ) -> Sequence[Request]:
        """Return the request that shares a signal with our feedback on it.

        Raises:
            InvalidInput: The exchange has no type for such a signal, or the opinion gives a reason.
        """
        for theirs, ours in TYPES.items():
            if ours == signal.type:
                body = hashes_body([(theirs, signal.value, *_sent(opinion))], now_s=now_s)
                return [self._submission("SubmitHashes", credentials, body)]
        raise InvalidInput(f"{self.kind} takes no signals of type {signal.type!r}")

    def _deltas(self, keys: Mapping[str, str], start: int, resumed: str | None, now_s: int) -> Iterator[Delta]:
        token, seen, size = resumed, {resumed}, _PageSize()
        patience = Patience()
        while True:
            request = self._page_request(keys, start, token, size.records)
            try:
                page = self._page(keys, start, token, size)
            except ExchangeFailed as error:
                if token is None or token != resumed or error.status not in TOKEN_REFUSED:
                    raise
                # The token is of an earlier run, and lasted shorter than we hoped: its set is asked for again.
                token, resumed, seen = None, None, {None}
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
            if token in seen:
                raise ExchangeFailed(f"{host_of(request.url)} has a page for its next one that it had before")
            items = len(page.changes) + page.malformed_items + page.unreadable_items
            patience.after(request, items=items)
            seen.add(token)

    def _page(self, keys: Mapping[str, str], start: int, token: str | None, size: "_PageSize") -> Page:
        """Return a page: where it is damaged a smaller one, or what can be read of the smallest.

        Raises:
            ExchangeFailed: It was refused; or it is no page however small, and does not say where the next one is.
        """
        damaged: Response | None = None
        while True:
            request = self._page_request(keys, start, token, size.records)
            response = self._transport.send(request, max_bytes=MAX_PAGE_BYTES)
            if damaged is not None and response.status in SIZE_REFUSED:
                break
            if response.status != 200:
                raise refused(request, response)
            page = _parsed(response)
            if page is not None:
                size.after_page()
                return page
            is_first, damaged = damaged is None, response
            # Once it is asked for again as it is.
            if not (is_first and size.is_full) and not size.lower():
                break
        size.reset()
        return parsed(request, salvage_page, damaged.body)

    def _page_request(self, keys: Mapping[str, str], start: int, token: str | None, size: int) -> Request:
        query = {"startTimestamp": str(start), "pageSize": str(size)}
        return self._request("FetchHashes", keys, query if token is None else query | {"nextPageToken": token})

    def _submission(self, endpoint: str, credentials: Mapping[str, str], body: bytes) -> Request:
        request = self._request(endpoint, _checked(credentials), {})
        return Request(
            url=request.url,
            method="POST",
            headers={"Content-Type": "application/json"},
            body=body,
            secret_headers=request.secret_headers,
            # A platform has one feedback on a hash: what is sent twice is said once.
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
    """How many records are asked for at once: fewer around damage, and more again where it is left behind."""

    records: int = PAGE_SIZE
    pages: int = 0

    @property
    def is_full(self) -> bool:
        return self.records == PAGE_SIZE

    def lower(self) -> bool:
        """Take the next smaller size; returns False where there is none."""
        smaller = next((each for each in SMALLER_PAGE_SIZES if each < self.records), None)
        self.records, self.pages = smaller or self.records, 0
        return smaller is not None

    def after_page(self) -> None:
        """Take a page that was read. After as many as the next larger one has, that size is tried again."""
        self.pages += 1
        larger = min((each for each in (PAGE_SIZE, *SMALLER_PAGE_SIZES) if each > self.records), default=PAGE_SIZE)
        if self.pages * self.records >= larger:
            self.records, self.pages = larger, 0

    def reset(self) -> None:
        """Ask for full pages again: the damage is passed."""
        self.records, self.pages = PAGE_SIZE, 0


def _parsed(response: Response) -> Page | None:
    """Return the page that was answered; None where it is damaged."""
    try:
        body = json.loads(response.body)
        return parse_page(body) if isinstance(body, dict) else None
    except (ValueError, RecursionError):
        return None


def _checkpoint(request: Request, start: int, page: Page, now_s: int) -> Mapping[str, JSON]:
    """Return the checkpoint after a page.

    Raises:
        ExchangeFailed: The next set begins before this one.
    """
    if page.next_token is not None:
        return {"update_time": start, "last_fetch_time": now_s, "next_page_token": page.next_token}
    update_time = max(page.next_timestamp, FIRST_TIMESTAMP)
    if update_time < start:
        raise went_back(request)
    return {"update_time": update_time, "last_fetch_time": now_s}


def _scope(keys: Mapping[str, str]) -> Mapping[str, JSON]:
    """Return what a checkpoint is of: the base URL of the credentials as a digest, None for the exchange's own."""
    url = keys.get("base_url_override")
    return {"base_url": hashlib.sha256(url.rstrip("/").encode()).hexdigest() if url else None}


def _checked(credentials: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the credentials, where they are there and would go over TLS.

    Raises:
        InvalidInput: They are not, or would not. The error does not show them.
    """
    given = needed_credentials(StopNcii.kind, CREDENTIAL_FIELDS, credentials)
    url = given.get("base_url_override")
    if url and not _is_https(url):
        raise InvalidInput("the base URL in the credentials of stop_ncii is one of https, and has no query")
    return given


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and not {"@", "?", "#"} & set(url)


def _is_timestamp(value: JSON) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_record(item: JSON) -> bool:
    """Tell whether an item of a page is a record: it says which hash it is, how it stands, and who thinks what.

    Of one that was taken back only the first two count: nothing else may keep it from being removed.
    """
    if not isinstance(item, dict):
        return False
    told = {name: item.get(name) for name in ("signalType", "hashValue", "hashStatus")}
    if not all(isinstance(value, str) and value for value in told.values()) or not is_storable(told):
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
    """Return a record's key: its signal type and hash value, the latter as a digest, as a text has any length."""
    value = str(record["hashValue"]).encode("utf-8", "surrogatepass")
    return f"{record['signalType']} {hashlib.sha256(value).hexdigest()}"


def _feedbacks(data: Mapping[str, JSON]) -> Sequence[Mapping[str, JSON]]:
    feedbacks = data.get("CSPFeedbacks")
    return [each for each in feedbacks if isinstance(each, Mapping)] if isinstance(feedbacks, list) else []


def _tags(feedback: Mapping[str, JSON]) -> Sequence[str]:
    tags = feedback.get("tags")
    return [str(tag) for tag in tags] if isinstance(tags, list) else []


def _sent(opinion: SharedOpinion) -> tuple[str, Sequence[str]]:
    """Return an opinion as the exchange has it: a feedback value and tags.

    Raises:
        InvalidInput: It gives a reason, and the exchange has none; or the exchange has no word for it.
    """
    if opinion.reason is not None:
        raise InvalidInput("stop_ncii takes no reason with an opinion; say it with tags")
    return sent(StopNcii.kind, SENT_FEEDBACK, opinion.verdict), sorted(set(opinion.tags))
