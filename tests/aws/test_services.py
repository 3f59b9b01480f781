"""What S3, EventBridge, SQS and Secrets Manager do that a contract cannot ask for: limits, losses, refusals."""

import io
import json
import random
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from countermark.aws import clients, content, events, index, queues, retry, secrets
from countermark.aws.batches import in_batches
from countermark.aws.content import BUFFER_BYTES, S3ContentReader, S3UploadReader
from countermark.aws.events import EventBridgePublisher
from countermark.aws.index import S3IndexStore
from countermark.aws.queues import SqsQueue
from countermark.aws.secrets import SecretsManagerStore
from countermark.aws.uploads import presign_upload
from countermark.domain import event_json
from countermark.domain.event import BankChanged, MatchFound
from countermark.domain.index import Manifest
from countermark.errors import ContentTooLarge, InvalidInput, NotFound, PublishConflict, Unavailable
from countermark.signals.content_type import HEAD_BYTES
from tests.aws.deployed import CONTENT_BUCKET, Deployed
from tests.aws.test_table import Tap, refuse
from tests.contracts.threads import at_once


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "LONGEST_WAIT_S", 0.0)


def tapped(client: Any) -> Any:
    return Tap(client)


def change(n: int, *, text: str = "") -> BankChanged:
    return BankChanged(id=f"{n}{text}", reason="content", at_s=n)


def test_batches_keep_the_order_and_both_limits() -> None:
    sizes = [3, 3, 4, 10, 1, 1, 1, 1]
    assert list(in_batches(sizes, max_entries=3, max_bytes=10, size_bytes=int)) == [[3, 3, 4], [10], [1, 1, 1], [1]]
    assert list(in_batches([], max_entries=3, max_bytes=10, size_bytes=int)) == []
    with pytest.raises(InvalidInput, match="11"):
        list(in_batches([1, 11], max_entries=3, max_bytes=10, size_bytes=int))


def test_a_bus_is_never_sent_more_than_it_takes(deployment: Deployed) -> None:
    tap = tapped(deployment.clients.events)
    EventBridgePublisher(tap, deployment.settings.event_bus).publish([change(n, text="x" * 50_000) for n in range(23)])
    entries = [request["Entries"] for _, request in tap.requests]
    assert sum(map(len, entries)) == 23
    assert all(len(one) <= events.MAX_ENTRIES for one in entries)
    assert all(sum(map(events.entry_bytes, one)) <= events.MAX_REQUEST_BYTES for one in entries)


@pytest.mark.parametrize("over", [0, 1])
def test_an_event_has_a_largest_size(deployment: Deployed, over: int) -> None:
    tap = tapped(deployment.clients.events)
    publisher = EventBridgePublisher(tap, deployment.settings.event_bus)
    publisher.publish([change(1)])
    rest = events.entry_bytes(tap.requests[0][1]["Entries"][0])
    big = change(1, text="x" * (events.MAX_REQUEST_BYTES - rest + over))
    if over:
        with pytest.raises(InvalidInput, match=str(events.MAX_REQUEST_BYTES)):
            publisher.publish([change(2), big])
        assert len(tap.requests) == 1, "nothing is published where one of them cannot be"
    else:
        publisher.publish([big])


def _refuses_first(request: dict[str, Any]) -> Any:
    return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException"}, *[{}] * 2]}


def test_events_that_were_refused_are_published_again_and_no_others(deployment: Deployed) -> None:
    tap = tapped(deployment.clients.events)
    tap.answers.append(("put_events", _refuses_first))
    EventBridgePublisher(tap, deployment.settings.event_bus).publish([change(n) for n in range(3)])
    published = [[json.loads(entry["Detail"])["id"] for entry in request["Entries"]] for _, request in tap.requests]
    assert published == [["0", "1", "2"], ["0"]]


def test_events_that_are_refused_to_the_end_are_unavailable(deployment: Deployed) -> None:
    tap = tapped(deployment.clients.events)
    tap.answers += [("put_events", _refuses_first)] * retry.MAX_ATTEMPTS
    with pytest.raises(Unavailable):
        EventBridgePublisher(tap, deployment.settings.event_bus).publish([change(n) for n in range(3)])


@pytest.mark.parametrize(
    ("detail_type", "detail"),
    [
        ("Object Created", {}),
        ("MatchFound", {"id": "x"}),
        ("ContentHashed", {"id": "x", "content_key": "k", "content_type": "smell"}),
        ("BankChanged", {}),
    ],
)
def test_a_detail_that_is_no_event_is_refused(detail_type: str, detail: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=detail_type):
        event_json.from_json(detail_type, detail)


def test_a_newer_event_with_more_fields_is_read() -> None:
    event = MatchFound(id="x", content_key="k", content_id=None, matches=[], total_matches=0, at_s=1)
    detail_type, detail = event_json.to_json(event)
    assert event_json.from_json(detail_type, {**detail, "later": 1}) == event


def test_messages_arrive_and_those_that_failed_are_sent_again(deployment: Deployed) -> None:
    sqs = deployment.clients.sqs
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    tap = tapped(sqs)
    tap.answers.append(("send_message_batch", lambda request: {"Failed": [{"Id": "1", "Code": "InternalError"}]}))
    SqsQueue(tap, url).send([{"n": n, "text": "é" * 5_000} for n in range(12)])
    sent = [[json.loads(entry["MessageBody"])["n"] for entry in request["Entries"]] for _, request in tap.requests]
    assert sent[1] == [sent[0][1]]
    assert sorted(n for batch in [sent[0], *sent[2:]] for n in batch) == list(range(12))
    for _, request in tap.requests:
        assert len(request["Entries"]) <= queues.MAX_MESSAGES
        assert sum(len(entry["MessageBody"].encode()) for entry in request["Entries"]) <= queues.MAX_REQUEST_BYTES


@pytest.mark.parametrize("code", ["PreconditionFailed", "ConditionalRequestConflict"])
def test_a_publish_that_met_another_is_a_conflict(deployment: Deployed, code: str) -> None:
    tap = tapped(deployment.clients.s3)
    store = S3IndexStore(tap, deployment.settings.index_bucket)
    tap.answers.append(("put_object", refuse(code)))
    with pytest.raises(PublishConflict):
        store.publish(Manifest(), replaces=None)


def test_a_publish_whose_answer_was_lost_is_not_a_conflict_with_itself(deployment: Deployed) -> None:
    tap = tapped(deployment.clients.s3)
    store = S3IndexStore(tap, deployment.settings.index_bucket)

    def arrives_twice(request: dict[str, Any]) -> Any:
        deployment.clients.s3.put_object(**request)
        return deployment.clients.s3.put_object(**request)

    tap.answers.append(("put_object", arrives_twice))
    published = store.publish(Manifest(), replaces=None)
    assert store.manifest() == published


class _Broken(io.RawIOBase):
    """A body that ends in a time-out after its first bytes."""

    def __init__(self) -> None:
        self._reads = 0

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > 1:
            raise ReadTimeoutError(endpoint_url="https://s3.example")
        return b"first"

    def readinto(self, memory: memoryview) -> int:  # type: ignore[override]  # nobody reads into anything else here
        first = self.read()
        memory[: len(first)] = first
        return len(first)


def test_a_segment_that_breaks_off_is_unavailable_and_never_short(deployment: Deployed) -> None:
    tap = tapped(deployment.clients.s3)
    tap.answers.append(("get_object", lambda request: {"Body": _Broken()}))
    with pytest.raises(Unavailable, match="S3"):
        S3IndexStore(tap, deployment.settings.index_bucket).read_segment_into("s", memoryview(bytearray(100)))


def test_a_body_that_breaks_off_is_unavailable_and_never_short(deployment: Deployed) -> None:
    tap = tapped(deployment.clients.s3)
    answer = {"Body": _Broken(), "ContentLength": 100, "ETag": '"x"'}
    tap.answers.append(("get_object", lambda request: answer))
    with (
        pytest.raises(Unavailable, match="S3"),
        S3ContentReader(tap, [CONTENT_BUCKET]).open(f"s3://{CONTENT_BUCKET}/k") as body,
    ):
        body.read()


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.manifest(),
        lambda store: store.manifest_token(),
        lambda store: store.publish(Manifest(), replaces=None),
        lambda store: store.read_segment("s"),
        lambda store: store.read_segment("s", length=0),
        lambda store: store.read_segment_into("s", memoryview(bytearray(4))),
        lambda store: store.read_segment_into("s", memoryview(b"")),
        lambda store: store.write_segment("s", b""),
    ],
)
@pytest.mark.parametrize(("code", "expected"), [("SlowDown", Unavailable), ("503", Unavailable), ("403", ClientError)])
def test_what_s3_refuses_is_told_apart(
    deployment: Deployed, call: Callable[[S3IndexStore], object], code: str, expected: type[Exception]
) -> None:
    tap = tapped(deployment.clients.s3)
    tap.answers += [(operation, refuse(code)) for operation in ("get_object", "head_object", "put_object")]
    with pytest.raises(expected):
        call(S3IndexStore(tap, deployment.settings.index_bucket))


def test_garbage_that_s3_keeps_is_told(deployment: Deployed) -> None:
    tap = tapped(deployment.clients.s3)
    store = S3IndexStore(tap, deployment.settings.index_bucket)
    store.write_segment("s", b"x")
    pages = deployment.clients.s3.get_paginator("list_objects_v2")
    tap.answers.append(("get_paginator", lambda request: pages))
    tap.get_paginator = deployment.clients.s3.get_paginator
    tap.answers.append(("delete_objects", lambda request: {"Errors": [{"Key": "k", "Code": "InternalError"}]}))
    with pytest.raises(Unavailable, match="InternalError"):
        store.collect_garbage([], older_than_s=0, now_s=10**10)


def test_a_segment_that_is_written_again_is_young_again(deployment: Deployed) -> None:
    tap = tapped(deployment.clients.s3)
    store = S3IndexStore(tap, deployment.settings.index_bucket)
    store.write_segment("s", b"x")
    store.write_segment("s", memoryview(b"x"))
    assert [operation for operation, _ in tap.requests] == ["put_object", "put_object"]


def test_an_upload_is_read_with_what_its_uploader_said(deployment: Deployed) -> None:
    s3, bucket = deployment.clients.s3, deployment.settings.upload_bucket
    first = s3.put_object(
        Bucket=bucket, Key="a b/ü.jpg", Body=b"one", ContentType="image/jpeg", Metadata={"content-id": "x"}
    )
    s3.put_object(Bucket=bucket, Key="a b/ü.jpg", Body=b"another")
    uploads = S3UploadReader(s3, bucket)
    with uploads.open("a b/ü.jpg", version_id=first["VersionId"], max_bytes=3) as upload:
        assert (upload.content_type, upload.metadata, upload.size_bytes) == ("image/jpeg", {"content-id": "x"}, 3)
        assert upload.content.read() == b"one"
    with uploads.open("a b/ü.jpg", version_id=None, max_bytes=7) as upload:
        assert upload.content.read() == b"another"
    with (
        pytest.raises(ContentTooLarge, match="6 bytes, not 7"),
        uploads.open("a b/ü.jpg", version_id=None, max_bytes=6),
    ):
        pass
    with pytest.raises(NotFound), uploads.open("missing", version_id=None, max_bytes=6):
        pass


class Dribbling(io.BytesIO):
    """A body that gives a few bytes at a time, as a slow network does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 1_000))


def test_the_head_of_an_upload_is_whole_and_is_read_once(deployment: Deployed) -> None:
    whole = random.Random(1).randbytes(BUFFER_BYTES + 5_000)
    tap = tapped(deployment.clients.s3)
    tap.answers.append(("get_object", lambda _: {"Body": Dribbling(whole), "ContentLength": len(whole)}))
    with S3UploadReader(tap, CONTENT_BUCKET).open("k", version_id=None, max_bytes=len(whole)) as upload:
        assert upload.content.peek() == whole[:BUFFER_BYTES]
        assert upload.content.read() == whole
    assert len(tap.requests) == 1
    assert BUFFER_BYTES >= HEAD_BYTES


@pytest.mark.parametrize("uri", ["s3://foreign-bucket/k", "s3://", f"s3://{CONTENT_BUCKET}", "https://x/y", "k"])
def test_only_named_buckets_are_read(deployment: Deployed, uri: str) -> None:
    tap = tapped(deployment.clients.s3)
    with pytest.raises(InvalidInput), S3ContentReader(tap, [CONTENT_BUCKET]).open(uri):
        pass
    assert tap.requests == []


@pytest.mark.parametrize("code", ["AccessDenied", "403", "AllAccessDisabled"])
def test_a_bucket_that_refuses_is_told_in_words_and_no_crash(deployment: Deployed, code: str) -> None:
    tap = tapped(deployment.clients.s3)
    tap.answers.append(("get_object", refuse(code)))
    uri = f"s3://{CONTENT_BUCKET}/k"
    with (
        pytest.raises(InvalidInput, match=f"this deployment is not allowed to read '{uri}'"),
        S3ContentReader(tap, [CONTENT_BUCKET]).open(uri),
    ):
        pass
    # An upload that is refused is a fault of the deployment, and tried again.
    tap.answers.append(("get_object", refuse(code)))
    with pytest.raises(ClientError), S3UploadReader(tap, CONTENT_BUCKET).open("k", version_id=None, max_bytes=9):
        pass


def test_a_file_of_a_collaboration_has_a_largest_size(deployment: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MAX_COLLABORATION_BYTES", 5)
    reader = S3ContentReader(deployment.clients.s3, [CONTENT_BUCKET])
    for size in (5, 6):
        deployment.clients.s3.put_object(Bucket=CONTENT_BUCKET, Key=str(size), Body=b"x" * size)
    with reader.open(f"s3://{CONTENT_BUCKET}/5") as body:
        assert body.read() == b"xxxxx"
    with pytest.raises(ContentTooLarge), reader.open(f"s3://{CONTENT_BUCKET}/6"):
        pass


def test_an_upload_form_says_what_may_be_put(deployment: Deployed) -> None:
    form = presign_upload(
        deployment.clients.s3,
        deployment.settings.upload_bucket,
        "k",
        content_type="image/png",
        max_bytes=1_000,
        metadata={"content-id": "x"},
    )
    assert deployment.settings.upload_bucket in urllib.parse.unquote(form.url)
    assert (form.fields["key"], form.fields["Content-Type"]) == ("k", "image/png")
    assert form.fields["x-amz-meta-content-id"] == "x"


def test_credentials_of_two_kinds_that_are_set_at_once_are_both_kept(deployment: Deployed) -> None:
    tap = tapped(deployment.clients.secrets)
    other = SecretsManagerStore(deployment.clients.secrets, deployment.settings.credentials_secret)

    def somebody_is_first(request: dict[str, Any]) -> Any:
        other.set_credentials("tat", {"user": "theirs"})
        return deployment.clients.secrets.put_secret_value(**request)

    tap.answers.append(("put_secret_value", somebody_is_first))
    store = SecretsManagerStore(tap, deployment.settings.credentials_secret)
    store.set_credentials("ncmec", {"user": "mine"})
    assert store.credentials("ncmec") == {"user": "mine"}
    assert store.credentials("tat") == {"user": "theirs"}


def test_a_secret_has_a_largest_size(deployment: Deployed) -> None:
    store = SecretsManagerStore(deployment.clients.secrets, deployment.settings.credentials_secret)
    rest = len(json.dumps({"k": {"u": ""}}))
    store.set_credentials("k", {"u": "x" * (secrets.MAX_SECRET_BYTES - rest)})
    with pytest.raises(InvalidInput, match="bytes") as refused:
        store.set_credentials("k", {"u": "x" * (secrets.MAX_SECRET_BYTES - rest + 1)})
    assert "xx" not in str(refused.value)


def test_clients_give_up_in_time_and_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    made = clients.Clients()
    for client in (made.dynamodb, made.s3, made.events, made.secrets, made.sqs):
        config: Any = client.meta.config
        assert config.connect_timeout == clients.CONNECT_TIMEOUT_S
        assert config.read_timeout in {clients.READ_TIMEOUT_S, clients.READ_TIMEOUT_S3_S}
        assert config.retries == {"mode": "standard", "total_max_attempts": clients.MAX_ATTEMPTS}
    assert made.dynamodb is made.dynamodb
    dynamodb_config: Any = made.dynamodb.meta.config
    assert dynamodb_config.read_timeout == clients.READ_TIMEOUT_S
    assert index.MAX_DELETED == 1_000
    assert at_once([lambda: made.s3] * 3).count(made.s3) == 3
