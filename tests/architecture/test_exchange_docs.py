"""The page on exchanges lists every kind, each field of it, and where its credentials are looked for."""

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from countermark.domain.exchange import TakesLines, TakesOpinions, TakesSignals
from countermark.domain.transport import Request, Response
from countermark.exchanges import exchanges
from countermark.signals import SIGNAL_TYPES

PAGE = (Path(__file__).parents[2] / "docs/exchanges.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


class Nowhere:
    """Reads nothing and speaks to nobody: the kinds are asked what they are, not to do anything."""

    def open(self, uri: str) -> AbstractContextManager[BinaryIO]:
        raise AssertionError(uri)

    def send(self, request: Request, *, max_bytes: int) -> Response:
        raise AssertionError(max_bytes)


KINDS = exchanges(reader=Nowhere(), signal_types=SIGNAL_TYPES, transport=Nowhere())


def test_every_kind_has_a_section_and_no_other() -> None:
    assert SECTIONS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_field_and_place_of_a_kind_is_documented(kind: str) -> None:
    exchange, section = KINDS[kind], SECTIONS[kind]
    for field in exchange.config_fields:
        assert f"| `{field.name}` |" in section
        if field.required:
            assert "required" in section
    for field in exchange.credential_fields or ():
        assert f"`{field.name}`" in section
    source = exchange.credential_source
    if source is None:
        assert "| credentials | none |" in section
    else:
        assert f"`{source.environment_variable}`" in section
        assert f"`~/{source.dot_file}`" in section
        assert source.form.replace("|", "\\|") in section
    if not exchange.config_fields:
        assert "| configuration | none |" in section


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_sent_back_is_documented_and_nothing_where_nothing_is(kind: str) -> None:
    [told] = re.findall(r"^\| sent back \| (.*) \|$", SECTIONS[kind], re.MULTILINE)
    takes_some = isinstance(KINDS[kind], TakesOpinions | TakesSignals | TakesLines)
    assert told.startswith("nothing") is not takes_some
    if isinstance(KINDS[kind], TakesOpinions):
        assert ("new signals" in told and "no new signals" not in told) is isinstance(KINDS[kind], TakesSignals)
    assert re.search(r"^\| checkpoint \| ", SECTIONS[kind], re.MULTILINE)


def test_every_environment_of_ncmec_is_documented() -> None:
    [environment] = [field for field in KINDS["ncmec"].config_fields if field.name == "environment"]
    assert environment.choices is not None
    for name in environment.choices:
        assert name.startswith("test_") or f"`{name}`" in SECTIONS["ncmec"]
