"""The functions with extensions, as their environment names them."""

from pathlib import Path

import pytest

from lambdas import composition
from lambdas.composition import stores
from tests.aws.deployed import CONTENT_BUCKET
from tests.lambdas.conftest import Functions
from tests.lambdas.test_fetch import collaborate

MODULE = """
from countermark.domain.signal import ContentType
from countermark.extensions import Manifest
from countermark.signals.digest import DigestType

COUNTERMARK_MANIFEST = Manifest(
    signal_types=(
        DigestType(
            name="text_sha256",
            content_types=frozenset({ContentType.TEXT}),
            algorithm="sha256",
            examples=("a" * 64,),
        ),
    )
)
"""


@pytest.fixture
def extended(functions: Functions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Functions:
    """The functions of a deployment with one extension."""
    (tmp_path / "ext_of_functions.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COUNTERMARK_EXTENSIONS", "ext_of_functions")
    composition.stores.cache_clear()
    return functions


def test_an_extensions_signals_are_fetched_indexed_and_matched(extended: Functions) -> None:
    collaborate(extended, "A", lines=None)
    extended.on.clients.s3.put_object(Bucket=CONTENT_BUCKET, Key="A", Body=b"text_sha256 " + b"b" * 64)
    assert extended.deliver("fetch", {"collaboration": "A"}) == []
    assert extended.deliver("index", {}) == []
    status, found = extended.ask("match", "/m/lookup", query={"signal_type": "text_sha256", "signal": "b" * 64})
    assert (status, found) == (200, {"A": [{"bank_content_id": 1, "distance": "-"}]})


def test_an_extension_that_cannot_be_loaded_fails_what_needs_it_to_be_tried_again(
    extended: Functions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collaborate(extended, "A")
    monkeypatch.setenv("COUNTERMARK_EXTENSIONS", "ext_of_functions,ext_gone")
    composition.stores.cache_clear()
    assert extended.deliver("fetch", {"collaboration": "A"}) == [0]
    assert "the extension ext_gone: there is no such module" in capsys.readouterr().out
    assert stores().collaborations.fetch_state("A").last_succeeded is None
