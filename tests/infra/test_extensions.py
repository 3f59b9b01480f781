"""A deployment that names extensions: the functions that know signals carry them, and learn their names."""

from collections.abc import Mapping
from pathlib import Path

from tests.infra.synthesis import run_synthesis, small_layers, synthesise
from tests.infra.template import reference
from tests.infra.test_service import STAGES, functions

KNOBS: Mapping[str, str] = {"countermark:extensions": "known_addresses,package.module"}


def test_functions_that_know_signals_carry_the_extensions(tmp_path: Path) -> None:
    layers = small_layers(tmp_path)
    (layers / "extensions").mkdir()
    template = synthesise(layers, tmp_path / "out", knobs=KNOBS)
    for stage in STAGES:
        function = functions(template)[stage]
        carried = {"ExtensionsLayer", "HeavyLayer"} <= {reference(layer) for layer in function["Layers"]}
        assert carried == (stage != "authorize")
        assert function["Environment"]["Variables"]["COUNTERMARK_EXTENSIONS"] == "known_addresses,package.module"


def test_extensions_without_a_layer_of_theirs_are_refused(tmp_path: Path) -> None:
    done = run_synthesis(small_layers(tmp_path), tmp_path / "out", knobs=KNOBS)
    assert done.returncode != 0
    assert "countermark:extensions names modules, and layers/extensions holds none" in done.stderr
