"""All exchanges together: what each says of itself, and what holds for every one."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from countermark.cli.session import Session
from countermark.domain.exchange import Exchange, ListsMemberships, TakesOpinions
from countermark.domain.json import JSON
from countermark.errors import InvalidInput
from countermark.exchanges import exchanges
from countermark.signals import SIGNAL_TYPES
from tests.exchanges.memory_reader import MemoryReader
from tests.exchanges.server import quick_transport

KINDS = exchanges(reader=MemoryReader({}), signal_types=SIGNAL_TYPES, transport=quick_transport())

SOURCES = {
    "fb_threatexchange": ("TX_ACCESS_TOKEN", ".txtoken"),
    "ncmec": ("TX_NCMEC_CREDENTIALS", ".tx_ncmec_credentials"),
    "stop_ncii": ("TX_STOPNCII_KEYS", ".tx_stopncii_keys"),
    "tat": ("PYTX_TAT_CREDENTIALS", ".pytx_tat_credentials"),
    "local_file": None,
    "sample": None,
}
"""Where the peers keep the credentials of each kind: the environment variable and the dot file."""

FIELDS = {
    "fb_threatexchange": ["privacy_group"],
    "ncmec": ["environment", "only_esp_ids"],
    "stop_ncii": [],
    "tat": [],
    "local_file": ["filename", "signal_type"],
    "sample": [],
}


@pytest.fixture(params=list(SOURCES))
def exchange(request: pytest.FixtureRequest) -> Exchange:
    return KINDS[request.param]


def test_the_command_line_has_every_kind(tmp_path: Path) -> None:
    assert Session(directory=tmp_path).exchanges().keys() == KINDS.keys() == SOURCES.keys() == FIELDS.keys()


def test_credentials_stand_where_the_peers_keep_them(exchange: Exchange) -> None:
    source = exchange.credential_source
    assert (source and (source.environment_variable, source.dot_file)) == SOURCES[exchange.kind]
    assert (exchange.credential_fields is None) == (source is None)


def test_a_configuration_has_the_fields_of_the_peers_files_and_no_address(exchange: Exchange) -> None:
    assert [field.name for field in exchange.config_fields] == FIELDS[exchange.kind]
    assert all(field.help for field in [*exchange.config_fields, *(exchange.credential_fields or ())])


def test_what_is_no_credentials_is_never_shown(exchange: Exchange) -> None:
    for text in ("hunter2", ",hunter2", "hunter2,,,", "hunter2:"):
        with pytest.raises(InvalidInput) as caught:
            exchange.parse_credentials(text)
        assert "hunter2" not in str(caught.value)


def test_a_fetch_without_credentials_tells_what_is_missing(exchange: Exchange) -> None:
    if exchange.credential_fields is not None:
        config: Mapping[str, JSON] = {
            "privacy_group": 1,
            "environment": "https://report.cybertip.org/hashsharing",
            "only_esp_ids": [],
        }
        joined = exchange.joined({field.name: config[field.name] for field in exchange.config_fields})
        with pytest.raises(InvalidInput, match=f"{exchange.kind} needs credentials"):
            list(joined.fetch(None, credentials=None, now_s=1_800_000_000).deltas)


def test_some_kinds_offer_more() -> None:
    assert {"fb_threatexchange", "ncmec"} <= {kind for kind, each in KINDS.items() if isinstance(each, TakesOpinions)}
    assert {kind for kind, each in KINDS.items() if isinstance(each, ListsMemberships)} == {"fb_threatexchange"}
