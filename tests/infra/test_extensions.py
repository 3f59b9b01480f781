"""A deployment that names extensions: the functions that know signals carry them, and learn their names."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.infra.synthesis import Synthesiser, small_layers
from tests.infra.template import reference
from tests.infra.test_service import STAGES, functions

KNOBS: Mapping[str, str] = {"countermark:extensions": "known_addresses,package.module"}


def test_functions_that_know_signals_carry_the_extensions(cdk: Synthesiser, tmp_path: Path) -> None:
    layers = small_layers(tmp_path)
    (layers / "extensions").mkdir()
    template = cdk.service(layers, tmp_path / "out", knobs=KNOBS)
    for stage in STAGES:
        function = functions(template)[stage]
        carried = {"ExtensionsLayer", "HeavyLayer"} <= {reference(layer) for layer in function["Layers"]}
        assert carried == (stage not in {"authorize", "forward"})
        assert function["Environment"]["Variables"]["COUNTERMARK_EXTENSIONS"] == "known_addresses,package.module"


def test_extensions_without_a_layer_of_theirs_are_refused(cdk: Synthesiser, tmp_path: Path) -> None:
    done = cdk.small(small_layers(tmp_path), tmp_path / "out", knobs=KNOBS)
    assert done.code != 0
    assert "countermark:extensions names modules, but layers/extensions contains none" in done.said


def test_an_extension_of_our_own_needs_no_layer(cdk: Synthesiser, tmp_path: Path) -> None:
    knobs = {"countermark:extensions": "countermark.extensions.vpdq"}
    template = cdk.service(small_layers(tmp_path), tmp_path / "out", knobs=knobs)
    for function in functions(template).values():
        assert "ExtensionsLayer" not in {reference(layer) for layer in function["Layers"]}
        assert function["Environment"]["Variables"]["COUNTERMARK_EXTENSIONS"] == "countermark.extensions.vpdq"


def test_every_function_imports_what_our_own_extension_needs_without_the_heavy_layer() -> None:
    script = (
        "import sys; from countermark.extensions.registries import registries; "
        "kind = registries(['countermark.extensions.vpdq']).signal_types['vpdq']; kind.parse(*kind.examples); "
        "assert not {'numpy', 'PIL', 'faiss'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
