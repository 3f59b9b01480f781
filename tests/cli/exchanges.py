"""All exchanges of the network behind loopback servers: the command line speaks to them as to the real ones."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest

from countermark.exchanges.graph_api import GRAPH_VERSION
from tests.exchanges.graph_api import APP_ID, GROUP, SECRET, TOKEN, GraphApi
from tests.exchanges.hash_sharing import HashSharing
from tests.exchanges.ncii_api import FUNCTION_KEY, SUBSCRIPTION_KEY, NciiApi
from tests.exchanges.rerouted import Rerouted
from tests.exchanges.server import Answer, Asked, ExchangeServer, as_json, serving
from tests.exchanges.tat_api import TatApi

LINES = {
    "fb_threatexchange": TOKEN,
    "ncmec": "somebody:hunter2:hunter2",
    "stop_ncii": f"{FUNCTION_KEY},{SUBSCRIPTION_KEY}",
    "tat": "analyst@platform.example:hunter2:with a colon",
}
"""The credentials of each kind, in one line."""

FLAGS = {
    "fb_threatexchange": ["--privacy-group", str(GROUP)],
    "ncmec": ["--environment", "Industry"],
    "stop_ncii": [],
    "tat": [],
}
"""What each kind is configured with."""

HOSTS = {
    "fb_threatexchange": "graph.facebook.com",
    "ncmec": "report.cybertip.org",
    "stop_ncii": "api.stopncii.org",
    "tat": "app.terrorismanalytics.org",
}

SECRETS = ("hunter2", SECRET, urlencode({"": TOKEN})[1:], "c29tZWJvZHk6aHVudGVyMjpodW50ZXIy")
"""What no output may hold: the secret part of every kind's credentials, and how HTTP writes some of them."""


@dataclass(kw_only=True)
class Exchanges:
    """What each exchange says, and what was sent to it besides."""

    graph: GraphApi = field(default_factory=lambda: GraphApi(next_host="https://graph.facebook.com"))
    sharing: HashSharing = field(default_factory=lambda: HashSharing(now_s=1_700_000_000))
    ncii: NciiApi = field(default_factory=NciiApi)
    tat: TatApi = field(default_factory=TatApi)
    sent: list[Asked] = field(default_factory=list)
    servers: dict[str, ExchangeServer] = field(default_factory=dict)

    def answer_graph(self, asked: Asked) -> Answer:
        if asked.method in {"POST", "DELETE"}:
            self.sent.append(asked)
            return as_json({"success": True}, code=200 if asked.query["access_token"] == TOKEN else 400)
        if asked.path.startswith(f"/{GRAPH_VERSION}/{APP_ID}/threat_privacy_groups_"):
            group = {
                "id": str(GROUP),
                "name": "My  Group",
                "description": "what we\nshare",
                "threat_updates_enabled": True,
            }
            return as_json({"data": [group] if asked.path.endswith("member") else []})
        return self.graph.answer(asked)

    def answer_sharing(self, asked: Asked) -> Answer:
        if asked.method == "PUT":
            self.sent.append(asked)
        return self.sharing.answer(asked)


@contextmanager
def exchanges(patch: pytest.MonkeyPatch) -> Iterator[Exchanges]:
    """Serve all of them, and lead the transport there."""
    made = Exchanges()
    answers = {
        "fb_threatexchange": made.answer_graph,
        "ncmec": made.answer_sharing,
        "stop_ncii": made.ncii.answer,
        "tat": made.tat.answer,
    }
    with ExitStack() as stack:
        made.servers = {kind: stack.enter_context(serving(answer)) for kind, answer in answers.items()}
        rerouted = Rerouted(servers={HOSTS[kind]: server.url for kind, server in made.servers.items()})
        patch.setattr("countermark.transport.exchange_client.ExchangeTransport", lambda: rerouted)
        yield made
