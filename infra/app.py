"""The CDK app. Users and the CDK's command line run `python -m infra.app` to synthesise the app."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aws_cdk import App, Validations
from aws_cdk.cx_api import CloudAssembly
from cdk_nag import AwsSolutionsChecks

from infra import service
from infra.deployment import Deployment
from infra.service import ServiceStack
from infra.storage import StorageStack
from layers import build

MAX_NAMED = 20
"""The maximum number of changed files that an error message names."""

CDK_JSON = Path(__file__).resolve().parent.parent / "cdk.json"


def synthesise(outdir: Path | None = None, *, knobs: Mapping[str, Any] | None = None) -> CloudAssembly:
    """Synthesise the app. `knobs` are added to the context; values from the CDK's command line override them.

    The output is written to `outdir`, or else to the directory in `CDK_OUTDIR`. If neither is set, the output is
    deleted when the process ends.

    If the sources of the layers have changed, the layers are built first, so that the checkout's code is deployed.

    Raises:
        ValueError: A knob is unknown, or its value is not allowed.
        StaleLayers: The layers are not built from the current sources, and cannot be built here.
        RuntimeError: A check of the AWS Solutions pack, or of the CDK itself, has findings.
    """
    if service.LAYERS == build.DESTINATION:
        _build_layers()
    context = json.loads(CDK_JSON.read_text(encoding="utf-8"))["context"]
    app = App(context={**context, **(knobs or {})}, outdir=None if outdir is None else str(outdir))
    deployment = Deployment.from_context(app.node.get_all_context({}))
    storage = StorageStack(app, f"{deployment.name}-storage", deployment=deployment)
    ServiceStack(app, f"{deployment.name}-service", storage=storage, deployment=deployment)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return app.synth()


class StaleLayers(Exception):
    """The layers are not built from the current sources, and cannot be built here. The text names changed files."""


def _build_layers() -> None:
    """Build the layers whose sources have changed."""
    changed = build.changed_inputs(build.DESTINATION)
    try:
        build.build(build.DESTINATION)
    except build.BuildError as error:
        more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        what = ", ".join(changed[:MAX_NAMED]) or "files in build/layers"
        raise StaleLayers(
            f"changed since the layers were built: {what}{more}. Building them failed: {error}"
        ) from error


def main() -> int:
    """Synthesise with the settings of the environment, and return the exit code."""
    try:
        synthesise()
    except StaleLayers as error:
        sys.stderr.write(f"infra: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
