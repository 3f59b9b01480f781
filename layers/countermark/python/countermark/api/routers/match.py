"""Routes that match signals or content against the banks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from countermark.api import content, wire
from countermark.api.binding import Body, Query
from countermark.api.call import Call
from countermark.api.index_status import index_size
from countermark.api.messages import Answer
from countermark.api.routers import COVERAGE, Router, answers
from countermark.api.schemas import BatchQuery, ByBank, IndexStatus, Message, Object, RawMatches
from countermark.domain.decision import Candidate, Lookup, MatchRequest, Policy, Source
from countermark.domain.json import JSON
from countermark.domain.pages import in_pages
from countermark.domain.signal import IndexKind, Signal
from countermark.domain.stores import MAX_PAGE
from countermark.errors import IndexNotReady, InvalidInput, InvalidSignal
from countermark.flows import match as flow
from countermark.flows.hash import HashReport

router = Router("Match")

SignalType_ = Annotated[str | None, Query(description="The signal's type.", examples=["pdq"])]
Banks = Annotated[str | None, Query(description="The banks to search, separated by commas; by default all.")]
ContentId = Annotated[
    str | None, Query(description="The platform's id of the content. It decides which banks with a ratio match.")
]
Seed = Annotated[str | None, Query(description="The former name of content_id.")]
Bypass = Annotated[bool, Query(description="Match every bank whose ratio is above 0.")]
Include = Annotated[str | None, Query(description='"detail" adds the details of each match.')]
Types = Annotated[
    str | None, Query(description="The signal types to use, separated by commas; by default all that are enabled.")
]

Rotations = Annotated[
    bool, Query(description="Also look up the photo rotated and mirrored. Each match has the rotation that matches.")
]

_BY_BANK_OR_TYPE = answers(
    ByBank | dict[str, ByBank],
    "The matches by bank, or by signal type and bank; {} for none. If nothing matches and a signal type could not hash "
    "the content, the answer is 400 or 413, unless the only reason is low quality.",
    headers=COVERAGE,
) | answers(
    Message,
    "The request is invalid, or nothing matched and the content was not examined in full. The message names the "
    "invalid value, or the signal type and the reason.",
    status=400,
    headers=COVERAGE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LookupOptions:
    """The options of a request. They apply to all lookups of the request."""

    request: MatchRequest
    wants_detail: bool


@router.get("/m/lookup", summary="Look up a signal, or the content at a URL", responses=_BY_BANK_OR_TYPE)
def lookup(
    call: Call,
    *,
    signal: Annotated[str | None, Query(description="The signal.")] = None,
    signal_type: SignalType_ = None,
    url: Annotated[str | None, Query(description="The URL of the content, instead of a signal.")] = None,
    content_type: Annotated[
        str | None, Query(description="The content type of the content.", examples=["photo"])
    ] = None,
    types: Types = None,
    banks: Banks = None,
    content_id: ContentId = None,
    seed: Seed = None,
    bypass_coinflip: Bypass = False,
    include: Include = None,
    rotations: Rotations = False,
) -> Answer:
    """Return the matches of a signal by bank, or the matches of the content at a URL by signal type."""
    source: Source = "url" if url else "lookup"
    options = _lookup_options(
        call, source, banks=banks, content_id=content_id or seed, bypass=bypass_coinflip, include=include
    )
    if url:
        content.check_may_hash(call)
        wanted = _requested_type(types, signal_type) if signal_type else types
        report = content.hash_url(call, url, content_type=content_type, types=wanted, with_variants=rotations)
        return _answer_to_content(call, report, options, signal_type=signal_type or None)
    if not signal or not signal_type:
        raise InvalidInput("Either url or both signal and signal_type are required")
    matcher = _matcher(call)
    [found] = matcher.match(options.request, [_query(call, signal_type, signal)])
    return wire.json_answer(_by_bank(call, found, options))


@router.post("/m/lookup", summary="Look up an upload", responses=_BY_BANK_OR_TYPE)
def lookup_upload(
    call: Call,
    *,
    types: Types = None,
    banks: Banks = None,
    content_id: ContentId = None,
    seed: Seed = None,
    bypass_coinflip: Bypass = False,
    include: Include = None,
    rotations: Rotations = False,
) -> Answer:
    """Return the matches of the only file of a form, by signal type and bank."""
    content.check_may_hash(call)
    options = _lookup_options(
        call, "lookup", banks=banks, content_id=content_id or seed, bypass=bypass_coinflip, include=include
    )
    report = content.hash_upload(call, call.parts(), types=types, with_variants=rotations)
    return _answer_to_content(call, report, options)


@router.post(
    "/m/lookup/batch",
    summary="Look up many signals",
    responses=answers(list[Object], "For each signal, in order, the matches by bank or an error message."),
)
def lookup_batch(call: Call, query: Annotated[BatchQuery, Body()]) -> Answer:
    """Return the matches of many signals of one type, in order. An invalid signal only affects its own entry."""
    limit = call.services.limits.batch_signals
    if len(query.signals) > limit:
        raise InvalidInput(f"a batch can have at most {limit} signals, not {len(query.signals)}")
    banks = ",".join(query.banks) if isinstance(query.banks, list) else query.banks
    options = _lookup_options(
        call,
        "batch",
        banks=banks,
        content_id=query.content_id or query.seed,
        bypass=query.bypass_coinflip,
        include=query.include,
    )
    _check_enabled(call, query.signal_type)
    matcher = _matcher(call)
    signals: list[Signal] = []
    refused: dict[int, JSON] = {}
    for place, text in enumerate(query.signals):
        try:
            signals.append(_query(call, query.signal_type, text))
        except InvalidInput as error:
            refused[place] = {"message": str(error)}
    found = (_by_bank(call, each, options) for each in matcher.match(options.request, signals))
    return wire.json_answer(
        [refused[place] if place in refused else next(found) for place in range(len(query.signals))]
    )


@router.get(
    "/m/raw_lookup",
    summary="Look up a signal in the index only",
    responses=answers(RawMatches, "The contents near the signal in the index, including disabled ones."),
)
def raw_lookup(
    call: Call,
    *,
    signal: Annotated[str, Query(description="The signal.")],
    signal_type: Annotated[str, Query(description="The signal's type.", examples=["pdq"])],
    banks: Banks = None,
    include_distance: Annotated[bool, Query(description="Include distances.")] = False,
) -> Answer:
    """Return the ids of the contents in the index that are near a signal.

    The result includes disabled contents, and enabled ratios have no effect.
    """
    query = _query(call, signal_type, signal)
    candidates = flow.raw_lookup(_matcher(call).index, query)
    only = wire.names(banks)
    if only is not None:
        candidates = _in_banks(call, candidates, frozenset(only))
    if not include_distance:
        return wire.json_answer({"matches": [candidate.content_id for candidate in candidates]})
    banked = _banked_signals(call, query, candidates)
    matches = [
        {
            "bank_content_id": candidate.content_id,
            "distance": _distance(call, query, banked.get(candidate.content_id, query.value), candidate.distance),
        }
        for candidate in candidates
    ]
    return wire.json_answer({"matches": matches})


@router.post(
    "/m/compare",
    summary="Compare two signals of each type",
    responses=answers(dict[str, list[Any]], "For each type, whether they match, and the distance."),
)
def compare(call: Call, pairs: Annotated[Object, Body()]) -> Answer:
    """Return for each signal type whether the two signals match, and the distance between them."""
    compared: dict[str, JSON] = {}
    for name, pair in pairs.items():
        if not isinstance(pair, list) or len(pair) != 2:
            raise InvalidInput(f"{name} needs a list of two signals")
        first, second = (_parsed(call, name, text) for text in pair)
        comparison = call.services.signal_types[name].compare(first.value, second.value)
        distance = "-" if comparison.distance is None else comparison.distance
        compared[name] = [comparison.matches, {"distance": distance}]
    return wire.json_answer(compared)


@router.get(
    "/m/index/status",
    summary="Show the status of the index",
    responses=answers(dict[str, IndexStatus], "The index of each signal type."),
)
def index_status(call: Call, signal_type: SignalType_ = None) -> Answer:
    """Return for each signal type whether it has an index, when it was built, and its size."""
    names = sorted(call.services.signal_types)
    if signal_type is not None:
        if signal_type not in call.services.signal_types:
            raise InvalidInput(f"No such signal type '{signal_type}'")
        names = [signal_type]
    try:
        types = _matcher(call).index.manifest.types
    except IndexNotReady:
        types = {}
    return wire.json_answer(
        {
            name: {"present": True, "built_to": types[name].built_at_s, "size": index_size(types[name])}
            if name in types
            else {"present": False, "built_to": -1, "size": 0}
            for name in names
        }
    )


def _lookup_options(
    call: Call, source: Source, *, banks: str | None, content_id: str | None, bypass: bool, include: str | None
) -> _LookupOptions:
    named = wire.names(banks)
    policy = Policy(
        banks=None if named is None else frozenset(named), content_id=content_id or None, bypass_coin=bypass
    )
    return _LookupOptions(
        request=MatchRequest(caller=call.caller, at_s=call.now_s, source=source, policy=policy),
        wants_detail="detail" in (wire.names(include) or []),
    )


def _requested_type(types: str | None, signal_type: str) -> str:
    """Return the signal type, after checking that it is one of the `types` in the same request.

    Raises:
        InvalidInput: The signal type is not one of the `types`.
    """
    named = wire.names(types)
    if named is not None and signal_type not in named:
        raise InvalidInput(f"signal_type '{signal_type}' is not one of the types '{types}'")
    return signal_type


def _matcher(call: Call) -> flow.Matcher:
    """Return a matcher over the current index.

    Raises:
        IndexNotReady: No index has been published yet, or this Lambda function does not use the index.
    """
    services = call.services
    if services.index is None:
        raise IndexNotReady("this function has no index")
    return flow.Matcher.of(services.ports, services.index.current(call.now_s), directory=services.directory)


def _query(call: Call, type_name: str, text: object) -> Signal:
    """Return the query signal of a request, after checking that its type is enabled."""
    _check_enabled(call, type_name)
    return _parsed(call, type_name, text)


def _check_enabled(call: Call, type_name: str) -> None:
    if type_name not in call.services.signal_types:
        raise InvalidInput(f"No such SignalType '{type_name}'")
    if call.services.directory.ratios.current(call.now_s).get(type_name, 1.0) <= 0.0:
        raise InvalidInput(f"SignalType '{type_name}' is not enabled")


def _parsed(call: Call, type_name: str, text: object) -> Signal:
    if not isinstance(text, str):
        raise InvalidInput(f"invalid signal: a signal must be text, not {text!r}")
    try:
        return flow.parse_query(call.services.signal_types, type_name, text)
    except InvalidSignal as error:
        raise InvalidInput(f"invalid signal: {error}") from error


def _answer_to_content(
    call: Call, report: HashReport, options: _LookupOptions, *, signal_type: str | None = None
) -> Answer:
    """Return the matches of hashed content and its parts by signal type.

    With `signal_type`, return only the matches of this type. A type that could not hash the content has no matches. If
    nothing matches and the content was not examined in full, the answer is an error, because an answer without matches
    could be wrong.
    """
    matcher = _matcher(call)
    found: dict[str, dict[str, list[JSON]]] = {
        name: {} for _, each in report.walk() for name in content.unhashable(each)
    }
    queries: dict[tuple[str | None, Signal], None] = {}
    for _, each in report.walk():
        queries |= dict.fromkeys((None, signal) for signal in each.signals + each.queries)
        queries |= dict.fromkeys(each.variant_signals)
    looked_up = matcher.match(options.request, [signal for _, signal in queries], partial=report.partial_signals())
    for (rotation, signal), result in zip(queries, looked_up, strict=True):
        by_bank = found.setdefault(signal.type, {})
        for bank, matches in _by_bank(call, result, options, rotation=rotation).items():
            existing = by_bank.setdefault(bank, [])
            existing += (match for match in matches if match not in existing)
    headers = content.coverage_headers(report, looked_up)
    if not any(found.values()):
        error = content.refusal(report, report.not_examined(with_queries=True))
        if error is not None:
            return wire.message(str(error), status=error.http_status, headers=headers)
    return wire.json_answer(found if signal_type is None else found.get(signal_type, {}), headers=headers)


def _by_bank(
    call: Call, looked_up: Lookup, options: _LookupOptions, *, rotation: str | None = None
) -> dict[str, list[JSON]]:
    """Return matches by bank. If `rotation` is not None, it is added to each match."""
    signal = looked_up.signal
    by_bank: dict[str, list[JSON]] = {}
    for match in looked_up.matches:
        banked = match.content.signals.get(signal.type, signal.value)
        view: dict[str, JSON] = {
            "bank_content_id": match.content.id,
            "distance": _distance(call, signal, banked, match.distance),
        }
        if rotation is not None:
            view["rotation"] = rotation
        if options.wants_detail:
            view["detail"] = flow.detail(looked_up, match)
        by_bank.setdefault(match.bank.name, []).append(view)
    return by_bank


def _distance(call: Call, query: Signal, banked: str, distance: int | None) -> str:
    return call.services.signal_types[query.type].wire_distance(query.value, banked, distance)


def _in_banks(call: Call, candidates: Sequence[Candidate], names: frozenset[str]) -> list[Candidate]:
    """Return the candidates whose contents are in one of the named banks now."""
    ids = {bank.id for bank in call.services.ports.banks.banks() if bank.name in names}
    found = []
    for page in in_pages(candidates, MAX_PAGE):
        contents = call.services.ports.banks.contents(candidate.content_id for candidate in page)
        found += [c for c in page if c.content_id in contents and contents[c.content_id].bank_id in ids]
    return found


def _banked_signals(call: Call, query: Signal, candidates: Sequence[Candidate]) -> dict[int, str]:
    """Return the banked signals by content id.

    The result is empty for types for which the shown distance does not depend on the banked signals.
    """
    if call.services.signal_types[query.type].index_kind in {IndexKind.HAMMING, IndexKind.EXACT}:
        return {}
    return {
        content_id: banked.signals[query.type]
        for page in in_pages(candidates, MAX_PAGE)
        for content_id, banked in call.services.ports.banks.contents(c.content_id for c in page).items()
        if query.type in banked.signals
    }
