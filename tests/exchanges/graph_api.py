"""The part of the Graph API that ThreatExchange is spoken to by: a privacy group, told as it is now."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from countermark.domain.json import JSON
from tests.exchanges.server import Answer, Asked, Fault, as_json

APP_ID = "1234567890"
SECRET = "hunter2-hunter2-hunter2"
TOKEN = f"{APP_ID}|{SECRET}"
GROUP = 1012185296055235

INDICATOR_TYPES = frozenset(
    [
        "ADJUST_TOKEN",
        "API_KEY",
        "AS_NUMBER",
        "BANNER",
        "CMD_LINE",
        "COOKIE_NAME",
        "CRX",
        "DEBUG_STRING",
        "DEST_PORT",
        "DIRECTORY_QUERIED",
        "DOMAIN",
        "EMAIL_ADDRESS",
        "FILE_CREATED",
        "FILE_DELETED",
        "FILE_MOVED",
        "FILE_NAME",
        "FILE_OPENED",
        "FILE_READ",
        "FILE_WRITTEN",
        "GET_PARAM",
        "HASH_IMPHASH",
        "HASH_MD5",
        "HASH_PDQ",
        "HASH_TMK",
        "HASH_SHA1",
        "HASH_SHA256",
        "HASH_SSDEEP",
        "HASH_VIDEO_MD5",
        "HTML_ID",
        "HTTP_REQUEST",
        "IP_ADDRESS",
        "IP_SUBNET",
        "ISP",
        "LATITUDE",
        "LAUNCH_AGENT",
        "LOCATION",
        "LONGITUDE",
        "MALWARE_NAME",
        "MEMORY_ALLOC",
        "MEMORY_PROTECT",
        "MEMORY_WRITTEN",
        "MUTANT_CREATED",
        "MUTEX",
        "NAME_SERVER",
        "OTHER_FILE_OP",
        "PASSWORD",
        "PASSWORD_SALT",
        "PAYLOAD_DATA",
        "PAYLOAD_TYPE",
        "POST_DATA",
        "PROTOCOL",
        "REFERER",
        "REGISTRAR",
        "REGISTRY_KEY",
        "SIGNATURE",
        "SOURCE_PORT",
        "TELEPHONE",
        "TEXT_STRING",
        "TREND_QUERY",
        "URI",
        "USER_AGENT",
        "VOLUME_QUERIED",
        "WEBSTORAGE_KEY",
        "WEB_PAYLOAD",
        "WHOIS_NAME",
        "WHOIS_ADDR1",
        "WHOIS_ADDR2",
        "XPI",
    ]
)
"""Meta's list. Source: https://developers.facebook.com/docs/threat-exchange/reference/apis/indicator-type."""

REACTION_TYPES = frozenset(
    [
        "SAW_THIS_TOO",
        "NON_MALICIOUS",
        "DISAGREE_WITH_TAGS",
        "HELPFUL",
        "NOT_HELPFUL",
        "OUTDATED",
        "WANT_MORE_INFO",
        "INGESTED",
        "ALREADY_KNOWN",
        "IN_REVIEW",
        "REVIEWED",
    ]
)
"""Meta's list. Source: https://developers.facebook.com/docs/threat-exchange/reference/reacting."""

LESS_DATA = "Please reduce the amount of data you're asking for, then retry your request"


def descriptor(
    owner: str | None = "42", status: str = "MALICIOUS", *, tags: Any = (), reactions: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return one member's statement."""
    made: dict[str, Any] = {"id": f"9{owner}", "status": status, "tags": list(tags) if tags == () else tags}
    if owner is not None:
        made["owner"] = {"id": owner}
    if reactions:
        made["reactions"] = [{"key": key, "value": value} for key, value in reactions.items()]
    return made


def graph_error(code: JSON, *, http: int = 400, is_transient: bool | None = None, **headers: str) -> Fault:
    """Answer with an error of the Graph API; its text holds the token, as the real one's may."""
    error: dict[str, Any] = {"message": f"(#{code}) with {TOKEN}", "type": "OAuthException", "code": code}
    if is_transient is not None:
        error["is_transient"] = is_transient
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: replace(as_json({"error": error}, code=http), headers=named)


@dataclass(kw_only=True)
class GraphApi:
    """Tells each indicator once, at the time of its last change, oldest first; those that were taken back as well.

    A page begins after the last item of the one before it. `retains_after` forgets what was taken back before that
    time, as the real one does after a while; `forget` ends the URLs of pages.

    Indicator types that are not on Meta's list are refused wherever they are named. `largest_limit` is the most
    indicators that it returns at once before it asks for less data; None where it takes every limit. Without
    `is_enabled` the group has no threat_updates. `descriptors_per_page` cuts each indicator's descriptors into pages.
    """

    page_size: int = 2
    at_s: int = 1_700_000_000
    retains_after: int = 0
    updates: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    extra_items: list[Any] = field(default_factory=list)
    next_host: str | None = None
    descriptors_host: str | None = None
    token: str = TOKEN
    largest_limit: int | None = None
    is_enabled: bool = True
    descriptors_per_page: int | None = None
    asked: list[Asked] = field(default_factory=list)
    _cursors: set[str] = field(default_factory=set)

    def put(self, indicator: str, *descriptors: Mapping[str, Any], type: str = "TEXT_STRING") -> None:  # noqa: A002 - its name
        """State something of an indicator, in place of what was stated before."""
        self._say(indicator, type, descriptors={"data": list(descriptors)})

    def delete(self, indicator: str, *, type: str = "TEXT_STRING") -> None:  # noqa: A002 - its name in the API
        """Take an indicator back."""
        self._say(indicator, type, should_delete=True)

    def forget(self) -> None:
        """Let the URLs of pages expire."""
        self._cursors.clear()

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        if asked.query.get("access_token") != self.token:
            return graph_error(190)(Answer())
        path = re.sub(r"^/v[0-9]+\.0/", "", asked.path)
        if asked.method in {"POST", "DELETE"}:
            return self._change(path, asked)
        if path.endswith("/descriptors"):
            return self._more_descriptors(path, asked)
        assert path == f"{GROUP}/threat_updates/", asked.path
        if not self.is_enabled:
            return graph_error(2, http=500)(Answer())
        for index, name in enumerate(filter(None, asked.query.get("types", "").split(","))):
            if name not in INDICATOR_TYPES:
                return _not_listed(f"types[{index}]", INDICATOR_TYPES)
        if self.largest_limit is not None and int(asked.query["limit"]) > self.largest_limit:
            return as_json({"error": {"message": LESS_DATA, "code": 1, "type": "OAuthException"}}, code=500)
        cursor = asked.query.get("after", "0")
        if cursor != "0" and cursor not in self._cursors:
            return graph_error(100)(Answer())
        after_s = int(asked.query["start_time"])
        told = [
            update
            for update in sorted(self.updates.values(), key=lambda update: int(update["last_updated"]))
            if update["last_updated"] >= max(after_s, int(cursor) + 1)
            and not (update.get("should_delete") and update["last_updated"] < self.retains_after)
        ]
        page_size = min(self.page_size, int(asked.query["limit"]))
        page = [self._first_descriptors(update, asked) for update in told[:page_size]]
        items = [*page, *(self.extra_items if cursor == "0" else [])]
        body: dict[str, Any] = {"data": items}
        if page_size < len(told):
            following = str(told[page_size - 1]["last_updated"])
            self._cursors.add(following)
            query = urlencode({**asked.query, "after": following})
            host = self.next_host or f"http://{asked.headers['host']}"
            body["paging"] = {"cursors": {"after": "x"}, "next": f"{host}{asked.path}?{query}"}
        return as_json(body)

    def _first_descriptors(self, update: dict[str, Any], asked: Asked) -> dict[str, Any]:
        """Return an indicator with the first page of its descriptors."""
        count, edge = self.descriptors_per_page, update.get("descriptors", {})
        if count is None or len(edge.get("data", [])) <= count:
            return update
        return {**update, "descriptors": self._descriptors(update, 0, asked)}

    def _descriptors(self, update: dict[str, Any], start: int, asked: Asked) -> dict[str, Any]:
        assert self.descriptors_per_page is not None
        end = start + self.descriptors_per_page
        edge: dict[str, Any] = {"data": update["descriptors"]["data"][start:end], "paging": {"cursors": {"after": "x"}}}
        if end < len(update["descriptors"]["data"]):
            host = self.descriptors_host or f"http://{asked.headers['host']}"
            query = urlencode({"access_token": self.token, "after": end})
            edge["paging"]["next"] = f"{host}/v26.0/{update['id']}/descriptors?{query}"
        return edge

    def _more_descriptors(self, path: str, asked: Asked) -> Answer:
        [update] = [each for each in self.updates.values() if each["id"] == path.partition("/")[0]]
        return as_json(self._descriptors(update, int(asked.query["after"]), asked))

    def _change(self, path: str, asked: Asked) -> Answer:
        """State something, or react to a descriptor, as the app that the token is of."""
        if path == "threat_descriptors":
            form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
            if form["type"] not in INDICATOR_TYPES:
                return _not_listed("type", INDICATOR_TYPES)
            mine = descriptor(APP_ID, form["status"], tags=form.get("tags", "").split(","))
            known = self.updates.get((form["type"], form["indicator"]), {}).get("descriptors", {}).get("data", [])
            others = [each for each in known if each["owner"]["id"] != APP_ID]
            self.put(form["indicator"], *others, mine, type=form["type"])
            return as_json({"success": True, "id": mine["id"]})
        for update in [*self.updates.values()]:
            for each in update.get("descriptors", {}).get("data", []):
                if each["id"] == path:
                    return self._react(update, each, asked)
        return graph_error(100)(Answer())

    def _react(self, update: dict[str, Any], each: dict[str, Any], asked: Asked) -> Answer:
        given = {line["key"]: line["value"] for line in each.get("reactions", [])}
        for name in ("reactions_to_remove", "reactions"):
            for key in filter(None, asked.query.get(name, "").split(",")):
                if key not in REACTION_TYPES:
                    return _not_listed(name, REACTION_TYPES)
                members = [member for member in given.pop(key, "").split(",") if member not in {"", APP_ID}]
                given[key] = ",".join([*members, *([APP_ID] if name == "reactions" else [])])
        each["reactions"] = [{"key": key, "value": value} for key, value in given.items() if value]
        self.at_s += 1
        update["last_updated"] = self.at_s
        return as_json({"success": True})

    def _say(self, indicator: str, type_: str, **fields: Any) -> None:
        self.at_s += 1
        self.updates.pop((type_, indicator), None)
        self.updates[type_, indicator] = {
            "id": str(10_000 + len(self.updates)),
            "indicator": indicator,
            "type": type_,
            "last_updated": self.at_s,
            "should_delete": False,
            **fields,
        }


def _not_listed(parameter: str, names: frozenset[str]) -> Answer:
    """Return Graph's error for a value that is not one of an enumeration."""
    message = f"(#100) Param {parameter} must be one of {{{', '.join(sorted(names))}}}"
    error = {"message": message, "type": "OAuthException", "code": 100, "fbtrace_id": "A"}
    return as_json({"error": error}, code=400)
