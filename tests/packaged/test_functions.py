"""Each function as it is deployed: its code and layers, in a clean Python 3.13, over the tables of the template."""

import io
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from countermark.aws.api_keys import DynamoApiKeyStore
from countermark.aws.banks import DynamoBankStore
from countermark.aws.settings import FETCH_QUEUE_URL, PURGE_QUEUE_URL
from countermark.domain import event_json
from countermark.domain.api_key import ApiKey, Role, digest
from countermark.domain.bank import ContentDraft
from countermark.domain.event import OpinionGiven
from countermark.domain.opinion import SharedOpinion, Verdict
from tests.aws.deployed import REGION, Deployed
from tests.infra.template import named, reference
from tests.packaged.runtime import RunningFunction, running

pytestmark = [
    pytest.mark.packaged,
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 13), reason="the layers are made for Python 3.13, and the tests run on another"
    ),
]

ROOT = Path(__file__).resolve().parents[2]
PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
KEY = "made-up-key"
NEXT_S = 5.0
"""How long a second answer may take: that it does not start again, not how fast it is."""

Start = Callable[[str], RunningFunction]


@pytest.fixture
def environ(deployment: Deployed) -> Iterator[Mapping[str, str]]:
    """What a function finds in its environment; AWS is moto, in this process, over the loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    queues = {
        name: deployment.clients.sqs.create_queue(QueueName=name)["QueueUrl"]
        for name in (FETCH_QUEUE_URL, PURGE_QUEUE_URL)
    }
    try:
        yield {
            **deployment.settings.to_environ(),
            **queues,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }
    finally:
        server.stop()


@pytest.fixture
def start(
    cloud_assembly: Path,
    templates: Mapping[str, Mapping[str, Any]],
    environ: Mapping[str, str],
    tmp_path: Path,
) -> Iterator[Start]:
    """Start functions by their stage, as the template says: code, layers, handler, environment."""
    functions = dict(named(templates["service"], "AWS::Lambda::Function"))
    with ExitStack() as stack:

        def start_function(stage: str) -> RunningFunction:
            function = functions[f"{stage.capitalize()}Function"]
            layers = [reference(layer).removesuffix("Layer").lower() for layer in function["Layers"]]
            given = {
                name: value
                for name, value in function["Environment"]["Variables"].items()
                if name.startswith("POWERTOOLS_")
            }
            scratch = tmp_path / stage
            scratch.mkdir()
            return stack.enter_context(
                running(
                    function["Handler"],
                    code=cloud_assembly / f"asset.{function['Code']['S3Key'].removesuffix('.zip')}",
                    layers=[ROOT / "build" / "layers" / layer for layer in layers],
                    environ={**environ, **given},
                    timeout_s=function["Timeout"],
                    scratch=scratch,
                )
            )

        yield start_function


def tell(stage: str, started_s: float) -> None:
    print(f"{stage}: first answer after {time.monotonic() - started_s:.2f} s")


def message(body: Any) -> dict[str, Any]:
    return {"Records": [{"messageId": "1", "body": json.dumps(body)}]}


def request(path: str, *, query: str = "", roles: str = "admin") -> dict[str, Any]:
    pairs = dict(pair.split("=") for pair in query.split("&") if pair)
    http = {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "test"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "queryStringParameters": pairs,
        "headers": {},
        "requestContext": {
            "http": http,
            "stage": "$default",
            "requestId": "1",
            "authorizer": {"lambda": {"key": "test", "roles": roles}},
        },
        "isBase64Encoded": False,
    }


NOTHING_FAILED: dict[str, Any] = {"batchItemFailures": []}


def test_authorize_lets_a_known_key_in(start: Start, deployment: Deployed) -> None:
    keys = DynamoApiKeyStore(deployment.clients.dynamodb, deployment.settings.access_table)
    keys.put_key(ApiKey(digest=digest(KEY), name="console", roles=frozenset({Role.MATCH}), created_at_s=1))
    began_s = time.monotonic()
    function = start("authorize")
    assert function.invoke({"headers": {"x-api-key": "wrong"}}) == {"isAuthorized": False}
    tell("authorize", began_s)
    began_s = time.monotonic()
    answer = function.invoke({"headers": {"x-api-key": KEY}})
    assert answer == {"isAuthorized": True, "context": {"key": "console", "roles": "match"}}
    assert time.monotonic() - began_s < NEXT_S


def test_fetch_dispatches_to_its_queue(start: Start) -> None:
    began_s = time.monotonic()
    assert start("fetch").invoke(message({"dispatch": True})) == NOTHING_FAILED
    tell("fetch", began_s)


def test_hash_hashes_an_upload(start: Start, deployment: Deployed) -> None:
    picture = io.BytesIO()
    Image.radial_gradient("L").resize((128, 128)).rotate(30).convert("RGB").save(picture, "PNG")
    bucket = deployment.settings.upload_bucket
    put = deployment.clients.s3.put_object(Bucket=bucket, Key="photo/1", Body=picture.getvalue())
    told = {"key": "photo/1", "size": 1, "etag": put["ETag"], "version-id": put["VersionId"]}
    began_s = time.monotonic()
    function = start("hash")
    event = {"detail-type": "Object Created", "detail": {"bucket": {"name": bucket}, "object": told}}
    assert function.invoke(message(event)) == NOTHING_FAILED
    tell("hash", began_s)
    assert '"outcome":"hashed"' in function.log.read_text()
    assert function.invoke(request("/c/banks"))["statusCode"] == 404


@pytest.mark.parametrize("image_format", ["HEIF", "AVIF"])
def test_hash_reads_what_phones_take(start: Start, deployment: Deployed, image_format: str) -> None:
    """The layer's own decoders, whose libraries are compiled."""
    pillow_heif.register_heif_opener()
    picture = io.BytesIO()
    Image.radial_gradient("L").resize((256, 256)).rotate(30).convert("RGB").save(picture, image_format, quality=90)
    bucket = deployment.settings.upload_bucket
    put = deployment.clients.s3.put_object(Bucket=bucket, Key="photo/1", Body=picture.getvalue())
    told = {"key": "photo/1", "size": 1, "etag": put["ETag"], "version-id": put["VersionId"]}
    function = start("hash")
    event = {"detail-type": "Object Created", "detail": {"bucket": {"name": bucket}, "object": told}}
    assert function.invoke(message(event)) == NOTHING_FAILED
    # Nothing was left out: no signal type says that it could not read the picture.
    assert '"outcome":"hashed"' in function.log.read_text()


def test_index_builds_and_match_finds(start: Start, deployment: Deployed) -> None:
    banks = DynamoBankStore(deployment.clients.dynamodb, deployment.settings.banks_table)
    bank = banks.create_bank("BANKED", ratio=1.0)
    content = banks.add_content(bank.id, ContentDraft(signals={"pdq": PDQ}), now_s=int(time.time()))
    began_s = time.monotonic()
    assert start("index").invoke(message({"full": False})) == NOTHING_FAILED
    tell("index", began_s)
    began_s = time.monotonic()
    match = start("match")
    answer = match.invoke(request("/m/lookup", query=f"signal={PDQ}&signal_type=pdq"))
    tell("match", began_s)
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"]) == {"BANKED": [{"bank_content_id": content.id, "distance": "0"}]}
    assert match.invoke(request("/status"))["body"] == "I-AM-ALIVE"


def test_curate_takes_opinions_from_its_queue(start: Start) -> None:
    """What reaches the network is imported, from the layers: no exchange is there to be told."""
    given = OpinionGiven(
        id="1", collaboration="GONE", record_key=None, opinion=SharedOpinion(verdict=Verdict.SEEN), at_s=1
    )
    detail_type, detail = event_json.to_json(given)
    function = start("curate")
    told = message({"detail-type": detail_type, "detail": detail})
    assert function.invoke(told) == NOTHING_FAILED
    assert function.invoke(told) == NOTHING_FAILED
    assert re.findall('"outcome":"([a-z]+)"', function.log.read_text()) == ["off", "repeated"]


def test_curate_answers_its_routes(start: Start) -> None:
    began_s = time.monotonic()
    function = start("curate")
    answer = function.invoke(request("/c/banks"))
    tell("curate", began_s)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, [])
    assert function.invoke(request("/c/banks", roles="match"))["statusCode"] == 403
