"""The curate stage's other part: what curators think of contents is told to the exchanges that these came from.

It takes two steps, as exchanges fail: `publish_opinions` checks, numbers and publishes opinions, and `send_opinion` sends
one, tried again by whoever calls until it returns. Opinions come twice, and in any order, so each is told in a turn
of its subject, and what was told is remembered: an older one is dropped, or the newer one is told again after it.
Nothing is sent for a collaboration that does not write back.
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
"""The most tags of an opinion that is told to an exchange: more than curators give, and no burden to any store."""

MAX_TAG_LENGTH = 100
"""The longest tag of such an opinion, in characters."""

MAX_PROCESSED = 32
"""How many opinions of one subject are remembered, the newest: two of each signal type, far more than there are."""

MAX_ANSWER_BYTES = 1024 * 1024
"""The most that is read of an exchange's answer to an opinion: its status is what counts."""

OPINION_LEASE_S = 15 * 60
"""How long the turn of whoever died lasts: some hundred requests, and longer than the function lives (5 minutes)."""

LONGEST_REQUEST_S = 90
"""What has to be left of a turn for one more request: no transport takes longer, so none is under way when it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpinionSender:
    """What it takes to say what an exchange would be sent, and to know what it was sent; `caller` is who sends it."""

    exchanges: Mapping[str, Exchange]
    collaborations: CollaborationStore
    secrets: SecretStore
    opinions: OpinionLedger
    caller: Caller

    @classmethod
    def of(cls, ports: Ports, *, exchanges: Mapping[str, Exchange], caller: Caller) -> Self:
        """Return what it takes, of these ports."""
        return cls(
            exchanges=exchanges,
            collaborations=ports.collaborations,
            secrets=ports.secrets,
            opinions=ports.opinions,
            caller=caller,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpinionReport:
    """What came of an opinion that was to be told.

    `outcome` is `told`, `repeated` (it was dealt with before), `superseded` (a newer one was), `off` (its
    collaboration is gone, or writes back no more) or `refused` for good: by the exchange, or as nothing can be sent of
    it; `why` says so in words.
    """

    collaboration: str
    outcome: Literal["told", "repeated", "superseded", "off", "refused"]
    why: str = ""
    requests: tuple[Request, ...] = ()


def shared_opinion(
    verdict: str, *, tags: Sequence[str] = (), signal_type: str | None = None, reason: str | None = None
) -> SharedOpinion:
    """Return an opinion as a curator states it; each tag counts once.

    Raises:
        InvalidInput: There is no such verdict; or a tag is empty, too long, has a comma, or is one too many; or what
            is withdrawn is to say more.
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
    if verdict == Verdict.WITHDRAWN and (distinct or signal_type is not None or reason is not None):
        raise InvalidInput("an opinion is withdrawn whole: without tags, a signal type or a reason")
    return SharedOpinion(verdict=Verdict(verdict), tags=distinct, signal_type=signal_type, reason=reason)


def opinions_of_content(
    curator: Curator, bank_name: str, content_id: int, opinion: SharedOpinion
) -> list[OpinionGiven]:
    """Return an opinion of a content as it is told: of its exchange's record, or of each of the content's own signals.

    What was banked here, in the bank of a collaboration, is new to the exchange. They have no place yet.

    Raises:
        NotFound: There is no such bank, or no such content in it.
        InvalidInput: There is no exchange to tell.
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
    raise InvalidInput(f"bank {bank.name!r} is no collaboration's: there is no exchange to tell")


def opinion_event(
    opinion: SharedOpinion,
    *,
    collaboration: str,
    record_key: str | None = None,
    signals: tuple[Signal, ...] = (),
    now_s: int,
) -> OpinionGiven:
    """Return an opinion of a record, or of a new signal, which has no place yet."""
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


def with_place(given: OpinionGiven, place: int) -> OpinionGiven:
    """Return an opinion at its place among all that were given: the same one, given again, is another event."""
    return replace(given, id=event_id(given.id, str(place)), place=place)


def opinion_requests(sender: OpinionSender, given: OpinionGiven, *, now_s: int) -> list[Request]:
    """Return the requests that tell an exchange of an opinion, in order; none are sent. This is the dry run.

    Raises:
        NotFound: There is no such collaboration, or it has no such record any more.
        InvalidInput: The exchange takes no such opinion or signal, or there are no credentials that can work.
    """
    told = [each.opinion for each in sender.opinions.processed(_subject(given))]
    return _requests(sender, replace(given, opinion=_after(told, given.opinion)), now_s=now_s)


def _requests(sender: OpinionSender, given: OpinionGiven, *, now_s: int) -> list[Request]:
    collaboration = sender.collaborations.collaboration(given.collaboration)
    joined, credentials = _addressed(sender, collaboration)
    if given.record_key is not None:
        if given.opinion.verdict is Verdict.WITHDRAWN:
            if not isinstance(joined, TakesWithdrawals):
                raise InvalidInput(f"{collaboration.api} lets no opinion be withdrawn")
            data = _record_data(sender, given, given.record_key)
            return list(joined.withdrawal_requests(data, given.opinion, credentials=credentials))
        if not isinstance(joined, TakesOpinions):
            raise InvalidInput(f"{collaboration.api} takes no opinions")
        data = _record_data(sender, given, given.record_key)
        return list(joined.opinion_requests(data, given.opinion, credentials=credentials))
    if given.opinion.verdict is Verdict.WITHDRAWN:
        raise InvalidInput("what was not fetched yet cannot be withdrawn: fetch, and try again")
    if not isinstance(joined, TakesSignals):
        raise InvalidInput(f"{collaboration.api} takes no new signals")
    return [
        request
        for signal in given.signals
        for request in joined.signal_requests(signal, given.opinion, credentials=credentials, now_s=now_s)
    ]


def accepted_opinions(
    sender: OpinionSender, given: Sequence[OpinionGiven], *, now_s: int
) -> list[tuple[OpinionGiven, list[Request]]]:
    """Return those opinions that their exchange takes, each with the requests that tell it: one at least.

    Raises:
        NotFound, InvalidInput: It takes none; as in `opinion_requests`.
    """
    taken = []
    refusal = InvalidInput("there is no signal to share")
    for each in given:
        try:
            taken.append((each, opinion_requests(sender, each, now_s=now_s)))
        except InvalidInput as error:
            refusal = error
    if not taken:
        raise refusal
    return taken


def publish_opinions(curator: Curator, sender: OpinionSender, given: Sequence[OpinionGiven]) -> list[Request]:
    """Have exchanges told of opinions, soon; returns the requests that do. Those that they don't take are left out.

    Raises:
        Conflict: A collaboration does not write back.
        NotFound, InvalidInput: None can be told, as in `accepted_opinions`.
        Unavailable: Nobody could be asked to tell them.
    """
    for name in dict.fromkeys(each.collaboration for each in given):
        check_writes_back(sender.collaborations.collaboration(name))
    taken = accepted_opinions(sender, given, now_s=curator.now_s)
    place = sender.opinions.allot_place()
    curator.publisher.publish([with_place(each, place) for each, _ in taken])
    return [request for _, requests in taken for request in requests]


def check_writes_back(collaboration: Collaboration) -> None:
    """Check that a collaboration may send anything.

    Raises:
        Conflict: It may not.
    """
    if not collaboration.writes_back:
        raise Conflict(f"collaboration {collaboration.name!r} does not write back: that is off until it is turned on")


def opinion_reasons(sender: OpinionSender, collaboration_name: str, signal_type: str) -> Mapping[str, str]:
    """Return what the reasons say, by their ids, that an exchange takes with a false positive of a signal type.

    Raises:
        NotFound: There is no such collaboration.
        InvalidInput: The exchange asks for no reasons, or has no such signals, or there are no credentials.
        ExchangeFailed: It could not be asked.
    """
    collaboration = sender.collaborations.collaboration(collaboration_name)
    joined, credentials = _addressed(sender, collaboration)
    if not isinstance(joined, OffersReasons):
        raise InvalidInput(f"{collaboration.api} asks for no reasons")
    return joined.feedback_reasons(signal_type, credentials=credentials)


def send_opinion(
    sender: OpinionSender, transport: Transport, given: OpinionGiven, *, holder: str, clock: Callable[[], int]
) -> OpinionReport:
    """Send what tells an exchange of an opinion, unless it or a newer one was dealt with; the report says what came.

    Newer ones that leave something of it, as of another signal type, are told again after it: whatever the order in
    which opinions come, the exchange ends with what it would have had in the order in which they were given. `holder`
    names this run for its turn, and `clock` returns epoch seconds.

    Raises:
        ExchangeFailed: It could not be reached, or has too much to do: the same opinion is to be told again.
        LeaseHeld: Another run is telling one of the same subject: this is to be told again.
        LeaseLost: Its turn was over before this was remembered: this is to be told again.
    """
    subject = _subject(given)
    ends_at_s = clock() + OPINION_LEASE_S
    told = sender.opinions.acquire_lease(
        subject, holder=holder, now_s=ends_at_s - OPINION_LEASE_S, lease_s=OPINION_LEASE_S
    )
    is_dealt_with = False
    try:
        report = _passed_over(given, told)
        if report is None:
            report = _sent(sender, transport, given, told, clock=clock, ends_at_s=ends_at_s)
            is_dealt_with = True
    finally:
        if not is_dealt_with:
            sender.opinions.release_lease(subject, holder=holder)
    if is_dealt_with:
        sender.opinions.record_processed(subject, _remembered(given, told), holder=holder, now_s=clock())
    return report


def _passed_over(given: OpinionGiven, told: Sequence[ProcessedOpinion]) -> OpinionReport | None:
    """Return the report of an opinion of which nothing is to be told any more; None where something is."""
    name = given.collaboration
    if ProcessedOpinion(place=given.place, opinion=given.opinion) in told:
        return OpinionReport(collaboration=name, outcome="repeated", why="it was dealt with before")
    if any(each.opinion.supersedes(given.opinion) for each in _newer(given, told)):
        return OpinionReport(collaboration=name, outcome="superseded", why="a newer opinion of the same was dealt with")
    return None


def _sent(
    sender: OpinionSender,
    transport: Transport,
    given: OpinionGiven,
    told: Sequence[ProcessedOpinion],
    *,
    clock: Callable[[], int],
    ends_at_s: int,
) -> OpinionReport:
    name = given.collaboration
    requests: list[Request] = []
    try:
        check_writes_back(sender.collaborations.collaboration(name))
        before = [each.opinion for each in told]
        for opinion in (given.opinion, *(each.opinion for each in _newer(given, told))):
            requests += _requests(sender, replace(given, opinion=_after(before, opinion)), now_s=clock())
            before.append(opinion)
    except (Conflict, NotFound) as error:
        return OpinionReport(collaboration=name, outcome="off", why=str(error))
    except InvalidInput as error:
        return OpinionReport(collaboration=name, outcome="refused", why=str(error))
    for request in requests:
        if clock() > ends_at_s - LONGEST_REQUEST_S:
            raise ExchangeFailed("telling an opinion took longer than its turn lasts")
        status = transport.send(request, max_bytes=MAX_ANSWER_BYTES).status
        is_gone = request.method == "DELETE" and status == 404
        if not (200 <= status < 300 or is_gone):
            hint = ": it does not take the credentials" if status in {401, 403} else ""
            why = f"the exchange answered with status {status}{hint}"
            return OpinionReport(collaboration=name, outcome="refused", why=why, requests=tuple(requests))
    return OpinionReport(collaboration=name, outcome="told", requests=tuple(requests))


def _after(told: Sequence[SharedOpinion], opinion: SharedOpinion) -> SharedOpinion:
    """Return an opinion as it is told after others: to have seen something and to judge it stand beside each other."""
    judged = [each.verdict for each in told if each.verdict is not Verdict.SEEN]
    return replace(opinion, replaces=judged[-1] if judged else None)


def _newer(given: OpinionGiven, told: Sequence[ProcessedOpinion]) -> list[ProcessedOpinion]:
    """Return the opinions of the same subject that were given after this one, oldest first."""
    return sorted((each for each in told if each.place > given.place), key=lambda each: each.place)


def _remembered(given: OpinionGiven, told: Sequence[ProcessedOpinion]) -> list[ProcessedOpinion]:
    """Return what is remembered of a subject: each opinion of which no newer one leaves nothing."""
    left = [each for each in told if each.place > given.place or not given.opinion.supersedes(each.opinion)]
    mine = ProcessedOpinion(place=given.place, opinion=given.opinion)
    return sorted([*left, mine], key=lambda each: each.place)[-MAX_PROCESSED:]


def _subject(given: OpinionGiven) -> str:
    """Return what an exchange holds the opinion of."""
    return json.dumps([given.collaboration, given.record_key, [[s.type, s.value] for s in given.signals]])


def _addressed(sender: OpinionSender, collaboration: Collaboration) -> tuple[Joined, Mapping[str, str]]:
    """Return the exchange of a collaboration with its configuration, and the credentials that it is asked with.

    Raises:
        InvalidInput: There is no such exchange, or it needs credentials and has none.
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


def _record_data(sender: OpinionSender, given: OpinionGiven, record_key: str) -> Mapping[str, JSON]:
    """Return the record that an opinion is of, as the exchange sent it.

    Raises:
        NotFound: It is there no more.
    """
    record = sender.collaborations.records(given.collaboration, [record_key]).get(record_key)
    if record is None:
        raise NotFound(f"collaboration {given.collaboration!r} has no such record any more")
    return record.data
