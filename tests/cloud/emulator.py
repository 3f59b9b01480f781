"""An emulator of AWS on this machine, and the synthesised app deployed into it.

The emulator, ministack, runs in a process group of its own and listens on the loopback alone. It runs functions in
the interpreter that runs it, with the layers before everything else, and grants each what its role allows.
"""

import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.cloud.certificate import make_certificate

REGION = "eu-central-1"
ACCOUNT = "123456789012"
START_S = 60
"""How long the emulator may take to answer, and a stack to be deployed."""

END_S = 5
"""How long it may take to end by itself; then it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulator:
    """A running emulator: its URL, the certificate that it shows, and the file that it writes its log to."""

    url: str
    certificate: Path
    log: Path

    def client(self, service: Any) -> Any:
        """Return a client of the administrator of the account."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCOUNT,
            aws_secret_access_key="made-up",
            verify=str(self.certificate),
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def operator_environ(self) -> dict[str, str]:
        """Return the environment in which a command of the operator's finds this account."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.log.parent),
            "AWS_ENDPOINT_URL": self.url,
            "AWS_CA_BUNDLE": str(self.certificate),
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCOUNT,
            "AWS_SECRET_ACCESS_KEY": "made-up",
        }


@contextmanager
def running_emulator(directory: Path) -> Iterator[Emulator]:
    """Run an emulator, and end it and all that it started, for certain."""
    port = _free_port()
    log = directory / "emulator.log"
    tls = make_certificate(directory)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COUNTERMARK_", "PYTHON"))
    } | {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "AUTH": "true",
        "USE_SSL": "1",
        "MINISTACK_SSL_CERT": str(tls.certificate),
        "MINISTACK_SSL_KEY": str(tls.key),
        "AWS_CA_BUNDLE": str(tls.certificate),
        "TMPDIR": str(directory),
        "HOME": str(directory),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ministack"],
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            emulator = Emulator(url=f"https://127.0.0.1:{port}", certificate=tls.certificate, log=log)
            _wait_for(emulator, process)
            yield emulator
        finally:
            _end(process)


def deploy(emulator: Emulator, output: Path, stacks: Sequence[str]) -> dict[str, dict[str, str]]:
    """Deploy synthesised stacks in order, as the CDK does after its bootstrap; returns the outputs of each."""
    assets = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
    emulator.client("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
    emulator.client("s3").create_bucket(Bucket=assets, CreateBucketConfiguration={"LocationConstraint": REGION})
    uploaded: set[str] = set()
    for stack in stacks:
        for key, source in _assets(output, stack):
            if key not in uploaded:
                body = _for_emulator(source) if source.name.endswith(".template.json") else _packed(source)
                emulator.client("s3").put_object(Bucket=assets, Key=key, Body=body)
                uploaded.add(key)
    return {
        stack: _create(emulator, stack, f"{emulator.url}/{assets}/{_template_key(output, stack)}") for stack in stacks
    }


def resources(emulator: Emulator, stack: str) -> dict[str, list[str]]:
    """Return the physical ids of a stack's resources, by type."""
    found: dict[str, list[str]] = {}
    for resource in emulator.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]:
        found.setdefault(resource["ResourceType"], []).append(resource["PhysicalResourceId"])
    return found


def _create(emulator: Emulator, stack: str, template_url: str) -> dict[str, str]:
    cloudformation = emulator.client("cloudformation")
    cloudformation.create_stack(StackName=stack, TemplateURL=template_url, Capabilities=["CAPABILITY_IAM"])
    deadline_s = time.monotonic() + START_S
    while True:
        told = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        if not told["StackStatus"].endswith("IN_PROGRESS"):
            break
        assert time.monotonic() < deadline_s, f"{stack} is still at {told['StackStatus']}"
        time.sleep(0.1)
    if told["StackStatus"] != "CREATE_COMPLETE":
        events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        failed = [
            (event["LogicalResourceId"], event.get("ResourceStatusReason"))
            for event in events
            if event["ResourceStatus"].endswith("FAILED")
        ]
        raise AssertionError(f"{stack}: {told['StackStatus']}: {failed}")
    return {output["OutputKey"]: output["OutputValue"] for output in told.get("Outputs", [])}


def _assets(output: Path, stack: str) -> Iterator[tuple[str, Path]]:
    """Yield the key and the source of each asset of a stack."""
    manifest: Mapping[str, Any] = json.loads((output / f"{stack}.assets.json").read_text(encoding="utf-8"))
    for asset in manifest["files"].values():
        for destination in asset["destinations"].values():
            yield destination["objectKey"], output / asset["source"]["path"]


def _template_key(output: Path, stack: str) -> str:
    """Return the key of a stack's template, which is an asset as well: too large to be sent in a request."""
    return next(key for key, source in _assets(output, stack) if source == output / f"{stack}.template.json")


def _for_emulator(template: Path) -> bytes:
    """Return a template with the three things that the emulator understands otherwise than AWS, said its way.

    AWS answers a `Ref` of a secret with its ARN, the emulator with its name: `GetAtt Id` is the ARN to both. AWS
    lets who has `sqs:SendMessage` send batches; the emulator asks for an action that AWS does not know. The emulator
    has no metric math: such an alarm watches the first of its metrics instead.
    """
    parsed = json.loads(template.read_text(encoding="utf-8"))
    secrets = {name for name, each in parsed["Resources"].items() if each["Type"] == "AWS::SecretsManager::Secret"}

    def said_its_way(value: Any) -> Any:
        match value:
            case {"Ref": name} if name in secrets:
                return {"Fn::GetAtt": [name, "Id"]}
            case {"Effect": "Allow", "Action": actions, "Resource": _} if "sqs:SendMessage" in actions:
                return {**value, "Action": ["sqs:SendMessage", "sqs:SendMessageBatch"]}
            case {"Metrics": [*_], "AlarmDescription": _}:
                return _without_math(value)
            case dict():
                return {name: said_its_way(each) for name, each in value.items()}
            case list():
                return [said_its_way(each) for each in value]
        return value

    return json.dumps(said_its_way(parsed)).encode()


def _without_math(alarm: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of an alarm over an expression as those of one over the first metric in it."""
    first = next(each["MetricStat"] for each in alarm["Metrics"] if "MetricStat" in each)
    rest = {name: value for name, value in alarm.items() if name != "Metrics"}
    return {**rest, **first["Metric"], "Statistic": first["Stat"], "Period": first["Period"]}


def _packed(source: Path) -> bytes:
    """Return an asset as it is uploaded: a file as it is, a directory as a zip file, not compressed to save time."""
    if source.is_file():
        return source.read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(source))
    return packed.getvalue()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _wait_for(emulator: Emulator, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_S
    trust = ssl.create_default_context(cafile=emulator.certificate)
    while True:
        try:
            with urllib.request.urlopen(f"{emulator.url}/_ministack/health", timeout=2, context=trust):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            said = emulator.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            assert process.poll() is None, f"the emulator ended with {process.returncode}: {said}"
            assert time.monotonic() < deadline_s, f"the emulator does not answer: {said}"
            time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group: the emulator, and the functions that it started."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
