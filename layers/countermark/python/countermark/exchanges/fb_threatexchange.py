"""Meta's ThreatExchange: signals that the members of a privacy group share, with their opinions of them.

Who runs it: Meta, for vetted platforms. Documentation:
https://developers.facebook.com/docs/threat-exchange/reference/apis/threat-updates/ and its neighbours. Credentials:
the access token of an app, `<app id>|<secret>`.

An *indicator* is a signal, and a *descriptor* one member's statement of it. `threat_updates` returns what has
changed since a time, oldest first, an indicator with all its descriptors at once. Deletions are kept for 90 days as
one page of Meta's documentation says, and for 30 as another one does, so a fetch that comes later than 29 days starts
again from the beginning.

Indicators of every type are asked for, and those whose type gives no signal are left out here: the parameter `types`
takes only names that are on Meta's list of indicator types, and no other client sends it.

Limits: pages of 100 indicators, and fewer where the exchange asks for less data; 32 MiB a page; the order of
`last_updated` is what a fetch is resumed by, so an exchange that goes back behind it is an error; 100 pages of privacy
groups.
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
from countermark.exchanges.config import needed_credentials, parse_fields, parse_one_line
from countermark.exchanges.graph_api import GRAPH_VERSION, Graph, TooMuchData, asks_for_less, following, page_of
from countermark.exchanges.pages import Patience, host_of, is_storable, parsed, went_back
from countermark.exchanges.verdicts import sent

BASE_URL = f"https://graph.facebook.com/{GRAPH_VERSION}"

PAGE_SIZE = 100
"""How many indicators a page has. Where the exchange asks for less data the size is halved, down to 1."""

RAISE_AFTER_PAGES = 10
"""After how many pages of a lowered size the size is doubled, up to `PAGE_SIZE`."""

STALE_AFTER_S = 29 * 24 * 3600
"""How old the last fetch may be, in seconds: a day less than the shorter of the two times for which Meta documents
that deletions are kept. Source: 30 days in https://developers.facebook.com/docs/threat-exchange/best-practices/, and 90
days in https://developers.facebook.com/docs/threat-exchange/reference/apis/threat-updates/."""

MAX_GROUP_PAGES = 100
"""How many pages of privacy groups are read: more than any app is in, and a loop of the exchange's ends."""

FIELDS = (
    "id,indicator,type,last_updated,should_delete,descriptors{reactions,my_reactions,owner{id},tags,status,added_on}"
)
"""What is asked for of each indicator. The ids of descriptors come unasked."""

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
"""The signal types of each indicator type; with a tag, only of those that a member gave the tag.

HASH_VIDEO_SHA256, RAW_URI and HASH_URL_MD5 are not on Meta's list. They are read wherever they come from.
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
"""The indicator type that each signal type is shared as, and the tag that says which medium it is.

Each is on Meta's list, which has none for url_md5. Source:
https://developers.facebook.com/docs/threat-exchange/reference/apis/indicator-type.
"""

LISTED_TYPES = frozenset(indicator_type for indicator_type, _ in SENT_TYPES.values())
"""The indicator types that may be sent."""

STATUSES = {"MALICIOUS": Category.POSITIVE_CLASS, "NON_MALICIOUS": Category.NEGATIVE_CLASS}
"""What a descriptor's status says; every other one is an INVESTIGATION_SEED."""

REACTIONS = {
    "HELPFUL": Category.POSITIVE_CLASS,
    "NON_MALICIOUS": Category.NEGATIVE_CLASS,
    "DISAGREE_WITH_TAGS": Category.NEGATIVE_CLASS,
}
"""What a reaction to another member's descriptor says; every other one says nothing about the signal."""

UPLOADS = frozenset({"NON_MALICIOUS"})
"""The reactions that equal an upload with the status of that name, whatever else the member uploaded. Source:
https://developers.facebook.com/docs/threat-exchange/reference/reacting."""

SENT_REACTIONS = {
    Verdict.TRUE_POSITIVE: "HELPFUL",
    Verdict.FALSE_POSITIVE: "NON_MALICIOUS",
    Verdict.SEEN: "SAW_THIS_TOO",
}
"""A false positive is not sent as DISAGREE_WITH_TAGS: Meta removes that one when the owner edits the tags."""

ONCE_SENT_REACTIONS = {Verdict.FALSE_POSITIVE: ("DISAGREE_WITH_TAGS",)}
"""The reactions that earlier versions sent for a verdict: they are taken back together with today's."""

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
"""What a token looks like. Source: the peer's check of it."""

_LIMIT = re.compile(r"([?&]limit=)[0-9]+")
"""Where a page's URL has its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What a page says of one indicator: its record, or None where it was taken back or gives no signal."""

    key: str
    at_s: int
    data: Mapping[str, JSON] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page as parsed. `next` is the URL of the next one; None where it is the last."""

    updates: tuple[Update, ...]
    malformed_items: int
    next: str | None


def parse_page(body: Mapping[str, JSON], *, app_id: str) -> Page:
    """Return what a page of `threat_updates` says. Records that are malformed are counted and left out.

    Raises:
        ValueError: It is no such page.
    """
    items, url = page_of(body)
    updates = [_update(item, app_id) for item in items]
    good = tuple(update for update in updates if update is not None)
    return Page(updates=good, malformed_items=len(updates) - len(good), next=url)


def signals_of(data: Mapping[str, JSON]) -> list[Signal]:
    """Return the signals of a record: those of its type, as far as the members' tags allow."""
    tags = {tag for descriptor in _descriptors(data) for tag in _tags(descriptor)}
    return [
        Signal(type=name, value=str(data["indicator"]))
        for name, tag in TYPES.get(str(data["type"]), ())
        if tag is None or tag in tags
    ]


def opinions_of(data: Mapping[str, JSON]) -> list[Opinion]:
    """Return one opinion of each descriptor with an owner, and one of each member that only reacted.

    A member that found one descriptor helpful and disagreed with another counts as disagreeing. A reaction out of
    `UPLOADS` counts for members with a descriptor as well.
    """
    descriptors = [each for each in _descriptors(data) if _owner(each) is not None]
    owners = {_owner(descriptor) for descriptor in descriptors}
    reacted: dict[str, Category] = {}
    for descriptor in descriptors:
        for key, members in _reacted(descriptor):
            category = REACTIONS.get(key)
            for member in members:
                if category is not None and (key in UPLOADS or member not in owners):
                    reacted[member] = min(category, reacted.get(member, category))
    mine = str(data["app_id"])
    stated = [
        Opinion(
            category=STATUSES.get(str(descriptor.get("status")), Category.INVESTIGATION_SEED),
            tags=frozenset(_tags(descriptor)),
            is_mine=_owner(descriptor) == mine,
        )
        for descriptor in descriptors
    ]
    return stated + [Opinion(category=category, is_mine=member == mine) for member, category in reacted.items()]


class FbThreatExchange:
    """Yields the updates of a privacy group, a page at a time. `base_url` is for tests, `config` for `joined`."""

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
            InvalidInput: The privacy group is missing or no number, or a field is unknown.
        """
        return parse_fields(self.kind, self.config_fields, config)

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        """Return the token that a line holds; `%7C` is taken for its bar as well.

        Raises:
            InvalidInput: It is no token. The error does not show it.
        """
        credentials = parse_one_line(self.kind, CREDENTIAL_SOURCE.form, CREDENTIAL_FIELDS, [text])
        return {"api_token": self._token(credentials)}

    def check_credentials(self, credentials: Mapping[str, str]) -> None:
        """Check that the token looks like one.

        Raises:
            InvalidInput: It does not. The error does not show it.
        """
        self._token(credentials)

    def joined(self, config: Mapping[str, JSON]) -> "FbThreatExchange":
        """Return the exchange with a configuration, which is checked first.

        Raises:
            InvalidInput: A field is missing, unknown or wrong.
        """
        return FbThreatExchange(self._transport, base_url=self._base_url, config=self.parse_config(config))

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch of what has changed up to now.

        It restarts where the last one is too long ago, or was of another privacy group or app: whose opinions are
        one's own stands with each record.

        Raises:
            InvalidInput: There are no credentials, or they are no token.
            ExchangeFailed: From the deltas: it refused, answered outside its format, or went back in time.
        """
        graph = self._graph(credentials)
        scope: Mapping[str, JSON] = {"privacy_group": self._config["privacy_group"], "app_id": graph.app_id}
        is_fresh = (
            checkpoint is not None
            # Checkpoints of before do not tell the app.
            and all(checkpoint.get(name, value) == value for name, value in scope.items())
            and now_s - _integer(checkpoint["last_fetch_time"]) <= STALE_AFTER_S
        )
        update_time = _integer(checkpoint["update_time"]) if is_fresh and checkpoint is not None else 0
        return Fetch(restarts=not is_fresh, deltas=_deltas(graph, scope, update_time, now_s))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signals of an indicator."""
        return signals_of(data)

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return what the members say of an indicator."""
        return opinions_of(data)

    def opinion_requests(
        self,
        data: Mapping[str, JSON],
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
    ) -> Sequence[Request]:
        """Return a reaction to each other member's descriptor, in place of the contrary one if that was given.

        Where there is a descriptor of one's own it takes the opinion's status and tags besides; to have seen
        the signal changes nothing of it.

        Raises:
            InvalidInput: There is no descriptor to react to, no such reaction, one's own descriptor is of a type that
                Meta does not list, or the credentials are no token.
        """
        graph = self._graph(credentials)
        reaction = sent(self.kind, SENT_REACTIONS, opinion.verdict)
        requests: list[Request] = []
        is_stated = False
        for descriptor in _descriptors(data):
            descriptor_id = _id(descriptor)
            if _owner(descriptor) == graph.app_id:
                is_stated = True
            elif _owner(descriptor) is not None and descriptor_id is not None:
                judged = _judged(descriptor, opinion, graph.app_id) if reaction in REACTIONS else []
                contrary = [each for each in judged if REACTIONS[each] is not REACTIONS[reaction]]
                sent_now = [*(("reactions_to_remove", each) for each in contrary), ("reactions", reaction)]
                requests.extend(graph.post(descriptor_id, {name: value}) for name, value in sent_now)
        if is_stated and opinion.verdict is not Verdict.SEEN:
            requests.append(_statement(graph, self._config, str(data["type"]), str(data["indicator"]), opinion))
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
        """Return the request that states a signal to the privacy group, or restates it: there is one of a member.

        Raises:
            InvalidInput: The exchange has no type for such a signal, no such status, or the credentials are no token.
        """
        if signal.type not in SENT_TYPES:
            raise InvalidInput(
                f"fb_threatexchange takes no signals of type {signal.type!r}: Meta's list of indicator types has none "
                "for it"
            )
        indicator_type, tag = SENT_TYPES[signal.type]
        tags = tuple(dict.fromkeys([*opinion.tags, *([tag] if tag else [])]))
        tagged = SharedOpinion(verdict=opinion.verdict, tags=tags)
        return [_statement(self._graph(credentials), self._config, indicator_type, signal.value, tagged)]

    def withdrawal_requests(
        self, data: Mapping[str, JSON], opinion: SharedOpinion, *, credentials: Mapping[str, str]
    ) -> Sequence[Request]:
        """Return the requests that take back one's own descriptors of an indicator, and reactions to the others.

        Raises:
            InvalidInput: There is none, or the credentials are no token.
        """
        graph = self._graph(credentials)
        requests: list[Request] = []
        for descriptor in _descriptors(data):
            descriptor_id = _id(descriptor)
            if descriptor_id is not None and _owner(descriptor) == graph.app_id:
                requests.append(graph.request(descriptor_id, method="DELETE"))
            elif descriptor_id is not None and _owner(descriptor) is not None:
                given = _judged(descriptor, opinion, graph.app_id)
                requests.extend(graph.post(descriptor_id, {"reactions_to_remove": reaction}) for reaction in given)
        if not requests:
            raise InvalidInput("fb_threatexchange has no descriptor or reaction of your own to take back")
        return requests

    def memberships(self, *, credentials: Mapping[str, str]) -> Sequence[Membership]:
        """Return the privacy groups that the app is a member or the owner of, by name.

        Raises:
            ExchangeFailed: It refused, or answered outside its format.
            InvalidInput: The credentials are no token.
        """
        graph = self._graph(credentials)
        edges = ("threat_privacy_groups_member", "threat_privacy_groups_owner")
        found = {group.id: group for edge in edges for group in _groups(graph, edge)}
        return sorted(found.values(), key=lambda group: (group.name, group.id))

    def _graph(self, credentials: Mapping[str, str] | None) -> Graph:
        return Graph(transport=self._transport, base_url=self._base_url, token=self._token(credentials))

    def _token(self, credentials: Mapping[str, str] | None) -> str:
        given = needed_credentials(self.kind, CREDENTIAL_FIELDS, credentials)["api_token"].strip()
        token = given.replace("%7C", "|").replace("%7c", "|")
        if not _TOKEN.fullmatch(token):
            raise InvalidInput(f"the credentials of {self.kind} are of the form {CREDENTIAL_SOURCE.form}")
        return token


def _deltas(graph: Graph, scope: Mapping[str, JSON], update_time: int, now_s: int) -> Iterator[Delta]:
    query = {"start_time": update_time, "stop_time": now_s, "limit": PAGE_SIZE, "fields": FIELDS}
    first = graph.request(f"{scope['privacy_group']}/threat_updates/", query)
    request = replace(first, is_final=asks_for_less)
    patience = Patience()
    size = _PageSize()
    while True:
        try:
            request, body = _page_body(graph, request, size)
        except ExchangeFailed as error:
            if error.status == 500 and request.url == first.url:
                raise _not_enabled(error, scope) from error
            raise
        this = parsed(request, partial(parse_page, app_id=graph.app_id), body)
        times = [update.at_s for update in this.updates]
        if times and min(times) < update_time:
            raise went_back(request)
        update_time = max([update_time, *times])
        yield Delta(
            changes={update.key: update.data for update in sorted(this.updates, key=lambda update: update.at_s)},
            checkpoint={**scope, "update_time": update_time, "last_fetch_time": now_s},
            malformed_items=this.malformed_items,
        )
        if this.next is None:
            return
        patience.after(request, items=len(this.updates) + this.malformed_items)
        request = following(request, this.next)


@dataclass(slots=True)
class _PageSize:
    """How many indicators are asked for at once: fewer where the exchange asks for less data, and more again later."""

    limit: int = PAGE_SIZE
    is_lowered: bool = False
    pages: int = 0

    def lower(self) -> bool:
        """Halve the size; returns False where it is the smallest already."""
        if self.limit == 1:
            return False
        self.limit, self.is_lowered, self.pages = self.limit // 2, True, 0
        return True

    def after_page(self) -> None:
        """Take a page that was answered."""
        self.pages += 1
        if self.pages == RAISE_AFTER_PAGES:
            self.limit, self.pages = min(PAGE_SIZE, self.limit * 2), 0

    def applied(self, url: str) -> str:
        """Return the URL of a page with this size in it; as the exchange gave it, as long as none was lowered."""
        return _LIMIT.sub(rf"\g<1>{self.limit}", url) if self.is_lowered else url


def _page_body(graph: Graph, request: Request, size: _PageSize) -> tuple[Request, Mapping[str, JSON]]:
    """Return a page and the request that it answers, each item with all its descriptors.

    Raises:
        ExchangeFailed: It was refused, is no JSON object, or is too much data even with one indicator.
    """
    while True:
        request = replace(request, url=size.applied(request.url))
        try:
            body = graph.answer(request)
        except TooMuchData:
            if not size.lower():
                raise ExchangeFailed(f"{host_of(request.url)} asks for less data than a single indicator") from None
            continue
        size.after_page()
        items = body.get("data")
        if isinstance(items, list):
            return request, {**body, "data": [_whole(graph, request, item) for item in items]}
        return request, body


def _whole(graph: Graph, request: Request, item: JSON) -> JSON:
    """Return an item with all its descriptors, if it is one that is kept."""
    if not isinstance(item, dict) or not _gives_signals(item) or item.get("should_delete") is True:
        return item
    return graph.completed(request, item)


def _not_enabled(error: ExchangeFailed, scope: Mapping[str, JSON]) -> ExchangeFailed:
    """Return the error for a first page that is answered with status 500, with what to do."""
    return ExchangeFailed(
        f"{error}. ThreatExchange also answers 500 where a privacy group has not enabled threat_updates: look whether "
        f"`countermark config api fb_threatexchange -L` lists group {scope['privacy_group']} as enabled; if it does "
        "not, ask threatexchange@meta.com to enable it",
        status=error.status,
    )


def _groups(graph: Graph, edge: str) -> Iterator[Membership]:
    """Yield the privacy groups at an edge of the app; malformed ones are left out."""
    request = graph.request(f"{graph.app_id}/{edge}", {"fields": "id,name,description,threat_updates_enabled"})
    for _ in range(MAX_GROUP_PAGES):
        groups, url = parsed(request, page_of, graph.answer(request))
        yield from (group for group in map(_membership, groups) if group is not None)
        if url is None:
            return
        request = following(request, url)
    raise ExchangeFailed(f"{host_of(request.url)} lists more than {MAX_GROUP_PAGES} pages of privacy groups")


def _statement(
    graph: Graph, config: Mapping[str, JSON], indicator_type: str, indicator: str, opinion: SharedOpinion
) -> Request:
    """Return the request that states an opinion of an indicator to the privacy group.

    A member has one descriptor of an indicator: what is stated twice is stated once.

    Raises:
        InvalidInput: The type is not on Meta's list, or there is no status for the verdict.
    """
    if indicator_type not in LISTED_TYPES:
        raise InvalidInput(
            f"fb_threatexchange takes no descriptors of type {indicator_type!r}: it is not on Meta's list of indicator "
            "types"
        )
    form = {
        "indicator": indicator,
        "type": indicator_type,
        "description": "shared by countermark",
        "share_level": "AMBER",
        "status": sent(FbThreatExchange.kind, SENT_STATUSES, opinion.verdict),
        "privacy_type": "HAS_PRIVACY_GROUP",
        "privacy_members": str(config["privacy_group"]),
        "tags": ",".join(opinion.tags),
    }
    return graph.post("threat_descriptors", {}, {name: value for name, value in form.items() if value})


def _update(item: JSON, app_id: str) -> Update | None:
    """Return what an item of a page says; None where it is malformed."""
    if not isinstance(item, dict):
        return None
    is_kept = _gives_signals(item)
    # One that is left out may be of any length.
    if is_kept and not is_storable(item):
        return None
    indicator, indicator_type, at_s = item.get("indicator"), item.get("type"), _integer(item.get("last_updated"))
    if not isinstance(indicator, str) or not isinstance(indicator_type, str) or not indicator or at_s < 0:
        return None
    # Of fixed length, as a text may be longer than a store's key.
    key = f"{indicator_type} {hashlib.sha256(indicator.encode('utf-8', 'surrogatepass')).hexdigest()}"
    descriptors = item.get("descriptors", {})
    if not is_kept or item.get("should_delete") is True or descriptors in ({}, None):
        return Update(key=key, at_s=at_s, data=None)
    listed = descriptors.get("data") if isinstance(descriptors, dict) else None
    if not isinstance(listed, list) or not all(isinstance(descriptor, dict) for descriptor in listed):
        return None
    data = {**item, "app_id": app_id}
    return Update(key=key, at_s=at_s, data=data if opinions_of(data) else None)


def _gives_signals(item: Mapping[str, JSON]) -> bool:
    """Return whether an item is of a type that may give a signal, or of none that can be read."""
    indicator_type = item.get("type")
    return not isinstance(indicator_type, str) or indicator_type in TYPES


def _descriptors(data: Mapping[str, JSON]) -> list[Mapping[str, JSON]]:
    edge = data.get("descriptors")
    listed = edge.get("data") if isinstance(edge, Mapping) else None
    return [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []


def _owner(descriptor: Mapping[str, JSON]) -> str | None:
    """Return the app id of a descriptor's owner; None where the exchange does not tell it."""
    owner = descriptor.get("owner")
    owner_id = owner.get("id") if isinstance(owner, Mapping) else None
    return str(owner_id) if isinstance(owner_id, str | int) else None


def _id(descriptor: Mapping[str, JSON]) -> str | None:
    """Return the id of a descriptor, which becomes a path; None where it is no number."""
    number = _integer(descriptor.get("id"))
    return None if number < 0 else str(number)


def _tags(descriptor: Mapping[str, JSON]) -> list[str]:
    """Return the tags of a descriptor, which stand in either of two forms."""
    tags = descriptor.get("tags")
    if isinstance(tags, Mapping):
        edge = tags.get("data")
        tags = [each.get("text") for each in edge if isinstance(each, Mapping)] if isinstance(edge, list) else []
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _reacted(descriptor: Mapping[str, JSON]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each reaction to a descriptor with the members that gave it."""
    reactions = descriptor.get("reactions")
    for reaction in reactions if isinstance(reactions, list) else []:
        if isinstance(reaction, Mapping):
            members = [member.strip() for member in str(reaction.get("value") or "").split(",")]
            yield str(reaction.get("key")), [member for member in members if member]


def _judged(descriptor: Mapping[str, JSON], opinion: SharedOpinion, app_id: str) -> Sequence[str]:
    """Return the reactions with which one's app judged a descriptor.

    What was given since the descriptor was fetched is known from the opinion alone.
    """
    given = {key for key, members in _reacted(descriptor) if app_id in members}
    if opinion.replaces in SENT_REACTIONS:
        given.update([SENT_REACTIONS[opinion.replaces], *ONCE_SENT_REACTIONS.get(opinion.replaces, ())])
    return [key for key in REACTIONS if key in given]


def _membership(group: JSON) -> Membership | None:
    """Return a privacy group as listed; None where it is malformed."""
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
    """Return a whole number that is not negative, as the exchange writes it, or as text; -1 for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else -1
