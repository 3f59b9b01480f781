"""The CDK app: `python -m infra.app` synthesises it, by hand or for the CDK's command line."""

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
"""How many changed files are named."""

CDK_JSON = Path(__file__).resolve().parent.parent / "cdk.json"


def synthesise(outdir: Path | None = None, *, knobs: Mapping[str, Any] | None = None) -> CloudAssembly:
    """Synthesise the app; `knobs` are of the context, and what the CDK's command line gives goes before them.

    Without `outdir`, `CDK_OUTDIR` says where to; without both, what is written is gone when the process ends.

    The layers are built before, where their sources have changed since: what is deployed is what is checked out.

    Raises:
        ValueError: A knob is wrong.
        StaleLayers: The layers are not those of the sources, and cannot be built here.
        RuntimeError: A check of the AWS Solutions pack, or of the CDK itself, finds something.
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
    """The layers are not those of the sources, and cannot be built here. The text names what changed."""


def _build_layers() -> None:
    """Build the layers; nothing is done for those that are as their sources are."""
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
    """Synthesise as the environment says, and return the exit code."""
    try:
        synthesise()
    except StaleLayers as error:
        sys.stderr.write(f"infra: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
