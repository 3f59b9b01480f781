"""The app as deployed, seen from outside: its API, its buckets, its bus; nothing of its code."""

import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cloud.emulator import REGION, Emulator, deploy, resources
from tests.conftest import CONTENT_BUCKET

STORAGE = "countermark-storage"
SERVICE = "countermark-service"

ADMIN = "the admin's key"
"""Stands for it in a call."""

PATIENCE_S = 60
"""How long a journey waits for what happens by itself: cold starts on a busy machine, and the nudges' window."""

REQUEST_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the API answered; `json` is None where the body is none."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment, by the names that an operator knows it by."""

    emulator: Emulator
    api_host: str
    bus: str
    access_table: str
    admin_key: str
    upload_bucket: str
    index_bucket: str
    fetch_queue: str
    hash_queue: str
    match_queue: str
    nudges_queue: str
    queues: Sequence[str]

    def client(self, service: Any) -> Any:
        """Return a client of the operator."""
        return self.emulator.client(service)

    def call(
        self,
        method: str,
        path: str,
        *,
        key: str | None = ADMIN,
        body: Any = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Answer:
        """Ask the API, as one of its clients does."""
        headers = {"Host": self.api_host}
        data = None
        if key is not None:
            headers["Authorization"] = f"Bearer {self.admin_key if key == ADMIN else key}"
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        if files is not None:
            headers["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
            data = _form(files)
        request = urllib.request.Request(f"{self.emulator.url}{path}", data=data, headers=headers, method=method)
        trust = ssl.create_default_context(cafile=self.emulator.certificate)
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_S, context=trust) as answer:
                return Answer(status=answer.status, text=answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(status=error.code, text=error.read().decode())

    def lookup(self, signal: str, signal_type: str = "pdq") -> Answer:
        """Look one signal up."""
        return self.call("GET", f"/m/lookup?{urllib.parse.urlencode({'signal': signal, 'signal_type': signal_type})}")

    def raw_lookup(self, signal: str) -> Answer:
        """Ask the index itself, whatever the state of what it finds is by now."""
        return self.call("GET", f"/m/raw_lookup?{urllib.parse.urlencode({'signal': signal, 'signal_type': 'pdq'})}")

    def window_s(self, queue: str) -> int:
        """Return for how long messages of a queue are gathered. The emulator hands them on at once, AWS does not."""
        arn = self.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        [feed] = self.client("lambda").list_event_source_mappings(EventSourceArn=arn)["EventSourceMappings"]
        window_s: int = feed["MaximumBatchingWindowInSeconds"]
        return window_s

    def builds(self) -> int:
        """Return how many manifests of the index were published so far."""
        versions = self.client("s3").list_object_versions(Bucket=self.index_bucket, Prefix="index/manifest.json")
        return len(versions["Versions"])

    def wait_until_drained(self, queues: Sequence[str]) -> None:
        """Wait until nothing waits in queues, dead letters among them, or is hidden after it failed."""
        deadline_s = time.monotonic() + PATIENCE_S
        while left := [url for url in queues if self._messages(url)]:
            assert time.monotonic() < deadline_s, f"messages are left in {left}"
            time.sleep(0.5)

    def _messages(self, queue: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        counts = self.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return sum(map(int, counts.values()))

    def listen(self, detail_type: str) -> "Listener":
        """Subscribe a queue of the platform's own to the bus."""
        return _subscribe(self.emulator, self.bus, detail_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A queue that the platform subscribed to the bus."""

    emulator: Emulator
    url: str

    def next(self, *, wait_s: int) -> Mapping[str, Any] | None:
        """Return the next event; None where none comes in time."""
        sqs = self.emulator.client("sqs")
        for message in sqs.receive_message(QueueUrl=self.url, WaitTimeSeconds=wait_s).get("Messages", []):
            sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
            event: Mapping[str, Any] = json.loads(message["Body"])
            return event
        return None


BOUNDARY = "made-up-boundary"


def deployed(emulator: Emulator, assembly: Path) -> Deployment:
    """Deploy both stacks, and give the first admin a key, as an operator does."""
    emulator.client("s3").create_bucket(Bucket=CONTENT_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    outputs = deploy(emulator, assembly, [STORAGE, SERVICE])
    queues = resources(emulator, SERVICE)["AWS::SQS::Queue"]
    return Deployment(
        emulator=emulator,
        api_host=urllib.parse.urlsplit(outputs[SERVICE]["ApiUrl"]).netloc,
        bus=outputs[SERVICE]["BusName"],
        access_table=outputs[STORAGE]["AccessTableName"],
        admin_key=give_key(emulator, outputs[STORAGE]["AccessTableName"], "admin", "admin"),
        upload_bucket=outputs[STORAGE]["UploadBucketName"],
        index_bucket=_index_bucket(emulator),
        fetch_queue=_only(queues, "FetchCollaborationsQueue"),
        hash_queue=_only(queues, "HashUploadsQueue"),
        match_queue=_only(queues, "MatchHashedQueue"),
        nudges_queue=_only(queues, "IndexNudgesQueue"),
        queues=queues,
    )


def give_key(emulator: Emulator, table: str, name: str, role: str) -> str:
    """Create a key as an operator does, by the command line, and return it."""
    command = [sys.executable, "-m", "countermark", "key", "--table", table, "create", name, "--role", role]
    done = subprocess.run(command, env=emulator.operator_environ(), capture_output=True, text=True, timeout=REQUEST_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for(what: str, ask: Callable[[], Answer], is_so: Callable[[Answer], bool]) -> Answer:
    """Ask until it is so, and return that answer; what happens by itself in the cloud tells nobody when."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so(answer := ask()):
        assert time.monotonic() < deadline_s, f"{what}: still {answer}"
        time.sleep(0.5)
    return answer


def _index_bucket(emulator: Emulator) -> str:
    """Return the bucket of the index, as the functions know it."""
    [name] = {
        function["Environment"]["Variables"]["COUNTERMARK_INDEX_BUCKET"]
        for function in emulator.client("lambda").list_functions()["Functions"]
    }
    bucket: str = name
    return bucket


def _only(names: Sequence[str], part: str) -> str:
    [name] = [name for name in names if part in name]
    return name


def _form(files: Mapping[str, bytes]) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in files.items()
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _subscribe(emulator: Emulator, bus: str, detail_type: str) -> Listener:
    name = f"platform-{detail_type}"
    sqs, events = emulator.client("sqs"), emulator.client("events")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allowed = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    pattern = json.dumps({"source": ["countermark"], "detail-type": [detail_type]})
    events.put_rule(Name=name, EventBusName=bus, EventPattern=pattern)
    events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "platform", "Arn": arn}])
    return Listener(emulator=emulator, url=url)
