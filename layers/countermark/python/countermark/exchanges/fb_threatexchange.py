"""Meta's ThreatExchange: signals that the members of a privacy group share, with their opinions of them.

Who runs it: Meta, for vetted platforms. Documentation:
https://developers.facebook.com/docs/threat-exchange/reference/apis/threat-updates/ and its neighbours. Credentials:
the access token of an app, `<app id>|<secret>`.

An *indicator* is a signal, and a *descriptor* one member's statement of it. `threat_updates` tells what has
changed since a time, oldest first, an indicator with all its descriptors at once; what was taken back is told for
90 days, so a fetch that comes later than that begins anew.

Limits: pages of 100 indicators; 32 MiB a page; the order of `last_updated` is what a fetch is resumed by, so an
exchange that goes back behind it is an error; 100 pages of privacy groups.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from countermark.domain.collaboration import (
    CredentialSource,
    Delta,
    Fetch,
    Field,
    Membership,
    SharedOpinion,
    Verdict,
)
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Signal
from countermark.domain.transport import Request, Transport
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges.config import needed_credentials, parse_fields, parse_one_line
from countermark.exchanges.graph_api import Graph, following, page_of
from countermark.exchanges.pages import Patience, host_of, is_storable, parsed, went_back
from countermark.exchanges.verdicts import sent

BASE_URL = "https://graph.facebook.com/v21.0"

PAGE_SIZE = 100

STALE_AFTER_S = 85 * 24 * 3600
"""How old the last fetch may be: five days less than the 90 for which the exchange tells of what was taken back."""

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
"""The signal types of each indicator type; with a tag, only of those that a member gave the tag."""

STATUSES = {"MALICIOUS": Category.POSITIVE_CLASS, "NON_MALICIOUS": Category.NEGATIVE_CLASS}
"""What a descriptor's status says; every other one is an INVESTIGATION_SEED."""

REACTIONS = {"HELPFUL": Category.POSITIVE_CLASS, "DISAGREE_WITH_TAGS": Category.NEGATIVE_CLASS}
"""What a reaction to another member's descriptor says; every other one says nothing of the signal."""

SENT_REACTIONS = {
    Verdict.TRUE_POSITIVE: "HELPFUL",
    Verdict.FALSE_POSITIVE: "DISAGREE_WITH_TAGS",
    Verdict.SEEN: "SAW_THIS_TOO",
}

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What a page says of one indicator: its record, or None where it was taken back."""

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

    A member that found one descriptor helpful and disagreed with another counts as disagreeing.
    """
    descriptors = [each for each in _descriptors(data) if _owner(each) is not None]
    owners = {_owner(descriptor) for descriptor in descriptors}
    reacted: dict[str, Category] = {}
    for descriptor in descriptors:
        for member, category in _reactions(descriptor):
            if member not in owners:
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
    """Yields the updates of a privacy group, a page at a time. `base_url` is for tests."""

    kind = "fb_threatexchange"
    config_fields: Sequence[Field] = CONFIG_FIELDS
    credential_fields: Sequence[Field] | None = CREDENTIAL_FIELDS
    credential_source: CredentialSource | None = CREDENTIAL_SOURCE

    def __init__(self, transport: Transport, *, base_url: str = BASE_URL) -> None:
        self._transport = transport
        self._base_url = base_url

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

    def fetch(
        self,
        config: Mapping[str, JSON],
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
        scope: Mapping[str, JSON] = {"privacy_group": config["privacy_group"], "app_id": graph.app_id}
        is_fresh = (
            checkpoint is not None
            # Checkpoints of before do not tell the app.
            and all(checkpoint.get(name, value) == value for name, value in scope.items())
            and now_s - _integer(checkpoint["last_fetch_time"]) <= STALE_AFTER_S
        )
        update_time = _integer(checkpoint["update_time"]) if is_fresh and checkpoint is not None else 0
        return Fetch(restarts=not is_fresh, deltas=_deltas(graph, scope, update_time, now_s))

    def signals(self, config: Mapping[str, JSON], data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signals of an indicator."""
        del config
        return signals_of(data)

    def opinions(self, config: Mapping[str, JSON], data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return what the members say of an indicator."""
        del config
        return opinions_of(data)

    def opinion_requests(
        self,
        config: Mapping[str, JSON],
        data: Mapping[str, JSON],
        opinion: SharedOpinion,
        *,
        credentials: Mapping[str, str],
    ) -> Sequence[Request]:
        """Return a reaction to each other member's descriptor, in place of the contrary one if that was given.

        Where there is a descriptor of one's own it takes the opinion's status and tags besides; to have seen
        the signal changes nothing of it.

        Raises:
            InvalidInput: There is no descriptor to react to, no such reaction, or the credentials are no token.
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
                changes = [("reactions_to_remove", contrary) for contrary in judged if contrary != reaction]
                told = [*changes, ("reactions", reaction)]
                requests.extend(graph.post(descriptor_id, {name: value}) for name, value in told)
        if is_stated and opinion.verdict is not Verdict.SEEN:
            requests.append(_statement(graph, config, str(data["type"]), str(data["indicator"]), opinion))
        if not requests:
            raise InvalidInput("fb_threatexchange has no descriptor of another member to react to")
        return requests

    def signal_requests(
        self,
        config: Mapping[str, JSON],
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
        del now_s
        for indicator_type, carried in TYPES.items():
            for name, tag in carried:
                if name == signal.type:
                    tagged = SharedOpinion(
                        verdict=opinion.verdict, tags=tuple(dict.fromkeys([*opinion.tags, *([tag] if tag else [])]))
                    )
                    return [_statement(self._graph(credentials), config, indicator_type, signal.value, tagged)]
        raise InvalidInput(f"fb_threatexchange takes no signals of type {signal.type!r}")

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
    query = {
        "start_time": update_time,
        "stop_time": now_s,
        "limit": PAGE_SIZE,
        "fields": FIELDS,
        "types": ",".join(TYPES),
    }
    request = graph.request(f"{scope['privacy_group']}/threat_updates/", query)
    patience = Patience()
    while True:
        this = parsed(request, partial(parse_page, app_id=graph.app_id), graph.answer(request))
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
    """
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
    if not isinstance(item, dict) or not is_storable(item):
        return None
    indicator, indicator_type, at_s = item.get("indicator"), item.get("type"), _integer(item.get("last_updated"))
    if not isinstance(indicator, str) or not isinstance(indicator_type, str) or not indicator or at_s < 0:
        return None
    # Of fixed length, as a text may be longer than a store's key.
    key = f"{indicator_type} {hashlib.sha256(indicator.encode()).hexdigest()}"
    descriptors = item.get("descriptors", {})
    if item.get("should_delete") is True or descriptors in ({}, None):
        return Update(key=key, at_s=at_s, data=None)
    listed = descriptors.get("data") if isinstance(descriptors, dict) else None
    if not isinstance(listed, list) or not all(isinstance(descriptor, dict) for descriptor in listed):
        return None
    data = {**item, "app_id": app_id}
    return Update(key=key, at_s=at_s, data=data if opinions_of(data) else None)


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


def _reactions(descriptor: Mapping[str, JSON]) -> Iterator[tuple[str, Category]]:
    """Yield each member that reacted with something that says what the signal is, and what it says."""
    for key, members in _reacted(descriptor):
        if key in REACTIONS:
            yield from ((member, REACTIONS[key]) for member in members)


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
    told = None if opinion.replaces is None else SENT_REACTIONS.get(opinion.replaces)
    given = {key for key, members in _reacted(descriptor) if app_id in members}
    return [key for key in REACTIONS if key in given or key == told]


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
