"""The API of Tech Against Terrorism's hash list: a login, and the list in the order of change."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.exchanges.server import Answer, Asked, as_json

USER = "analyst@platform.example"
PASSWORD = "hunter2:with a colon"
CREDENTIALS = {"username": USER, "password": PASSWORD}


@dataclass(kw_only=True)
class TatApi:
    """Tells each entry once, at the time of its last change, oldest first; deleted ones as well.

    `tokens` are those that it takes, and `lasts` is how many pages each is good for; `forget` ends them. What it
    tells as the next page is on `next_host`.
    """

    page_size: int = 2
    at_s: float = 1_704_000_000.25
    lasts: int = 1_000_000
    next_host: str = "http://dev.example"
    logins: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    entries: dict[int, dict[str, Any]] = field(default_factory=dict)
    extra_items: list[Any] = field(default_factory=list)

    def put(self, entry_id: int, digest: str, *, algorithm: str = "MD5", file_type: str = "mp4", **more: Any) -> None:
        """Tell an entry, in place of what was told of it before."""
        self.at_s += 0.5
        self.entries[entry_id] = {
            "hash_digest": digest,
            "algorithm": algorithm,
            "ideology": "Far-Right",
            "file_type": file_type,
            "deleted": False,
            "updated_on": self.at_s,
            "created_on": "2024-01-10T15:37:20.222779Z",
            "id": entry_id,
            **more,
        }

    def delete(self, entry_id: int) -> None:
        """Take an entry off the list."""
        if entry_id in self.entries:
            self.at_s += 0.5
            self.entries[entry_id] |= {"deleted": True, "updated_on": self.at_s}

    def forget(self) -> None:
        """Let the tokens expire."""
        self.tokens.clear()

    def answer(self, asked: Asked) -> Answer:
        if asked.path == "/token-auth/tcap/":
            return self._log_in(asked)
        assert (asked.method, asked.path) == ("GET", "/api/hash-list/v2/all")
        assert asked.query["order"] == "asc"
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, 0) == 0:
            return as_json({"detail": f"Given token {token} not valid"}, code=401)
        self.tokens[token] -= 1
        return as_json(self._page(asked.query.get("after"), int(asked.query.get("offset", "0"))))

    def _log_in(self, asked: Asked) -> Answer:
        self.logins += 1
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        if (asked.method, form) != ("POST", {"username": USER, "password": PASSWORD, "resend": "False"}):
            return as_json({"non_field_errors": [f"no such user {form}"]}, code=400)
        token = f"hunter2.token.{self.logins}"
        self.tokens[token] = self.lasts
        return as_json({"user": {"email": USER}, "token": token})

    def _page(self, after: str | None, offset: int) -> dict[str, Any]:
        told = sorted(self.entries.values(), key=_place)
        if after is not None:
            at, _, entry_id = after.partition(",")
            told = [entry for entry in told if _place(entry) > (float(at), int(entry_id))]
        page: list[Any] = told[offset : offset + self.page_size]
        has_next = offset + self.page_size < len(told)
        last = page[-1] if page else None
        return {
            "count": len(told),
            # Another scheme, host and path than the list has: it is not meant to be followed as it is.
            "next": f"{self.next_host}/hash-list/v2/all?limit=2&offset={offset + 2}&order=asc" if has_next else None,
            "previous": None,
            "checkpoint": None if last is None else f"{last['updated_on']:.6f},{last['id']}",
            "results": [*self.extra_items, *page] if after is None and page else page,
        }


def _place(entry: dict[str, Any]) -> tuple[float, int]:
    return float(entry["updated_on"]), int(entry["id"])
