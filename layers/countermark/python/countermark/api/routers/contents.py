"""Contents of banks."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from countermark.api import content, wire
from countermark.api.binding import Body, Query
from countermark.api.call import Call
from countermark.api.messages import Answer
from countermark.api.multipart import Part
from countermark.api.routers import COVERAGE, Router, answers
from countermark.api.schemas import (
    BankedContent,
    BatchedContent,
    ChangedContent,
    ContentBatch,
    ContentChange,
    ContentOpinion,
    ContentPageView,
    ContentView,
    Deleted,
    Object,
    SentOpinion,
)
from countermark.domain import bank as rules
from countermark.domain.bank import MAX_CONTENT_ID, Bank, ContentDraft, batch_key
from countermark.domain.json import JSON
from countermark.errors import InvalidInput, NotFound
from countermark.flows import curate, opinions

router = Router("Contents")

_BANKED = answers(BankedContent, "The banked content.")
_BANKED_CONTENT = answers(BankedContent, "The banked content.", headers=COVERAGE)


@router.post("/c/bank/<bank_name>/content", summary="Bank content", responses=_BANKED_CONTENT)
def add_content(
    call: Call,
    bank_name: str,
    *,
    url: Annotated[
        str | None, Query(description="The URL of the content. Without it, the body must have an upload.")
    ] = None,
    content_type: Annotated[
        str | None, Query(description="The content type of the content at the URL.", examples=["photo"])
    ] = None,
    types: Annotated[
        str | None, Query(description="The signal types to use, separated by commas; by default all that are enabled.")
    ] = None,
    content_id: Annotated[str | None, Query(description="The curator's id of the content, to store with it.")] = None,
    content_uri: Annotated[str | None, Query(description="The URI where the curator stores the content.")] = None,
    metadata: Annotated[str | None, Query(description="JSON to store with the content.")] = None,
) -> Answer:
    """Hash content and bank its signals. The content is at a URL, or is the only file of a form."""
    bank = _bank(call, bank_name)
    parts = call.parts()
    combined, note = _body_metadata(call, parts)
    combined = {**_query_metadata(content_id=content_id, content_uri=content_uri, metadata=metadata), **combined}
    curate.check_metadata(combined)
    if url:
        report = content.hash_url(call, url, content_type=content_type, types=types)
    elif content.files(call, parts):
        report = content.hash_upload(call, parts, types=types)
    else:
        raise InvalidInput("Neither `url` nor multipart file upload was received")
    draft = ContentDraft(signals=content.banked_by_type(report), note=note, metadata=combined)
    return _add_content(call, bank, draft, headers=content.coverage_headers(report))


@router.post("/c/bank/<bank_name>/signal", summary="Bank signals", responses=_BANKED)
def add_signals(call: Call, bank_name: str, body: Annotated[Object, Body()]) -> Answer:
    """Bank one content. The body has its signals by signal type."""
    bank = _bank(call, bank_name)
    note = wire.text_field(body, "note") or ""
    signals = {name: value for name, value in body.items() if name != "note"}
    for name, value in signals.items():
        if not isinstance(value, str) and name in call.services.signal_types:
            raise InvalidInput(f"Invalid {name} signal: a signal must be text, not {value!r}")
    canonical = curate.check_signals(call.services.signal_types, signals)
    return _add_content(call, bank, ContentDraft(signals=canonical, note=note))


@router.post(
    "/c/bank/<bank_name>/signals",
    summary="Bank the signals of many contents",
    responses=answers(list[BatchedContent], "For each content, in order, its id or an error message."),
)
def add_many_signals(call: Call, bank_name: str, body: Annotated[ContentBatch, Body()]) -> Answer:
    """Bank up to 1,000 contents in one write. An invalid content only affects its own entry.

    The answer has an entry for each content, in the same order: `{"id": 21}`, or `{"message": "…"}` for an invalid
    content that was not banked. With an `idempotency_key`, the same request can be sent again for a day, even after
    an error, and the same contents get the same ids. The same key with other contents in the same bank is refused with
    409. After a 503, some of the contents may be stored. Its message has the key to use when the batch is sent again.
    """
    limit = call.services.limits.batch_contents
    if len(body.contents) > limit:
        raise InvalidInput(f"a batch can have at most {limit} contents, not {len(body.contents)}")
    key = None if body.idempotency_key is None else batch_key(body.idempotency_key)
    bank = _bank(call, bank_name)
    drafts: list[ContentDraft] = []
    refused: dict[int, JSON] = {}
    for place, entry in enumerate(body.contents):
        try:
            if not isinstance(entry, dict):
                raise InvalidInput(f"a content must be an object with its signals by signal type, not {entry!r}")
            drafts.append(curate.content_draft(call.services.signal_types, entry))
        except InvalidInput as error:
            refused[place] = {"message": str(error)}
    ids = iter(curate.add_contents(call.curator, bank.name, drafts, key=key))
    return wire.json_answer(
        [refused[place] if place in refused else {"id": next(ids)} for place in range(len(body.contents))]
    )


@router.get(
    "/c/bank/<bank_name>/contents",
    summary="List the contents of a bank",
    responses=answers(ContentPageView, "A page of contents, newest first."),
)
def list_contents(
    call: Call,
    bank_name: str,
    *,
    limit: Annotated[int, Query(description="The maximum number of contents.", ge=1, le=1_000)] = 100,
    cursor: Annotated[str | None, Query(description="The next_cursor of the previous page.")] = None,
) -> Answer:
    """Return a page of a bank's contents, newest first."""
    bank = _bank(call, bank_name)
    before = None if not cursor else _content_id(cursor)
    page = call.services.ports.banks.content_page(bank.id, before=before, limit=min(limit, call.services.limits.page))
    return wire.json_answer(
        {
            "contents": [wire.content_view(bank, each, signals=True, metadata=True) for each in page.contents],
            "next_cursor": None if page.before is None else str(page.before),
        }
    )


@router.get(
    "/c/bank/<bank_name>/content/<content_id>",
    summary="Show a content",
    responses=answers(ContentView, "The content."),
)
def show_content(
    call: Call,
    bank_name: str,
    content_id: str,
    *,
    include_signals: Annotated[bool, Query(description="Include its signals.")] = False,
    include_metadata: Annotated[bool, Query(description="Include its metadata and note.")] = True,
) -> Answer:
    """Return a content."""
    bank, found = curate.content_of(call.curator, bank_name, _existing_id(call, bank_name, content_id))
    return wire.json_answer(wire.content_view(bank, found, signals=include_signals, metadata=include_metadata))


@router.put(
    "/c/bank/<bank_name>/content/<content_id>",
    summary="Disable, enable or annotate a content",
    responses=answers(ChangedContent, "The content."),
)
def change_content(call: Call, bank_name: str, content_id: str, body: Annotated[ContentChange, Body()]) -> Answer:
    """Disable or enable a content, set its note, or both. A disabled content stops matching immediately."""
    existing_id = _existing_id(call, bank_name, content_id)
    try:
        change = rules.ContentChange.checked(body.model_dump(), now_s=call.now_s)
    except InvalidInput:
        _bank(call, bank_name)  # a missing bank is reported first
        raise
    bank, changed = curate.update_content(call.curator, bank_name, existing_id, change)
    return wire.json_answer(
        {
            **wire.content_view(bank, changed, signals=False, metadata=False),
            "collab_metadata": wire.collab_view(changed),
            "user_metadata": dict(changed.metadata),
            "note": changed.note,
        }
    )


@router.delete(
    "/c/bank/<bank_name>/content/<content_id>",
    summary="Delete a content",
    responses=answers(Deleted, "The number of deleted contents."),
)
def delete_content(call: Call, bank_name: str, content_id: str) -> Answer:
    """Delete a content of a bank. Later fetches do not add it again."""
    existing_id = _existing_id(call, bank_name, content_id)
    return wire.json_answer({"deleted": curate.delete_content(call.curator, bank_name, existing_id)})


@router.post(
    "/c/bank/<bank_name>/content/<content_id>/opinion",
    summary="Send an opinion of a content to its exchange",
    responses=answers(SentOpinion, "The requests to the exchange."),
)
def give_opinion(call: Call, bank_name: str, content_id: str, body: Annotated[ContentOpinion, Body()]) -> Answer:
    """Send an opinion of a content to the exchange that it came from.

    The opinion is sent soon, in the background. If several opinions wait, the newest counts.

    A content that a curator added to the bank of an exchange is shared with that exchange. `withdrawn` withdraws the
    platform's earlier opinion. Nothing is sent unless the exchange's `writes_back` is on. A dry run only returns the
    requests that would be sent.
    """
    _bank(call, bank_name)
    opinion = opinions.shared_opinion(
        body.opinion, tags=body.tags, signal_type=body.signal_type or None, reason=body.reason or None
    )
    events = opinions.opinions_of_content(call.curator, bank_name, _existing_id(call, bank_name, content_id), opinion)
    if body.dry_run:
        accepted = opinions.accepted_opinions(call.opinion_sender, events, now_s=call.now_s)
        requests = [request for _, each in accepted for request in each]
    else:
        requests = opinions.publish_opinions(call.curator, call.opinion_sender, events)
    return wire.json_answer({"dry_run": body.dry_run, "requests": [each.shown() for each in requests]})


def _bank(call: Call, name: str) -> Bank:
    return call.services.ports.banks.bank(name)


def _add_content(call: Call, bank: Bank, draft: ContentDraft, *, headers: Mapping[str, str] | None = None) -> Answer:
    banked = curate.add_content(call.curator, bank.name, draft)
    return wire.json_answer({"id": banked.id, "signals": dict(banked.signals)}, headers=headers)


def _existing_id(call: Call, bank_name: str, text: str) -> int:
    """Return the content id in a path as a number.

    Raises:
        NotFound: The id is not a number, so no content has it. If the bank does not exist, the error names the bank.
    """
    try:
        return _content_id(text)
    except InvalidInput as error:
        _bank(call, bank_name)
        raise NotFound(f"content '{text}' not found") from error


def _content_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_CONTENT_ID))):
        raise InvalidInput(f"the cursor must be the next_cursor of the previous page, not {text!r}")
    return int(text)


def _body_metadata(call: Call, parts: Sequence[Part]) -> tuple[Mapping[str, JSON], str]:
    """Return the curator's metadata and note from the body, which is a form or a JSON object."""
    fields: dict[str, Any] = dict(call.json_object())
    file_ids = {id(part) for part in content.files(call, parts)}
    for part in parts:
        if part.name in content.FIELDS and id(part) not in file_ids:
            fields[part.name] = wire.load(part.text) if part.name == "metadata" else part.text
    metadata = fields.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidInput("metadata should be a json object")
    return metadata or {}, wire.text_field(fields, "note") or ""


def _query_metadata(*, content_id: str | None, content_uri: str | None, metadata: str | None) -> dict[str, JSON]:
    """Return the curator's metadata from the query. The parameter `metadata` is stored as text if it is not JSON."""
    fields: dict[str, JSON] = {}
    if content_id:
        fields["content_id"] = content_id
    if content_uri:
        fields["content_uri"] = content_uri
    if metadata:
        try:
            fields["json"] = wire.load(metadata)
        except InvalidInput:
            fields["json"] = metadata
    return fields
