"""The curate stage: people and services change banks, contents and collaborations.

Each function makes one change and nudges the index where a build has work to do. The nudge comes after
the change: a lost nudge costs freshness until the next scheduled build, never a change.

What a curator thinks of a content is told to its exchange in two steps, as exchanges fail: `give_opinion` checks
and publishes it, `tell_opinion` sends it, tried again by whoever calls until it returns. Nothing is sent for a
collaboration that does not write back.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from countermark.domain import bank as rules
from countermark.domain.bank import Bank, BankContent, ContentDraft
from countermark.domain.collaboration import (
    Collaboration,
    Exchange,
    SharedOpinion,
    TakesOpinions,
    TakesSignals,
    Verdict,
)
from countermark.domain.event import BankChanged, OpinionGiven
from countermark.domain.json import JSON
from countermark.domain.signal import Signal, SignalType
from countermark.domain.stores import (
    MAX_PAGE,
    BankStore,
    CollaborationStore,
    EventLedger,
    EventPublisher,
    SecretStore,
)
from countermark.domain.transport import Request, Transport
from countermark.errors import AlreadyExists, Conflict, InvalidInput, NotFound, Unavailable
from countermark.flows.hash import REMEMBER_EVENTS_S, event_id

MAX_METADATA_BYTES = 32 * 1024
"""The largest metadata of one content, as JSON: a DynamoDB item holds 400 KB, an event 256 KB."""

MAX_URI_LENGTH = 2_000
"""The longest original_media_uri, in characters: what URLs keep to in practice."""

METADATA_KEYS = frozenset({"content_id", "content_uri", "json"})
"""What a curator's metadata may hold: HMA's fields."""

MAX_TAGS = 50
"""The most tags of an opinion that is told to an exchange: more than curators give, and no burden to any store."""

MAX_TAG_LENGTH = 100
"""The longest tag of such an opinion, in characters."""

MAX_ANSWER_BYTES = 1024 * 1024
"""The most that is read of an exchange's answer to an opinion: its status is what counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curator:
    """What every change needs: the stores, whom to nudge, and the time of the request."""

    banks: BankStore
    collaborations: CollaborationStore
    publisher: EventPublisher
    now_s: int

    def nudge(
        self,
        reason: Literal["content", "bank", "bank_deleted", "signal_type"],
        subject: str,
        *,
        deleted_bank_id: int | None = None,
        deleted_collaboration: str | None = None,
    ) -> None:
        """Tell that a build has work to do, and what is left to purge.

        Raises:
            Unavailable: Something is left to purge, and nobody could be told.
        """
        event = BankChanged(
            id=event_id("BankChanged", reason, subject, str(self.now_s)),
            reason=reason,
            deleted_bank_id=deleted_bank_id,
            deleted_collaboration=deleted_collaboration,
            at_s=self.now_s,
        )
        try:
            self.publisher.publish([event])
        except Unavailable:
            if deleted_bank_id is not None or deleted_collaboration is not None:
                raise


def create_bank(curator: Curator, name: object, *, ratio: object = 1.0) -> Bank:
    """Create a bank.

    Raises:
        InvalidInput: The name or the ratio is wrong.
        AlreadyExists: There is one of that name.
    """
    return curator.banks.create_bank(rules.bank_name(name), ratio=rules.enabled_ratio(ratio))


def update_bank(curator: Curator, name: str, *, new_name: object = None, ratio: object = None) -> Bank:
    """Rename a bank, set its ratio, or both; None leaves as it is. Its collaboration follows the name.

    Raises:
        InvalidInput: The new name or the ratio is wrong.
        NotFound: There is no bank of that name.
        AlreadyExists: The new name is taken.
    """
    bank = curator.banks.update_bank(
        name,
        new_name=None if new_name is None else rules.bank_name(new_name),
        ratio=None if ratio is None else rules.enabled_ratio(ratio),
    )
    if bank.name != name:
        for collaboration in curator.collaborations.collaborations():
            if collaboration.bank == name:
                curator.collaborations.update_collaboration(replace(collaboration, bank=bank.name))
    if ratio is not None:
        curator.nudge("bank", f"{bank.id} {bank.matching_enabled_ratio}")
    return bank


def delete_bank(curator: Curator, name: str) -> bool:
    """Delete a bank; none of its contents matches from now on. Tells whether there was one.

    Its contents are purged by whoever receives the nudge.
    """
    bank = curator.banks.delete_bank(name)
    if bank is None:
        return False
    curator.nudge("bank_deleted", str(bank.id), deleted_bank_id=bank.id)
    return True


def check_signals(signal_types: Mapping[str, SignalType], signals: Mapping[str, str]) -> dict[str, str]:
    """Return the canonical values by type.

    Raises:
        InvalidInput: There is none, a type is unknown, or a value is not one of its type. HMA's texts.
    """
    if not signals:
        raise InvalidInput("No signals given")
    canonical = {}
    for name, text in signals.items():
        signal_type = signal_types.get(name)
        if signal_type is None:
            raise InvalidInput(f"No such signal type {name}")
        try:
            canonical[name] = signal_type.parse(text)
        except InvalidInput as error:
            raise InvalidInput(f"Invalid {name} signal: {error}") from error
    return canonical


def check_metadata(metadata: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return a curator's metadata.

    Raises:
        InvalidInput: It has another key, or is too large.
    """
    for key in metadata:
        if key not in METADATA_KEYS:
            raise InvalidInput(f"metadata has content_id, content_uri and json, not {key!r}")
    size_bytes = len(json.dumps(metadata, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    if size_bytes > MAX_METADATA_BYTES:
        raise InvalidInput(f"metadata has at most {MAX_METADATA_BYTES} bytes, not {size_bytes}")
    return metadata


def check_draft(draft: ContentDraft) -> None:
    """Check what a content is to be made of; that its signals are canonical is the caller's part.

    Raises:
        InvalidInput: It has no signal, or its note, metadata or URI is wrong.
    """
    if not draft.signals:
        raise InvalidInput("No signals given")
    rules.note(draft.note)
    check_metadata(draft.metadata)
    if draft.original_media_uri is not None and len(draft.original_media_uri) > MAX_URI_LENGTH:
        raise InvalidInput(f"a URI has at most {MAX_URI_LENGTH} characters")


def add_content(curator: Curator, bank_name: str, draft: ContentDraft) -> BankContent:
    """Bank a content whose signals are canonical; a draft with a known source key is not banked again.

    Raises:
        InvalidInput: It has no signal, or its note, metadata or URI is wrong.
        NotFound: There is no such bank.
    """
    check_draft(draft)
    bank = curator.banks.bank(bank_name)
    content = curator.banks.add_content(bank.id, draft, now_s=curator.now_s)
    curator.nudge("content", f"add {content.id}")
    return content


def add_contents(curator: Curator, bank_name: str, drafts: Sequence[ContentDraft]) -> list[BankContent]:
    """Bank many contents in one write, at most `MAX_PAGE`; none has a source key, so each is a new one.

    Raises:
        InvalidInput: A draft has no signal, or its note, metadata or URI is wrong; then none is banked.
        NotFound: There is no such bank.
    """
    for draft in drafts:
        check_draft(draft)
    bank = curator.banks.bank(bank_name)
    ids = curator.banks.allot_content_ids(len(drafts)) if drafts else range(0)
    contents = [
        BankContent(
            id=content_id,
            bank_id=bank.id,
            signals=draft.signals,
            note=draft.note,
            original_media_uri=draft.original_media_uri,
            metadata=draft.metadata,
            provenance=draft.provenance,
            created_at_s=curator.now_s,
        )
        for content_id, draft in zip(ids, drafts, strict=True)
    ]
    if contents:
        curator.banks.put_contents(contents)
        curator.nudge("content", f"add {contents[0].id} to {contents[-1].id}")
    return contents


def content_of(curator: Curator, bank_name: str, content_id: int) -> tuple[Bank, BankContent]:
    """Return a content with its bank; a content is reached only through its own bank.

    Raises:
        NotFound: There is no such bank, or no such content in it. HMA's texts.
    """
    bank = curator.banks.bank(bank_name)
    content = None
    if 0 < content_id <= rules.MAX_CONTENT_ID:
        content = curator.banks.contents([content_id]).get(content_id)
    if content is None or content.bank_id != bank.id:
        raise NotFound(f"content '{content_id}' not found")
    return bank, content


def update_content(
    curator: Curator,
    bank_name: str,
    content_id: int,
    *,
    disable_until_ts: object = None,
    note: object = None,
) -> tuple[Bank, BankContent]:
    """Disable or enable a content, set its note, or both; None leaves as it is.

    Raises:
        InvalidInput: The time or the note is wrong.
        NotFound: There is no such bank, or no such content in it.
    """
    until_ts = None if disable_until_ts is None else rules.disable_until_ts(disable_until_ts, now_s=curator.now_s)
    new_note = None if note is None else rules.note(note)
    bank, _ = content_of(curator, bank_name, content_id)
    content = curator.banks.update_content(bank.id, content_id, disable_until_ts=until_ts, note=new_note)
    if until_ts is not None:
        curator.nudge("content", f"disable {content_id} {until_ts}")
    return bank, content


def delete_content(curator: Curator, bank_name: str, content_id: int) -> int:
    """Delete a content; returns how many were deleted. What an exchange sent stays deleted.

    Raises:
        NotFound: There is no such bank, or no such content in it.
    """
    bank, content = content_of(curator, bank_name, content_id)
    if content.provenance is not None:
        curator.collaborations.withhold(content.provenance)
    deleted = curator.banks.delete_contents(bank.id, [content_id])
    curator.nudge("content", f"delete {content.id}")
    return deleted


def set_signal_type_ratio(curator: Curator, signal_types: Mapping[str, SignalType], name: str, ratio: object) -> None:
    """Set the enabled ratio of a signal type: at 0 it is neither hashed, indexed nor matched.

    Raises:
        NotFound: There is no such signal type.
        InvalidInput: The ratio is wrong.
    """
    if name not in signal_types:
        raise NotFound(f"No such SignalType '{name}'")
    curator.banks.set_signal_type_ratio(name, rules.enabled_ratio(ratio))
    curator.nudge("signal_type", name)


def create_collaboration(curator: Curator, collaboration: Collaboration, *, shares_bank: bool = False) -> None:
    """Store a collaboration, and create its bank.

    A collaboration's bank is deleted with it, so one that is there already is taken only where it
    `shares_bank` on purpose.

    Raises:
        AlreadyExists: There is a collaboration of that name; or a bank, which is not to be shared.
        Conflict: One of that name was deleted, and is not all purged yet.
        InvalidInput: Its bank's name is wrong, or its bank is another collaboration's.
    """
    rules.bank_name(collaboration.bank)
    for other in curator.collaborations.collaborations():
        if other.name == collaboration.name:
            raise AlreadyExists(f"there is a collaboration {collaboration.name!r} already")
        if other.bank == collaboration.bank:
            raise InvalidInput(f"bank {other.bank!r} is that of collaboration {other.name!r}")
    is_new_bank = not shares_bank or all(bank.name != collaboration.bank for bank in curator.banks.banks())
    if is_new_bank:
        create_bank(curator, collaboration.bank)
    try:
        curator.collaborations.create_collaboration(collaboration)
    except Conflict:
        if is_new_bank:
            curator.banks.delete_bank(collaboration.bank)
        raise


def delete_collaboration(curator: Curator, name: str) -> bool:
    """Delete a collaboration with its bank, contents and records. Tells whether there was one.

    A running fetch loses its lease, and so writes nothing more. Contents and records are purged by
    whoever receives the nudge.
    """
    try:
        collaboration = curator.collaborations.collaboration(name)
    except NotFound:
        return False
    curator.collaborations.delete_collaboration(name)
    bank = curator.banks.delete_bank(collaboration.bank)
    curator.nudge(
        "bank_deleted",
        name,
        deleted_bank_id=None if bank is None else bank.id,
        deleted_collaboration=name,
    )
    return True


def purge(event: BankChanged, *, banks: BankStore, collaborations: CollaborationStore, steps: int) -> bool:
    """Remove what a nudge says is left of a deleted bank or collaboration; tells whether more may be.

    Each step removes at most a thousand contents or records; whoever calls decides how many fit.
    """
    for _ in range(steps):
        removed = 0
        if event.deleted_bank_id is not None:
            removed += banks.purge_contents(event.deleted_bank_id, limit=MAX_PAGE)
        if event.deleted_collaboration is not None:
            removed += collaborations.purge_records(event.deleted_collaboration, limit=MAX_PAGE)
        if not removed:
            return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """What it takes to say what an exchange would be sent."""

    exchanges: Mapping[str, Exchange]
    collaborations: CollaborationStore
    secrets: SecretStore


@dataclass(frozen=True, slots=True, kw_only=True)
class OpinionReport:
    """What came of an opinion that was to be told.

    `outcome` is `told`, `repeated` (it was dealt with before), `off` (its collaboration is gone, or writes back no
    more) or `refused` for good: by the exchange, or as nothing can be sent of it; `why` says so in words.
    """

    collaboration: str
    outcome: Literal["told", "repeated", "off", "refused"]
    why: str = ""
    requests: tuple[Request, ...] = ()


def shared_opinion(
    verdict: str, *, tags: Sequence[str] = (), signal_type: str | None = None, reason: str | None = None
) -> SharedOpinion:
    """Return an opinion as a curator states it; each tag counts once.

    Raises:
        InvalidInput: There is no such verdict, or a tag is empty, too long, has a comma, or is one too many.
    """
    if verdict not in set(Verdict):
        raise InvalidInput(f"an opinion is {', '.join(Verdict)}, not {verdict!r}")
    distinct = tuple(dict.fromkeys(tag.strip() for tag in tags))
    if len(distinct) > MAX_TAGS:
        raise InvalidInput(f"an opinion has at most {MAX_TAGS} tags, not {len(distinct)}")
    for tag in distinct:
        # A comma parts the tags where an exchange takes them as one text.
        if not tag or len(tag) > MAX_TAG_LENGTH or "," in tag or not tag.isprintable():
            raise InvalidInput(f"a tag has 1 to {MAX_TAG_LENGTH} printable characters and no comma, not {tag!r}")
    return SharedOpinion(verdict=Verdict(verdict), tags=distinct, signal_type=signal_type, reason=reason)


def opinion_of_content(curator: Curator, bank_name: str, content_id: int, opinion: SharedOpinion) -> OpinionGiven:
    """Return an opinion of a content as it is told: of its exchange's record, or of the content's own signals.

    What was banked here, in the bank of a collaboration, is new to the exchange.

    Raises:
        NotFound: There is no such bank, or no such content in it.
        InvalidInput: There is no exchange to tell.
    """
    bank, content = content_of(curator, bank_name, content_id)
    if content.provenance is not None:
        return opinion_given(
            opinion,
            collaboration=content.provenance.collaboration,
            record_key=content.provenance.record_key,
            now_s=curator.now_s,
        )
    signals = tuple(
        Signal(type=name, value=value)
        for name, value in sorted(content.signals.items())
        if opinion.signal_type in {None, name}
    )
    for collaboration in curator.collaborations.collaborations():
        if collaboration.bank == bank.name:
            return opinion_given(opinion, collaboration=collaboration.name, signals=signals, now_s=curator.now_s)
    raise InvalidInput(f"bank {bank.name!r} is no collaboration's: there is no exchange to tell")


def opinion_given(
    opinion: SharedOpinion,
    *,
    collaboration: str,
    record_key: str | None = None,
    signals: tuple[Signal, ...] = (),
    now_s: int,
) -> OpinionGiven:
    """Return an opinion of a record, or of new signals, as it is told. The same one at another time is another."""
    told = [collaboration, record_key, [[s.type, s.value] for s in signals], opinion.verdict, opinion.signal_type]
    subject = json.dumps([*told, opinion.tags, opinion.reason])
    return OpinionGiven(
        id=event_id("OpinionGiven", subject, str(now_s)),
        collaboration=collaboration,
        record_key=record_key,
        signals=signals,
        opinion=opinion,
        at_s=now_s,
    )


def opinion_requests(teller: Teller, given: OpinionGiven, *, now_s: int) -> list[Request]:
    """Return the requests that tell an exchange of an opinion, in order; none are sent. This is the dry run.

    Of several new signals those that the exchange takes are shared.

    Raises:
        NotFound: There is no such collaboration, or it has no such record any more.
        InvalidInput: The exchange takes no such opinion or signals, or there are no credentials that can work.
    """
    collaboration = teller.collaborations.collaboration(given.collaboration)
    exchange = teller.exchanges.get(collaboration.api)
    if exchange is None:
        raise InvalidInput(f"No such exchange type '{collaboration.api}'")
    config = exchange.parse_config(collaboration.config)
    credentials = teller.secrets.credentials(exchange.kind)
    if credentials is None:
        if exchange.credential_fields is not None:
            raise InvalidInput(f"{exchange.kind} needs credentials, and none are set")
        credentials = {}
    if given.record_key is not None:
        if not isinstance(exchange, TakesOpinions):
            raise InvalidInput(f"{exchange.kind} takes no opinions")
        record = teller.collaborations.records(collaboration.name, [given.record_key]).get(given.record_key)
        if record is None:
            raise NotFound(f"collaboration {collaboration.name!r} has no such record any more")
        return list(exchange.opinion_requests(config, record.data, given.opinion, credentials=credentials))
    if not isinstance(exchange, TakesSignals):
        raise InvalidInput(f"{exchange.kind} takes no new signals")
    requests: list[Request] = []
    refusal = InvalidInput("there is no signal to share")
    for signal in given.signals:
        try:
            requests += exchange.signal_requests(config, signal, given.opinion, credentials=credentials, now_s=now_s)
        except InvalidInput as error:
            refusal = error
    if not requests:
        raise refusal
    return requests


def give_opinion(curator: Curator, teller: Teller, given: OpinionGiven) -> list[Request]:
    """Have an exchange told of an opinion, soon; returns the requests that do.

    Raises:
        Conflict: Its collaboration does not write back.
        NotFound, InvalidInput: It cannot be told, as in `opinion_requests`.
        Unavailable: Nobody could be asked to tell it.
    """
    check_writes_back(teller.collaborations.collaboration(given.collaboration))
    requests = opinion_requests(teller, given, now_s=curator.now_s)
    curator.publisher.publish([given])
    return requests


def check_writes_back(collaboration: Collaboration) -> None:
    """Check that a collaboration may send anything.

    Raises:
        Conflict: It may not.
    """
    if not collaboration.writes_back:
        raise Conflict(f"collaboration {collaboration.name!r} does not write back: that is off until it is turned on")


def tell_opinion(
    teller: Teller, transport: Transport, given: OpinionGiven, *, ledger: EventLedger | None, now_s: int
) -> OpinionReport:
    """Send what tells an exchange of an opinion, unless that was done before; what it refuses is in the report.

    Without a ledger it is sent whatever was done before: a person asks for it, and waits.

    Raises:
        ExchangeFailed: It could not be reached, or has too much to do: the same opinion is to be told again.
    """
    if ledger is not None and ledger.is_done(given.id, now_s=now_s):
        return OpinionReport(collaboration=given.collaboration, outcome="repeated")
    report = _told(teller, transport, given, now_s=now_s)
    if ledger is not None:
        ledger.mark_done(given.id, now_s=now_s, forget_after_s=REMEMBER_EVENTS_S)
    return report


def _told(teller: Teller, transport: Transport, given: OpinionGiven, *, now_s: int) -> OpinionReport:
    name = given.collaboration
    try:
        check_writes_back(teller.collaborations.collaboration(name))
        requests = tuple(opinion_requests(teller, given, now_s=now_s))
    except (Conflict, NotFound) as error:
        return OpinionReport(collaboration=name, outcome="off", why=str(error))
    except InvalidInput as error:
        return OpinionReport(collaboration=name, outcome="refused", why=str(error))
    for request in requests:
        status = transport.send(request, max_bytes=MAX_ANSWER_BYTES).status
        if not 200 <= status < 300:
            hint = ": it does not take the credentials" if status in {401, 403} else ""
            why = f"the exchange answered with status {status}{hint}"
            return OpinionReport(collaboration=name, outcome="refused", why=why, requests=requests)
    return OpinionReport(collaboration=name, outcome="told", requests=requests)
