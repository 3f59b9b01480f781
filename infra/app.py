"""The CDK app: `python -m infra.app` synthesises it, by hand or for the CDK's command line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aws_cdk import App, Validations
from aws_cdk.cx_api import CloudAssembly
from cdk_nag import AwsSolutionsChecks

from infra.deployment import Deployment
from infra.service import ServiceStack
from infra.storage import StorageStack

CDK_JSON = Path(__file__).resolve().parent.parent / "cdk.json"


def synthesise(outdir: Path | None = None, *, knobs: Mapping[str, Any] | None = None) -> CloudAssembly:
    """Synthesise the app; `knobs` are of the context, and what the CDK's command line gives goes before them.

    Without `outdir`, `CDK_OUTDIR` says where to; without both, what is written is gone when the process ends.

    Raises:
        ValueError: A knob is wrong.
        RuntimeError: A check of the AWS Solutions pack, or of the CDK itself, finds something.
    """
    context = json.loads(CDK_JSON.read_text(encoding="utf-8"))["context"]
    app = App(context={**context, **(knobs or {})}, outdir=None if outdir is None else str(outdir))
    deployment = Deployment.from_context(app.node.get_all_context({}))
    storage = StorageStack(app, f"{deployment.name}-storage", deployment=deployment)
    ServiceStack(app, f"{deployment.name}-service", storage=storage, deployment=deployment)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return app.synth()


def main() -> None:
    """Synthesise as the environment says."""
    synthesise()


if __name__ == "__main__":
    main()
