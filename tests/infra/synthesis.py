"""The app synthesised with knobs, in one process for all tests: its start takes ten times as long as a synthesis."""

import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a function in the CDK's process came to: 0 or an exit code, and what it wrote."""

    code: int
    said: str


@dataclass(frozen=True, slots=True)
class Synthesiser:
    """A process in which the CDK's library runs, with the Node that it starts.

    The CDK reads a directory once in each process: what has changed since takes another process.
    """

    process: "subprocess.Popen[str]"

    def run(self, function: str, *arguments: object) -> Done:
        """Call a function by its name, `module:name`, with arguments that JSON can hold."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([function, arguments]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process that synthesises ended: its standard error says why"
        return Done(**json.loads(answer))

    def small(self, layers: Path, outdir: Path, *, knobs: Mapping[str, Any]) -> Done:
        """Synthesise over layers that hold next to nothing: the real ones stay as they are."""
        return self.run(f"{__name__}:synthesise_small", str(layers), str(outdir), dict(knobs))

    def service(self, layers: Path, outdir: Path, *, knobs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the service stack's template over small layers."""
        done = self.small(layers, outdir, knobs=knobs)
        assert done.code == 0, done.said[-2000:]
        template: Mapping[str, Any] = json.loads((outdir / "countermark-service.template.json").read_text())
        return template

    def whole(self, outdir: Path, *, knobs: Mapping[str, Any]) -> None:
        """Synthesise over the real layers, which are built where their sources have changed."""
        done = self.run(f"{__name__}:synthesise_whole", str(outdir), dict(knobs))
        assert done.code == 0, done.said


@contextmanager
def running_synthesiser() -> Iterator[Synthesiser]:
    """Run the process, and end it and its Node."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            env=cdk_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with process:
            yield Synthesiser(process)
        errors.seek(0)
        assert process.returncode == 0, errors.read().decode(errors="replace")[-2000:]


def cdk_environ() -> dict[str, str]:
    """Return an environment in which the CDK leaves nothing outside the checkout, and runs on the pinned Node."""
    # Without bytecode every import of the CDK takes six seconds longer.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(ROOT / "build" / "jsii"), "HOME": str(ROOT / "build" / "home")}
    if (node := Path(sys.executable).with_name("node")).exists():
        environ["JSII_NODE"] = str(node)
    return environ


def small_layers(directory: Path) -> Path:
    """Make layers that hold next to nothing."""
    for name in ("light", "heavy", "countermark"):
        (directory / "layers" / name).mkdir(parents=True)
        (directory / "layers" / name / "made-up").touch()
    return directory / "layers"


def synthesise_small(layers: str, outdir: str, knobs: Mapping[str, Any]) -> None:
    from infra import app, service

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "LAYERS", Path(layers))
        app.synthesise(Path(outdir), knobs=knobs)


def synthesise_whole(outdir: str, knobs: Mapping[str, Any]) -> None:
    from infra import app

    app.synthesise(Path(outdir), knobs=knobs)


def main() -> None:
    """Call the functions that standard input names, a line each, and answer with what they came to."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        function, arguments = json.loads(line)
        module, _, name = function.partition(":")
        said, code = io.StringIO(), 0
        with redirect_stderr(said), redirect_stdout(said):
            try:
                getattr(importlib.import_module(module), name)(*arguments)
            except SystemExit as ended:
                code = int(ended.code or 0)
            except Exception:  # noqa: BLE001 - the test that asked looks at it
                traceback.print_exc()
                code = 1
        print(json.dumps({"code": code, "said": said.getvalue()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
