"""The part of the Graph API that ThreatExchange is spoken to by: a privacy group, told as it is now."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from countermark.domain.json import JSON
from tests.exchanges.server import Answer, Asked, Fault, as_json

APP_ID = "1234567890"
SECRET = "hunter2-hunter2-hunter2"
TOKEN = f"{APP_ID}|{SECRET}"
GROUP = 1012185296055235


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
    time, as the real one does after 90 days; `forget` ends the URLs of pages.
    """

    page_size: int = 2
    at_s: int = 1_700_000_000
    retains_after: int = 0
    updates: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    extra_items: list[Any] = field(default_factory=list)
    next_host: str | None = None
    token: str = TOKEN
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
        assert asked.path == f"/v21.0/{GROUP}/threat_updates/", asked.path
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
        items = [*told[: self.page_size], *(self.extra_items if cursor == "0" else [])]
        body: dict[str, Any] = {"data": items}
        if self.page_size < len(told):
            following = str(told[self.page_size - 1]["last_updated"])
            self._cursors.add(following)
            query = urlencode({**asked.query, "after": following})
            host = self.next_host or f"http://{asked.headers['host']}"
            body["paging"] = {"cursors": {"after": "x"}, "next": f"{host}{asked.path}?{query}"}
        return as_json(body)

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
