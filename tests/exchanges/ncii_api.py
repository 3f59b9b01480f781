"""The API of StopNCII.org: sets of the records that changed since a timestamp, and what platforms send back."""

from dataclasses import dataclass, field, replace
from typing import Any

from tests.exchanges.server import Answer, Asked, as_json

FUNCTION_KEY = "hunter2-function"
SUBSCRIPTION_KEY = "hunter2-subscription"
CREDENTIALS = {"fetch_function_key": FUNCTION_KEY, "subscription_key": SUBSCRIPTION_KEY}


def feedback(value: str, *, source: str = "Facebook", tags: Any = ()) -> dict[str, Any]:
    """Return one platform's feedback."""
    return {"source": source, "feedbackValue": value, "tags": list(tags) if tags == () else tags}


@dataclass(kw_only=True)
class NciiApi:
    """Tells each record once, at the time of its last change, oldest first.

    A set is what had changed by its first page, and its timestamp holds for the whole of it: it stands on the first
    page already. Until `forgets_tokens` the pages of a set are told by their tokens, however old. A page with a
    record of `damaged` has that record's JSON cut in the middle. `retains_after` forgets the tombstones from before
    that time, `rewinds_by` takes seconds from the timestamp, and `token_prefix` is what every token begins with.
    """

    page_size: int = 2
    at_s: int = 1_625_000_000
    retains_after: int = 0
    rewinds_by: int = 0
    token_prefix: str = ""
    damaged: set[str] = field(default_factory=set)
    takes_sizes: bool = True
    records: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    extra_items: list[Any] = field(default_factory=list)
    submitted: list[tuple[str, Any]] = field(default_factory=list)
    _sets: dict[str, tuple[list[dict[str, Any]], int]] = field(default_factory=dict)

    def put(
        self, value: str, *feedbacks: dict[str, Any], status: str = "Active", kind: str = "Text", **more: Any
    ) -> None:
        """Tell a hash, in place of what was told of it before."""
        self.at_s += 1
        self.records.pop((kind, value), None)
        self.records[kind, value] = {
            "lastModtimestamp": self.at_s,
            "signalType": kind,
            "hashValue": value,
            "hashStatus": status,
            "caseNumbers": {"00000000-0000-4000-8000-000000000001": status},
            "CSPFeedbacks": list(feedbacks),
            **more,
        }

    def forget_tokens(self) -> None:
        """Take no token that was given so far."""
        self._sets.clear()

    def answer(self, asked: Asked) -> Answer:
        keys = (asked.headers.get("x-functions-key"), asked.headers.get("ocp-apim-subscription-key"))
        if keys != (FUNCTION_KEY, SUBSCRIPTION_KEY):
            return as_json({"statusCode": 401, "message": f"Access denied due to invalid key {keys}"}, code=401)
        endpoint = asked.path.removeprefix("/v1/")
        if asked.method == "POST":
            self.submitted.append((endpoint, asked.json))
            return as_json({})
        assert endpoint == "FetchHashes"
        size = int(asked.query["pageSize"])
        if size != 800 and not self.takes_sizes:
            return as_json({"message": "pageSize"}, code=400)
        since_s = int(asked.query["startTimestamp"])
        assert since_s >= 10
        token = asked.query.get("nextPageToken")
        if token is None:
            name, at = f"set {len(self._sets)} since {since_s}", 0
            self._sets[name] = self._set_since(since_s)
        else:
            name, _, place = token.removeprefix(self.token_prefix).rpartition("+")
            at = int(place)
            if name not in self._sets:
                return as_json({"message": "unknown continuation token"}, code=400)
            assert name.endswith(f"since {since_s}"), "a token is of the query that it came with"
        items, next_s = self._sets[name]
        return self._damage(as_json(self._page(name, items, at, next_s, min(size, self.page_size))))

    def _set_since(self, since_s: int) -> tuple[list[dict[str, Any]], int]:
        told = [
            dict(record)
            for record in sorted(self.records.values(), key=lambda record: int(record["lastModtimestamp"]))
            if record["lastModtimestamp"] >= since_s
            and not (
                record["hashStatus"] in {"Withdrawn", "Deleted"} and record["lastModtimestamp"] < self.retains_after
            )
        ]
        return told, max(since_s, self.at_s)

    def _damage(self, answer: Answer) -> Answer:
        body = answer.body
        for value in self.damaged:
            at = body.find(f'"hashValue": "{value}"'.encode())
            if at >= 0:
                body = body[: at + 15] + b"\xff\x00" + body[at + 40 :]
        return replace(answer, body=body)

    def _page(self, name: str, items: list[dict[str, Any]], at: int, next_s: int, size: int) -> dict[str, Any]:
        page: list[Any] = items[at : at + size]
        has_more = at + size < len(items)
        if at == 0:
            page = [*self.extra_items, *page]
        return {
            "count": len(page),
            "nextPageToken": f"{self.token_prefix}{name}+{at + size}" if has_more else None,
            "nextSetTimestamp": next_s - self.rewinds_by,
            "hasMoreRecords": has_more,
            "hashRecords": page,
        }
