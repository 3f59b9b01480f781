"""The second part of the curate stage: sending curators' opinions of contents to the exchanges of these contents.

This takes two steps, because exchanges can be unavailable. `publish_opinions` checks opinions, numbers them and
publishes them as events. `send_opinion` sends one opinion; its caller repeats the call until it returns. The number of
an opinion is its place in the order of all opinions.

Events can arrive twice and in any order. So `send_opinion` holds a lease of the opinion's subject, which is a record or
some signals, and the ledger records which opinions of the subject were processed. If a newer opinion was processed
before, the older one is dropped, or the newer one is sent again after it. Nothing is sent for a collaboration that does
not write back.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from countermark.domain.caller import Caller
from countermark.domain.collaboration import Collaboration
from countermark.domain.event import OpinionGiven, event_id
from countermark.domain.exchange import Exchange, Joined, OffersReasons, TakesOpinions, TakesSignals, TakesWithdrawals
from countermark.domain.json import JSON
from countermark.domain.opinion import ProcessedOpinion, SharedOpinion, Verdict
from countermark.domain.signal import Signal
from countermark.domain.stores import CollaborationStore, OpinionLedger, Ports, SecretStore
from countermark.domain.transport import Request, Transport
from countermark.errors import Conflict, ExchangeFailed, InvalidInput, NotFound
from countermark.flows.curate import Curator, content_of

MAX_TAGS = 50
"""The most tags of one opinion. Curators use fewer, and any store can hold this many."""

MAX_TAG_LENGTH = 100
"""The longest tag of an opinion, in characters."""

MAX_PROCESSED = 32
"""The most opinions that are stored per subject; the newest remain. This allows two per signal type, and many more."""

MAX_ANSWER_BYTES = 1024 * 1024
"""The largest answer of an exchange to an opinion, in bytes. Only the answer's status is used."""

OPINION_LEASE_S = 15 * 60
"""How long a lease lasts, in seconds, if its holder does not release it because it crashed.

This is enough for some hundred requests, and longer than the function can run (5 minutes).
"""

LONGEST_REQUEST_S = 90
"""The time that must remain of a lease to send one more request, in seconds.

No transport takes longer for a request. So no request is running when the lease ends.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpinionSender:
    """The dependencies of sending opinions. `caller` is the sender."""

    exchanges: Mapping[str, Exchange]
    collaborations: CollaborationStore
    secrets: SecretStore
    opinions: OpinionLedger
    caller: Caller

    @classmethod
    def of(cls, ports: Ports, *, exchanges: Mapping[str, Exchange], caller: Caller) -> Self:
        """Return a sender that uses these ports."""
        return cls(
            exchanges=exchanges,
            collaborations=ports.collaborations,
            secrets=ports.secrets,
            opinions=ports.opinions,
            caller=caller,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpinionReport:
    """The result of sending an opinion. It is final: no outcome needs another attempt. `why` is the reason in words.

    `outcome` is one of:

    - `told`: the exchange accepted it;
    - `repeated`: it was processed before;
    - `superseded`: a newer opinion of the same subject was processed;
    - `off`: the collaboration was deleted, or no longer writes back;
    - `refused`: the exchange refused it, or does not support it, so that nothing was sent.
    """

    collaboration: str
    outcome: Literal["told", "repeated", "superseded", "off", "refused"]
    why: str = ""
    requests: tuple[Request, ...] = ()


def shared_opinion(
    verdict: str, *, tags: Sequence[str] = (), signal_type: str | None = None, reason: str | None = None
) -> SharedOpinion:
    """Return a curator's opinion. Repeated tags count once.

    Raises:
        InvalidInput: The verdict is unknown; a tag is empty, too long, not printable or has a comma; there are more
            than `MAX_TAGS` tags; or a withdrawal has tags, a signal type or a reason.
    """
    if verdict not in set(Verdict):
        raise InvalidInput(f"an opinion is {', '.join(Verdict)}, not {verdict!r}")
    distinct = tuple(dict.fromkeys(tag.strip() for tag in tags))
    if len(distinct) > MAX_TAGS:
        raise InvalidInput(f"an opinion has at most {MAX_TAGS} tags, not {len(distinct)}")
    for tag in distinct:
        # Some exchanges accept the tags as one text, separated by commas.
        if not tag or len(tag) > MAX_TAG_LENGTH or "," in tag or not tag.isprintable():
            raise InvalidInput(f"a tag has 1 to {MAX_TAG_LENGTH} printable characters and no comma, not {tag!r}")
    if verdict == Verdict.WITHDRAWN and (distinct or signal_type is not None or reason is not None):
        raise InvalidInput("a withdrawal takes back the whole opinion: leave out tags, signal type and reason")
    return SharedOpinion(verdict=Verdict(verdict), tags=distinct, signal_type=signal_type, reason=reason)


def opinions_of_content(
    curator: Curator, bank_name: str, content_id: int, opinion: SharedOpinion
) -> list[OpinionGiven]:
    """Return the events that send an opinion of a content. Their `place` is not set yet.

    For a fetched content, this is one event about the exchange's record. The exchange does not know a content that a
    curator added to the bank of a collaboration. So this content has one event per signal.

    Raises:
        NotFound: There is no such bank, or no such content in it.
        InvalidInput: The bank belongs to no collaboration, so there is no exchange to send to.
    """
    bank, content = content_of(curator, bank_name, content_id)
    if content.provenance is not None:
        record_key = content.provenance.record_key
        name = content.provenance.collaboration
        return [opinion_event(opinion, collaboration=name, record_key=record_key, now_s=curator.now_s)]
    for collaboration in curator.collaborations.collaborations():
        if collaboration.bank == bank.name:
            return [
                opinion_event(
                    replace(opinion, signal_type=signal_type),
                    collaboration=collaboration.name,
                    signals=(Signal(type=signal_type, value=value),),
                    now_s=curator.now_s,
                )
                for signal_type, value in sorted(content.signals.items())
                if opinion.signal_type in {None, signal_type}
            ]
    raise InvalidInput(f"bank {bank.name!r} belongs to no collaboration: there is no exchange to send the opinion to")


def opinion_event(
    opinion: SharedOpinion,
    *,
    collaboration: str,
    record_key: str | None = None,
    signals: tuple[Signal, ...] = (),
    now_s: int,
) -> OpinionGiven:
    """Return the event of an opinion of a record or of new signals. Its `place` is not set yet."""
    identity = [collaboration, record_key, [[s.type, s.value] for s in signals], opinion.verdict, opinion.signal_type]
    subject = json.dumps([*identity, opinion.tags, opinion.reason])
    return OpinionGiven(
        id=event_id("OpinionGiven", subject, str(now_s)),
        collaboration=collaboration,
        record_key=record_key,
        signals=signals,
        opinion=opinion,
        at_s=now_s,
    )


def with_place(event: OpinionGiven, place: int) -> OpinionGiven:
    """Return the event with its place in the order of all opinions. Its id depends on the place."""
    return replace(event, id=event_id(event.id, str(place)), place=place)


def opinion_requests(sender: OpinionSender, event: OpinionGiven, *, now_s: int) -> list[Request]:
    """Return the requests that would send an opinion to its exchange, in order. Nothing is sent: this is the dry run.

    Raises:
        NotFound: There is no such collaboration, or it no longer has the record.
        InvalidInput: The exchange does not accept such an opinion or signal, or the credentials are missing or invalid.
    """
    processed = [each.opinion for each in sender.opinions.processed(_subject(event))]
    return _requests(sender, replace(event, opinion=_with_replaced_verdict(processed, event.opinion)), now_s=now_s)


def _requests(sender: OpinionSender, event: OpinionGiven, *, now_s: int) -> list[Request]:
    collaboration = sender.collaborations.collaboration(event.collaboration)
    joined, credentials = _joined_exchange(sender, collaboration)
    if event.record_key is not None:
        if event.opinion.verdict is Verdict.WITHDRAWN:
            if not isinstance(joined, TakesWithdrawals):
                raise InvalidInput(f"{collaboration.api} does not support withdrawing an opinion")
            data = _record_data(sender, event, event.record_key)
            return list(joined.withdrawal_requests(data, event.opinion, credentials=credentials))
        if not isinstance(joined, TakesOpinions):
            raise InvalidInput(f"{collaboration.api} does not accept opinions")
        data = _record_data(sender, event, event.record_key)
        return list(joined.opinion_requests(data, event.opinion, credentials=credentials))
    if event.opinion.verdict is Verdict.WITHDRAWN:
        raise InvalidInput(
            "an opinion of a new signal cannot be withdrawn before the signal is fetched: fetch, and try again"
        )
    if not isinstance(joined, TakesSignals):
        raise InvalidInput(f"{collaboration.api} does not accept new signals")
    return [
        request
        for signal in event.signals
        for request in joined.signal_requests(signal, event.opinion, credentials=credentials, now_s=now_s)
    ]


def accepted_opinions(
    sender: OpinionSender, events: Sequence[OpinionGiven], *, now_s: int
) -> list[tuple[OpinionGiven, list[Request]]]:
    """Return the opinions that their exchanges accept, each with the requests that send it. There is at least one.

    Raises:
        NotFound, InvalidInput: No exchange accepts any of them. `opinion_requests` describes the reasons.
    """
    accepted = []
    refusal = InvalidInput("there is no signal to share")
    for each in events:
        try:
            accepted.append((each, opinion_requests(sender, each, now_s=now_s)))
        except InvalidInput as error:
            refusal = error
    if not accepted:
        raise refusal
    return accepted


def publish_opinions(curator: Curator, sender: OpinionSender, events: Sequence[OpinionGiven]) -> list[Request]:
    """Publish opinions as events, and return the requests that will send them soon.

    An opinion that its exchange does not accept is left out.

    Raises:
        Conflict: A collaboration does not write back.
        NotFound, InvalidInput: No opinion can be sent. `accepted_opinions` describes the reasons.
        Unavailable: The events could not be published.
    """
    for name in dict.fromkeys(each.collaboration for each in events):
        check_writes_back(sender.collaborations.collaboration(name))
    accepted = accepted_opinions(sender, events, now_s=curator.now_s)
    place = sender.opinions.allot_place()
    curator.publisher.publish([with_place(each, place) for each, _ in accepted])
    return [request for _, requests in accepted for request in requests]


def check_writes_back(collaboration: Collaboration) -> None:
    """Check that a collaboration writes back.

    Raises:
        Conflict: The collaboration does not write back, so nothing may be sent to its exchange.
    """
    if not collaboration.writes_back:
        raise Conflict(f"collaboration {collaboration.name!r} does not write back: turn its write-back on first")


def opinion_reasons(sender: OpinionSender, collaboration_name: str, signal_type: str) -> Mapping[str, str]:
    """Return the exchange's reasons for reporting a false positive of a signal type: their texts by their ids.

    Raises:
        NotFound: There is no such collaboration.
        InvalidInput: The exchange offers no reasons, does not share that signal type, or lacks credentials.
        ExchangeFailed: The exchange could not be queried.
    """
    collaboration = sender.collaborations.collaboration(collaboration_name)
    joined, credentials = _joined_exchange(sender, collaboration)
    if not isinstance(joined, OffersReasons):
        raise InvalidInput(f"{collaboration.api} has no reasons to choose from")
    return joined.feedback_reasons(signal_type, credentials=credentials)


def send_opinion(
    sender: OpinionSender, transport: Transport, event: OpinionGiven, *, holder: str, clock: Callable[[], int]
) -> OpinionReport:
    """Send an opinion to its exchange, unless it was processed before or a newer opinion supersedes it.

    A newer opinion may supersede it only in part, for example for a single signal type. Then the newer opinion is sent
    again after it. So the final state of the exchange follows the order of places, and not the order in which opinions
    arrive. `holder` is the name of this run in its lease, and `clock` returns epoch seconds.

    Raises:
        ExchangeFailed: The exchange cannot be reached or is overloaded. Send the same opinion again.
        LeaseHeld: Another run is sending an opinion of the same subject. Send this one again.
        LeaseLost: The lease expired before the opinion was recorded as processed. Send it again.
    """
    subject = _subject(event)
    ends_at_s = clock() + OPINION_LEASE_S
    processed = sender.opinions.acquire_lease(
        subject, holder=holder, now_s=ends_at_s - OPINION_LEASE_S, lease_s=OPINION_LEASE_S
    )
    is_processed = False
    try:
        report = _already_processed(event, processed)
        if report is None:
            report = _send(sender, transport, event, processed, clock=clock, ends_at_s=ends_at_s)
            is_processed = True
    finally:
        if not is_processed:
            sender.opinions.release_lease(subject, holder=holder)
    if is_processed:
        sender.opinions.record_processed(subject, _opinions_to_record(event, processed), holder=holder, now_s=clock())
    return report


def _already_processed(event: OpinionGiven, processed: Sequence[ProcessedOpinion]) -> OpinionReport | None:
    """Return the report of an opinion that must not be sent (again); None if it must be sent."""
    name = event.collaboration
    if ProcessedOpinion(place=event.place, opinion=event.opinion) in processed:
        return OpinionReport(collaboration=name, outcome="repeated", why="it was processed before")
    if any(each.opinion.supersedes(event.opinion) for each in _newer(event, processed)):
        return OpinionReport(
            collaboration=name, outcome="superseded", why="a newer opinion of the same subject was processed"
        )
    return None


def _send(
    sender: OpinionSender,
    transport: Transport,
    event: OpinionGiven,
    processed: Sequence[ProcessedOpinion],
    *,
    clock: Callable[[], int],
    ends_at_s: int,
) -> OpinionReport:
    name = event.collaboration
    requests: list[Request] = []
    try:
        check_writes_back(sender.collaborations.collaboration(name))
        before = [each.opinion for each in processed]
        for opinion in (event.opinion, *(each.opinion for each in _newer(event, processed))):
            requests += _requests(
                sender, replace(event, opinion=_with_replaced_verdict(before, opinion)), now_s=clock()
            )
            before.append(opinion)
    except (Conflict, NotFound) as error:
        return OpinionReport(collaboration=name, outcome="off", why=str(error))
    except InvalidInput as error:
        return OpinionReport(collaboration=name, outcome="refused", why=str(error))
    for request in requests:
        if clock() > ends_at_s - LONGEST_REQUEST_S:
            raise ExchangeFailed("the requests of an opinion took longer than its lease: send it again")
        status = transport.send(request, max_bytes=MAX_ANSWER_BYTES).status
        is_gone = request.method == "DELETE" and status == 404
        if not (200 <= status < 300 or is_gone):
            hint = ": it does not accept the credentials" if status in {401, 403} else ""
            why = f"the exchange answered with status {status}{hint}"
            return OpinionReport(collaboration=name, outcome="refused", why=why, requests=tuple(requests))
    return OpinionReport(collaboration=name, outcome="told", requests=tuple(requests))


def _with_replaced_verdict(processed: Sequence[SharedOpinion], opinion: SharedOpinion) -> SharedOpinion:
    """Return the opinion with `replaces` set: the latest verdict before it. `SEEN` cannot be replaced."""
    judged = [each.verdict for each in processed if each.verdict is not Verdict.SEEN]
    return replace(opinion, replaces=judged[-1] if judged else None)


def _newer(event: OpinionGiven, processed: Sequence[ProcessedOpinion]) -> list[ProcessedOpinion]:
    """Return the processed opinions of the same subject with later places, oldest first."""
    return sorted((each for each in processed if each.place > event.place), key=lambda each: each.place)


def _opinions_to_record(event: OpinionGiven, processed: Sequence[ProcessedOpinion]) -> list[ProcessedOpinion]:
    """Return the opinions to record for a subject: this one, and those that it does not fully supersede."""
    remaining = [each for each in processed if each.place > event.place or not event.opinion.supersedes(each.opinion)]
    current = ProcessedOpinion(place=event.place, opinion=event.opinion)
    return sorted([*remaining, current], key=lambda each: each.place)[-MAX_PROCESSED:]


def _subject(event: OpinionGiven) -> str:
    """Return the key of the record or the signals that an opinion is about."""
    return json.dumps([event.collaboration, event.record_key, [[s.type, s.value] for s in event.signals]])


def _joined_exchange(sender: OpinionSender, collaboration: Collaboration) -> tuple[Joined, Mapping[str, str]]:
    """Return a collaboration's exchange, joined with the collaboration's configuration, and the exchange's credentials.

    Raises:
        InvalidInput: There is no such exchange, or it needs credentials and none are set.
    """
    exchange = sender.exchanges.get(collaboration.api)
    if exchange is None:
        raise InvalidInput(f"No such exchange type '{collaboration.api}'")
    joined = exchange.joined(collaboration.config)
    credentials = sender.secrets.credentials(exchange.kind)
    if credentials is None:
        if exchange.credential_fields is not None:
            raise InvalidInput(f"{exchange.kind} needs credentials, and none are set")
        credentials = {}
    return joined, credentials


def _record_data(sender: OpinionSender, event: OpinionGiven, record_key: str) -> Mapping[str, JSON]:
    """Return the record that an opinion is about, as the exchange sent it.

    Raises:
        NotFound: The collaboration no longer has the record.
    """
    record = sender.collaborations.records(event.collaboration, [record_key]).get(record_key)
    if record is None:
        raise NotFound(f"collaboration {event.collaboration!r} no longer has this record")
    return record.data
