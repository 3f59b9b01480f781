"""Meta's ThreatExchange: signals that the members of a privacy group share, with the members' opinions.

Operator: Meta, for vetted platforms. Documentation:
https://developers.facebook.com/docs/threat-exchange/reference/apis/threat-updates/ and the related pages. Credentials:
the access token of an app, `<app id>|<secret>`.

An *indicator* is a signal. A *descriptor* is the statement of one member about an indicator. `threat_updates` returns
the indicators that changed since a given time, the oldest change first. Each indicator contains all its descriptors.
One page of Meta's documentation states that deletions are kept for 90 days, and another page states 30 days. If the
last fetch is older than 29 days, the next fetch restarts.

Indicators of all types are requested, and indicators whose type has no signal type are discarded here. The request does
not use the parameter `types`, because it accepts only names that are on Meta's list of indicator types, and because no
other client sends it.

Limits: 100 indicators per page, or fewer if the exchange asks for less data; 32 MiB per page; 100 pages of privacy
groups. A fetch resumes from the latest `last_updated` that it received, so a page with an earlier time is an error.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from countermark.domain.exchange import CredentialSource, Delta, Fetch, Field, Membership
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion, SharedOpinion, Verdict
from countermark.domain.signal import Signal
from countermark.domain.transport import Request, Transport
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges.config import parse_fields, parse_one_line, required_credentials
from countermark.exchanges.graph_api import (
    GRAPH_VERSION,
    GraphClient,
    TooMuchData,
    next_page_request,
    parse_edge_page,
    requests_smaller_page,
)
from countermark.exchanges.pages import EmptyPageCounter, host_of, is_storable, parse_body, went_back_error
from countermark.exchanges.verdicts import verdict_term

BASE_URL = f"https://graph.facebook.com/{GRAPH_VERSION}"

PAGE_SIZE = 100
"""The number of indicators per page. Each time the exchange asks for less data, the number is halved, down to 1."""

RAISE_AFTER_PAGES = 10
"""After this number of pages with a reduced size, the size is doubled, up to `PAGE_SIZE`."""

STALE_AFTER_S = 29 * 24 * 3600
"""The maximum age of the last fetch, in seconds. Meta documents two times for which it keeps deletions. This age is one
day less than the shorter time. Source: 30 days in https://developers.facebook.com/docs/threat-exchange/best-practices/,
and 90 days in https://developers.facebook.com/docs/threat-exchange/reference/apis/threat-updates/."""

MAX_GROUP_PAGES = 100
"""The maximum number of pages of privacy groups. No app is in so many groups, so more pages mean that the exchange is
in a loop."""

FIELDS = (
    "id,indicator,type,last_updated,should_delete,descriptors{reactions,my_reactions,owner{id},tags,status,added_on}"
)
"""The fields to request for each indicator. The exchange always includes the descriptors' ids."""

PHOTO_TAG = "media_type_photo"
VIDEO_TAG = "media_type_video"

TYPES: Mapping[str, Sequence[tuple[str, str | None]]] = {
    "HASH_PDQ": [("pdq", None)],
    "HASH_VIDEO_MD5": [("video_md5", None)],
    "HASH_MD5": [("video_md5", VIDEO_TAG), ("photo_md5", PHOTO_TAG)],
    "HASH_VIDEO_SHA256": [("video_sha256", None)],
    "HASH_SHA256": [("video_sha256", VIDEO_TAG), ("photo_sha256", PHOTO_TAG)],
    "TEXT_STRING": [("raw_text", None)],
    "URI": [("url", None)],
    "RAW_URI": [("url", None)],
    "HASH_URL_MD5": [("url_md5", None)],
    "TREND_QUERY": [("trend_query", None)],
}
"""The signal types of each indicator type. A signal type with a tag applies only if a member gave the indicator this
tag.

HASH_VIDEO_SHA256, RAW_URI and HASH_URL_MD5 are not on Meta's list of indicator types. They are supported because the
exchange can return them.
"""

SENT_TYPES: Mapping[str, tuple[str, str | None]] = {
    "pdq": ("HASH_PDQ", None),
    "video_md5": ("HASH_VIDEO_MD5", None),
    "photo_md5": ("HASH_MD5", PHOTO_TAG),
    "video_sha256": ("HASH_SHA256", VIDEO_TAG),
    "photo_sha256": ("HASH_SHA256", PHOTO_TAG),
    "raw_text": ("TEXT_STRING", None),
    "url": ("URI", None),
    "trend_query": ("TREND_QUERY", None),
}
"""The indicator type and the tag to send for a signal of each type. The tag specifies whether the content is a photo or
a video.

All these indicator types are on Meta's list. The list has no indicator type for url_md5. Source:
https://developers.facebook.com/docs/threat-exchange/reference/apis/indicator-type.
"""

LISTED_TYPES = frozenset(indicator_type for indicator_type, _ in SENT_TYPES.values())
"""The indicator types that can be sent."""

STATUSES = {"MALICIOUS": Category.POSITIVE_CLASS, "NON_MALICIOUS": Category.NEGATIVE_CLASS}
"""The category for each status of a descriptor. Any other status is an INVESTIGATION_SEED."""

REACTIONS = {
    "HELPFUL": Category.POSITIVE_CLASS,
    "NON_MALICIOUS": Category.NEGATIVE_CLASS,
    "DISAGREE_WITH_TAGS": Category.NEGATIVE_CLASS,
}
"""The category for each reaction to another member's descriptor. Other reactions express no opinion of the signal."""

UPLOAD_REACTIONS = frozenset({"NON_MALICIOUS"})
"""The reactions that count like a descriptor with the status of the same name, even if the member has a descriptor with
another status. Source: https://developers.facebook.com/docs/threat-exchange/reference/reacting."""

SENT_REACTIONS = {
    Verdict.TRUE_POSITIVE: "HELPFUL",
    Verdict.FALSE_POSITIVE: "NON_MALICIOUS",
    Verdict.SEEN: "SAW_THIS_TOO",
}
"""The reaction to send for each verdict. A false positive is not sent as DISAGREE_WITH_TAGS, because Meta removes that
reaction when the owner edits the descriptor's tags."""

FORMERLY_SENT_REACTIONS = {Verdict.FALSE_POSITIVE: ("DISAGREE_WITH_TAGS",)}
"""The reactions that earlier versions of countermark sent for a verdict. They are removed together with the reaction
that is sent today."""

SENT_STATUSES = {
    Verdict.TRUE_POSITIVE: "MALICIOUS",
    Verdict.FALSE_POSITIVE: "NON_MALICIOUS",
    Verdict.SEEN: "UNKNOWN",
}

CONFIG_FIELDS = (Field(name="privacy_group", type="int", required=True, help="the id of the privacy group"),)

CREDENTIAL_FIELDS = (
    Field(name="api_token", type="str", required=True, help="the access token of your app: <app id>|<secret>"),
)

CREDENTIAL_SOURCE = CredentialSource(
    environment_variable="TX_ACCESS_TOKEN", dot_file=".txtoken", form="<app id>|<secret>"
)

_TOKEN = re.compile(r"[0-9]{8,}\|[A-Za-z0-9_-]{20,}")
"""The format of a token. Source: the check in python-threatexchange."""

_LIMIT = re.compile(r"([?&]limit=)[0-9]+")
"""The page size in a page's URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The change of one indicator.

    `at_s` is the time of the change, in epoch seconds. `data` is the indicator's record. It is None if the indicator
    was deleted, or has no signal or no opinion.
    """

    key: str
    at_s: int
    data: Mapping[str, JSON] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A parsed page. `next` is the URL of the next page; None on the last page."""

    updates: tuple[Update, ...]
    malformed_items: int
    next: str | None


def parse_page(body: Mapping[str, JSON], *, app_id: str) -> Page:
    """Return a parsed page of `threat_updates`. Malformed items are counted and left out.

    Raises:
        ValueError: The body is not a page.
    """
    items, url = parse_edge_page(body)
    updates = [_parse_item(item, app_id) for item in items]
    valid = tuple(update for update in updates if update is not None)
    return Page(updates=valid, malformed_items=len(updates) - len(valid), next=url)


def signals_of(data: Mapping[str, JSON]) -> list[Signal]:
    """Return the signals of a record, according to its type and the members' tags."""
    tags = {tag for descriptor in _descriptors(data) for tag in _tags(descriptor)}
    return [
        Signal(type=name, value=str(data["indicator"]))
        for name, tag in TYPES.get(str(data["type"]), ())
        if tag is None or tag in tags
    ]


def opinions_of(data: Mapping[str, JSON]) -> list[Opinion]:
    """Return one opinion per descriptor with an owner, and one opinion per member that only reacted.

    If a member reacted with HELPFUL to one descriptor and with a negative reaction to another, only the negative
    reaction counts. The reactions in `UPLOAD_REACTIONS` also count if the member has a descriptor.
    """
    descriptors = [each for each in _descriptors(data) if _owner_id(each) is not None]
    owners = {_owner_id(descriptor) for descriptor in descriptors}
    category_by_member: dict[str, Category] = {}
    for descriptor in descriptors:
        for key, members in _reactions(descriptor):
            category = REACTIONS.get(key)
            for member in members:
                if category is not None and (key in UPLOAD_REACTIONS or member not in owners):
                    category_by_member[member] = min(category, category_by_member.get(member, category))
    my_app_id = str(data["app_id"])
    descriptor_opinions = [
        Opinion(
            category=STATUSES.get(str(descriptor.get("status")), Category.INVESTIGATION_SEED),
            tags=frozenset(_tags(descriptor)),
            is_mine=_owner_id(descriptor) == my_app_id,
        )
        for descriptor in descriptors
    ]
    return descriptor_opinions + [
        Opinion(category=category, is_mine=member == my_app_id) for member, category in category_by_member.items()
    ]


class FbThreatExchange:
    """Yields the updates of a privacy group, one page per delta.

    Only tests pass `base_url`, and only `joined` passes `config`.
    """

    kind = "fb_threatexchange"
    config_fields: Sequence[Field] = CONFIG_FIELDS
    credential_fields: Sequence[Field] | None = CREDENTIAL_FIELDS
    credential_source: CredentialSource | None = CREDENTIAL_SOURCE

    def __init__(
        self, transport: Transport, *, base_url: str = BASE_URL, config: Mapping[str, JSON] | None = None
    ) -> None:
        self._transport = transport
        self._base_url = base_url
        self._config = config or {}

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the checked configuration.

        Raises:
            InvalidInput: The privacy group is missing or not a number, or a field is unknown.
        """
        return parse_fields(self.kind, self.config_fields, config)

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Return the token in a line. The line can contain `%7C` instead of `|`.

        Raises:
            InvalidInput: The line is not a token. The error does not show the line.
        """
        credentials = parse_one_line(self.kind, CREDENTIAL_SOURCE.form, CREDENTIAL_FIELDS, [text])
        return {"api_token": self._token(credentials)}

    def check_credentials(self, credentials: Mapping[str, str]) -> None:
        """Check the format of the token.

        Raises:
            InvalidInput: The token is missing or malformed. The error does not show the token.
        """
        self._token(credentials)

    def joined(self, config: Mapping[str, JSON]) -> "FbThreatExchange":
        """Check a configuration, and return this exchange with it.

        Raises:
            InvalidInput: A field is missing, unknown or invalid.
        """
        return FbThreatExchange(self._transport, base_url=self._base_url, config=self.parse_config(config))

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch of the changes up to now.

        The fetch restarts if the last fetch is too old, or was for another privacy group or another app. The app
        matters because each record contains the app's id, which determines the opinions that are the platform's own.

        Raises:
            InvalidInput: The credentials are missing or malformed.
            ExchangeFailed: During iteration of the deltas: the exchange refused a request, sent an answer that is not
                in the expected format, or returned an earlier position than before.
        """
        graph = self._graph(credentials)
        scope: Mapping[str, JSON] = {"privacy_group": self._config["privacy_group"], "app_id": graph.app_id}
        is_fresh = (
            checkpoint is not None
            # Checkpoints of earlier versions do not contain the app id.
            and all(checkpoint.get(name, value) == value for name, value in scope.items())
            and now_s - _integer(checkpoint["last_fetch_time"]) <= STALE_AFTER_S
        )
        update_time = _integer(checkpoint["update_time"]) if is_fresh and checkpoint is not None else 0
        return Fetch(restarts=not is_fresh, deltas=_deltas(graph, scope, update_time, now_s))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signals of an indicator."""
        return signals_of(data)

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return the members' opinions of an indicator."""
        return opinions_of(data)

    def opinion_requests(
        self,
        data: Mapping[str, JSON],
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
    ) -> Sequence[Request]:
        """Return requests that react to each descriptor of another member, and remove opposite earlier reactions.

        If the platform has a descriptor of the indicator, another request updates its status and tags. For the verdict
        SEEN, this descriptor is not updated.

        Raises:
            InvalidInput: The indicator has no descriptor to react to or to update, the verdict has no reaction, the
                indicator type is not on Meta's list, or the credentials are malformed.
        """
        graph = self._graph(credentials)
        reaction = verdict_term(self.kind, SENT_REACTIONS, opinion.verdict)
        requests: list[Request] = []
        has_own_descriptor = False
        for descriptor in _descriptors(data):
            descriptor_id = _descriptor_id(descriptor)
            if _owner_id(descriptor) == graph.app_id:
                has_own_descriptor = True
            elif _owner_id(descriptor) is not None and descriptor_id is not None:
                own_reactions = _own_reactions(descriptor, opinion, graph.app_id) if reaction in REACTIONS else []
                opposite = [each for each in own_reactions if REACTIONS[each] is not REACTIONS[reaction]]
                changes = [*(("reactions_to_remove", each) for each in opposite), ("reactions", reaction)]
                requests.extend(graph.post(descriptor_id, {name: value}) for name, value in changes)
        if has_own_descriptor and opinion.verdict is not Verdict.SEEN:
            requests.append(
                _descriptor_request(graph, self._config, str(data["type"]), str(data["indicator"]), opinion)
            )
        if not requests:
            raise InvalidInput("fb_threatexchange has no descriptor of another member to react to")
        return requests

    def signal_requests(
        self,
        signal: Signal,
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
        now_s: int,
    ) -> Sequence[Request]:
        """Return the request that shares a signal with the privacy group.

        A member has at most one descriptor per indicator. If the platform has a descriptor already, it is updated.

        Raises:
            InvalidInput: The exchange has no indicator type for the signal or no status for the verdict, or the
                credentials are malformed.
        """
        if signal.type not in SENT_TYPES:
            raise InvalidInput(
                f"fb_threatexchange accepts no signals of type {signal.type!r}: Meta's list of indicator types has "
                "none for it"
            )
        indicator_type, tag = SENT_TYPES[signal.type]
        tags = tuple(dict.fromkeys([*opinion.tags, *([tag] if tag else [])]))
        tagged = SharedOpinion(verdict=opinion.verdict, tags=tags)
        return [_descriptor_request(self._graph(credentials), self._config, indicator_type, signal.value, tagged)]

    def withdrawal_requests(
        self, data: Mapping[str, JSON], opinion: SharedOpinion, *, credentials: Mapping[str, str]
    ) -> Sequence[Request]:
        """Return the requests that delete the platform's descriptors of an indicator and the platform's reactions.

        Raises:
            InvalidInput: The platform has no descriptor and no reaction, or the credentials are malformed.
        """
        graph = self._graph(credentials)
        requests: list[Request] = []
        for descriptor in _descriptors(data):
            descriptor_id = _descriptor_id(descriptor)
            if descriptor_id is not None and _owner_id(descriptor) == graph.app_id:
                requests.append(graph.request(descriptor_id, method="DELETE"))
            elif descriptor_id is not None and _owner_id(descriptor) is not None:
                own_reactions = _own_reactions(descriptor, opinion, graph.app_id)
                requests.extend(
                    graph.post(descriptor_id, {"reactions_to_remove": reaction}) for reaction in own_reactions
                )
        if not requests:
            raise InvalidInput("fb_threatexchange has no descriptor or reaction of your own to withdraw")
        return requests

    def memberships(self, *, credentials: Mapping[str, str]) -> Sequence[Membership]:
        """Return the privacy groups of which the app is a member or the owner, sorted by name.

        Raises:
            ExchangeFailed: The exchange refused a request, or sent an answer that is not in the expected format.
            InvalidInput: The credentials are malformed.
        """
        graph = self._graph(credentials)
        edges = ("threat_privacy_groups_member", "threat_privacy_groups_owner")
        groups_by_id = {group.id: group for edge in edges for group in _groups(graph, edge)}
        return sorted(groups_by_id.values(), key=lambda group: (group.name, group.id))

    def _graph(self, credentials: Mapping[str, str] | None) -> GraphClient:
        return GraphClient(transport=self._transport, base_url=self._base_url, token=self._token(credentials))

    def _token(self, credentials: Mapping[str, str] | None) -> str:
        text = required_credentials(self.kind, CREDENTIAL_FIELDS, credentials)["api_token"].strip()
        token = text.replace("%7C", "|").replace("%7c", "|")
        if not _TOKEN.fullmatch(token):
            raise InvalidInput(f"the credentials of {self.kind} must have the form {CREDENTIAL_SOURCE.form}")
        return token


def _deltas(graph: GraphClient, scope: Mapping[str, JSON], update_time: int, now_s: int) -> Iterator[Delta]:
    query = {"start_time": update_time, "stop_time": now_s, "limit": PAGE_SIZE, "fields": FIELDS}
    first = graph.request(f"{scope['privacy_group']}/threat_updates/", query)
    request = replace(first, is_final=requests_smaller_page)
    empty_page_counter = EmptyPageCounter()
    size = _PageSize()
    while True:
        try:
            request, body = _page_body(graph, request, size)
        except ExchangeFailed as error:
            if error.status == 500 and request.url == first.url:
                raise _not_enabled_error(error, scope) from error
            raise
        page = parse_body(request, partial(parse_page, app_id=graph.app_id), body)
        times = [update.at_s for update in page.updates]
        if times and min(times) < update_time:
            raise went_back_error(request)
        update_time = max([update_time, *times])
        yield Delta(
            changes={update.key: update.data for update in sorted(page.updates, key=lambda update: update.at_s)},
            checkpoint={**scope, "update_time": update_time, "last_fetch_time": now_s},
            malformed_items=page.malformed_items,
        )
        if page.next is None:
            return
        empty_page_counter.count_page(request, items=len(page.updates) + page.malformed_items)
        request = next_page_request(request, page.next)


@dataclass(slots=True)
class _PageSize:
    """The number of indicators per page.

    The number is reduced if the exchange asks for less data, and raised again later.
    """

    limit: int = PAGE_SIZE
    is_lowered: bool = False
    pages: int = 0

    def lower(self) -> bool:
        """Halve the number. Return False if it is already 1."""
        if self.limit == 1:
            return False
        self.limit, self.is_lowered, self.pages = self.limit // 2, True, 0
        return True

    def count_page(self) -> None:
        """Count a page that was received. Raise the number after every `RAISE_AFTER_PAGES` pages."""
        self.pages += 1
        if self.pages == RAISE_AFTER_PAGES:
            self.limit, self.pages = min(PAGE_SIZE, self.limit * 2), 0

    def apply_to(self, url: str) -> str:
        """Return a page's URL with this number in it. Return the URL unchanged if the number was never reduced."""
        return _LIMIT.sub(rf"\g<1>{self.limit}", url) if self.is_lowered else url


def _page_body(graph: GraphClient, request: Request, size: _PageSize) -> tuple[Request, Mapping[str, JSON]]:
    """Return the request and the body of a page. In the body, each item has all its descriptors.

    Raises:
        ExchangeFailed: The request was refused, the answer is not a JSON object, or a page with one indicator is still
            too large.
    """
    while True:
        request = replace(request, url=size.apply_to(request.url))
        try:
            body = graph.answer(request)
        except TooMuchData:
            if not size.lower():
                raise ExchangeFailed(
                    f"{host_of(request.url)} asks for less data, although only one indicator was requested"
                ) from None
            continue
        size.count_page()
        items = body.get("data")
        if isinstance(items, list):
            return request, {**body, "data": [_complete_item(graph, request, item) for item in items]}
        return request, body


def _complete_item(graph: GraphClient, request: Request, item: JSON) -> JSON:
    """Return an item with all its descriptors. Return the item unchanged if it will not be stored."""
    if not isinstance(item, dict) or not _may_have_signals(item) or item.get("should_delete") is True:
        return item
    return graph.with_all_edges(request, item)


def _not_enabled_error(error: ExchangeFailed, scope: Mapping[str, JSON]) -> ExchangeFailed:
    """Return the error for a first page that is answered with status 500. The message explains what to do."""
    return ExchangeFailed(
        f"{error}. ThreatExchange also answers 500 if a privacy group has not enabled threat_updates: check whether "
        f"`countermark config api fb_threatexchange -L` lists group {scope['privacy_group']} as enabled; if it does "
        "not, ask threatexchange@meta.com to enable it",
        status=error.status,
    )


def _groups(graph: GraphClient, edge: str) -> Iterator[Membership]:
    """Yield the privacy groups in an edge of the app. Malformed groups are left out."""
    request = graph.request(f"{graph.app_id}/{edge}", {"fields": "id,name,description,threat_updates_enabled"})
    for _ in range(MAX_GROUP_PAGES):
        groups, url = parse_body(request, parse_edge_page, graph.answer(request))
        yield from (group for group in map(_membership, groups) if group is not None)
        if url is None:
            return
        request = next_page_request(request, url)
    raise ExchangeFailed(f"{host_of(request.url)} lists more than {MAX_GROUP_PAGES} pages of privacy groups")


def _descriptor_request(
    graph: GraphClient, config: Mapping[str, JSON], indicator_type: str, indicator: str, opinion: SharedOpinion
) -> Request:
    """Return the request that sends an opinion of an indicator to the privacy group, as a descriptor.

    A member has at most one descriptor per indicator, so sending the request twice has the same effect as sending it
    once.

    Raises:
        InvalidInput: The indicator type is not on Meta's list, or the verdict has no status.
    """
    if indicator_type not in LISTED_TYPES:
        raise InvalidInput(
            f"fb_threatexchange accepts no descriptors of type {indicator_type!r}: it is not on Meta's list of "
            "indicator types"
        )
    form = {
        "indicator": indicator,
        "type": indicator_type,
        "description": "shared by countermark",
        "share_level": "AMBER",
        "status": verdict_term(FbThreatExchange.kind, SENT_STATUSES, opinion.verdict),
        "privacy_type": "HAS_PRIVACY_GROUP",
        "privacy_members": str(config["privacy_group"]),
        "tags": ",".join(opinion.tags),
    }
    return graph.post("threat_descriptors", {}, {name: value for name, value in form.items() if value})


def _parse_item(item: JSON, app_id: str) -> Update | None:
    """Return the change that an item of a page describes; None if the item is malformed."""
    if not isinstance(item, dict):
        return None
    may_have_signals = _may_have_signals(item)
    # An item without signals is not stored, so it can have any length.
    if may_have_signals and not is_storable(item):
        return None
    indicator, indicator_type, at_s = item.get("indicator"), item.get("type"), _integer(item.get("last_updated"))
    if not isinstance(indicator, str) or not isinstance(indicator_type, str) or not indicator or at_s < 0:
        return None
    # The key contains a digest, because an indicator can be longer than the keys that the stores accept.
    key = f"{indicator_type} {hashlib.sha256(indicator.encode('utf-8', 'surrogatepass')).hexdigest()}"
    descriptors = item.get("descriptors", {})
    if not may_have_signals or item.get("should_delete") is True or descriptors in ({}, None):
        return Update(key=key, at_s=at_s, data=None)
    listed = descriptors.get("data") if isinstance(descriptors, dict) else None
    if not isinstance(listed, list) or not all(isinstance(descriptor, dict) for descriptor in listed):
        return None
    data = {**item, "app_id": app_id}
    return Update(key=key, at_s=at_s, data=data if opinions_of(data) else None)


def _may_have_signals(item: Mapping[str, JSON]) -> bool:
    """Return whether an item can have a signal: its indicator type is in `TYPES`, or is not a text."""
    indicator_type = item.get("type")
    return not isinstance(indicator_type, str) or indicator_type in TYPES


def _descriptors(data: Mapping[str, JSON]) -> list[Mapping[str, JSON]]:
    edge = data.get("descriptors")
    listed = edge.get("data") if isinstance(edge, Mapping) else None
    return [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []


def _owner_id(descriptor: Mapping[str, JSON]) -> str | None:
    """Return the app id of a descriptor's owner; None if the exchange does not return the id."""
    owner = descriptor.get("owner")
    owner_id = owner.get("id") if isinstance(owner, Mapping) else None
    return str(owner_id) if isinstance(owner_id, str | int) else None


def _descriptor_id(descriptor: Mapping[str, JSON]) -> str | None:
    """Return the id of a descriptor, for the path of a URL; None if the id is not a number."""
    number = _integer(descriptor.get("id"))
    return None if number < 0 else str(number)


def _tags(descriptor: Mapping[str, JSON]) -> list[str]:
    """Return the tags of a descriptor. The exchange returns a list of texts, or an edge whose items have a `text`."""
    tags = descriptor.get("tags")
    if isinstance(tags, Mapping):
        edge = tags.get("data")
        tags = [each.get("text") for each in edge if isinstance(each, Mapping)] if isinstance(edge, list) else []
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _reactions(descriptor: Mapping[str, JSON]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the name of each reaction to a descriptor, with the app ids of the members that gave this reaction."""
    reactions = descriptor.get("reactions")
    for reaction in reactions if isinstance(reactions, list) else []:
        if isinstance(reaction, Mapping):
            members = [member.strip() for member in str(reaction.get("value") or "").split(",")]
            yield str(reaction.get("key")), [member for member in members if member]


def _own_reactions(descriptor: Mapping[str, JSON], opinion: SharedOpinion, app_id: str) -> Sequence[str]:
    """Return the names of the reactions with which the app expressed an opinion of a descriptor.

    The descriptor does not contain a reaction that was sent after the descriptor was fetched. The verdict in
    `opinion.replaces` determines that reaction.
    """
    own_reactions = {key for key, members in _reactions(descriptor) if app_id in members}
    if opinion.replaces in SENT_REACTIONS:
        own_reactions.update([SENT_REACTIONS[opinion.replaces], *FORMERLY_SENT_REACTIONS.get(opinion.replaces, ())])
    return [key for key in REACTIONS if key in own_reactions]


def _membership(group: JSON) -> Membership | None:
    """Return the membership for a privacy group in a list; None if the group is malformed."""
    if not isinstance(group, dict) or _integer(group.get("id")) < 0:
        return None
    return Membership(
        id=str(group["id"]),
        name=str(group.get("name") or ""),
        description=str(group.get("description") or ""),
        is_enabled=group.get("threat_updates_enabled") is True,
        config={"privacy_group": _integer(group["id"])},
    )


def _integer(value: JSON) -> int:
    """Return a whole number that is given as a number or as a text of digits; -1 for any other value."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else -1
