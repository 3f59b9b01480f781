"""What is synthesised is what is checked out: layers of older sources are built again, or nothing is synthesised."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.infra.synthesis import Synthesiser, running_synthesiser, small_layers

CHANGED = f"{__name__}:synthesise_changed"


def synthesise_changed(directory: str, is_broken: bool) -> None:
    """Do as `python -m infra.app` does, in the process of the CDK, over a package and layers in a directory."""
    from infra import app, service
    from layers import build

    def fail(*_: object) -> None:
        raise build.BuildError("there is no network")

    layers = Path(directory) / "layers"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "LAYERS", layers)
        patch.setattr(build, "DESTINATION", layers)
        patch.setattr(build, "LAYERS", ("countermark",))
        patch.setattr(build, "_package", lambda: Path(directory) / "package")
        if is_broken:
            patch.setattr(build, "_compile", fail)
        patch.setattr(app, "synthesise", partial(app.synthesise, Path(directory) / "out"))
        sys.exit(app.main())


def deployed_texts(directory: Path) -> set[str]:
    """Return the sources of the package in the assets of the synthesis."""
    assets = json.loads((directory / "out" / "countermark-service.assets.json").read_text())["files"].values()
    sources = [directory / "out" / asset["source"]["path"] for asset in assets]
    return {path.read_text() for source in sources for path in source.glob("python/countermark/*.py")}


def test_synthesis_builds_layers_whose_sources_have_changed_or_names_what_changed(
    cdk: Synthesiser, tmp_path: Path
) -> None:
    small_layers(tmp_path)
    package = tmp_path / "package"
    package.mkdir()
    (package / "one.py").write_text("ONE = 1\n")
    done = cdk.run(CHANGED, str(tmp_path), False)
    assert done.code == 0, done.said
    assert deployed_texts(tmp_path) == {"ONE = 1\n"}

    # As after a `git pull`.
    (package / "one.py").write_text("ONE = 11\n")
    (package / "two.py").write_text("TWO = 2\n")
    done = cdk.run(CHANGED, str(tmp_path), True)
    assert done.code == 1
    assert "infra: changed since the layers were built: one.py, two.py. " in done.said
    assert "there is no network" in done.said

    # The CDK remembers what a directory held for as long as its process runs.
    with running_synthesiser() as later:
        done = later.run(CHANGED, str(tmp_path), False)
    assert done.code == 0, done.said
    assert deployed_texts(tmp_path) == {"ONE = 11\n", "TWO = 2\n"}
