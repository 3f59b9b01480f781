"""A video in S3 is hashed in one pass: one request, and never more of it in memory than a few pieces."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import countermark

PIECE = bytes(range(256)) * 4096
PIECES = 256
"""An object of 256 MiB."""

MOST_MIB = 24
"""What reading and hashing may add to a process: some pieces of a mebibyte, and what TLS and sockets buffer."""

MEASURED = """
import sys
from pathlib import Path
import boto3, botocore.config
from countermark.aws.content import S3UploadReader
from countermark.domain.signal import ContentType
from countermark.flows.hash import applicable_types, hash_content
from countermark.signals import SIGNAL_TYPES

s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="eu-west-1", aws_access_key_id="x",
                  aws_secret_access_key="x", config=botocore.config.Config(s3={"addressing_style": "path"}))
types = applicable_types(SIGNAL_TYPES, ContentType.VIDEO, only=["video_md5", "video_sha256"])
peaks = []
for key in ("small", "large"):
    with S3UploadReader(s3, "uploads").open(key, version_id=None, max_bytes=2**40) as upload:
        report = hash_content(upload.content, ContentType.VIDEO, types)
    peaks.append(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024)
print(report.size_bytes, peaks[1] - peaks[0], *(signal.value for signal in report.signals))
"""


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def bucket(asked: list[str]) -> Iterator[str]:
    """A server that answers as S3 does, with an object that it makes on the way; gives its URL."""

    class Objects(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.partition("?")[0])
            pieces = PIECES if "large" in self.path else 1
            self.send_response(200)
            self.send_header("Content-Length", str(pieces * len(PIECE)))
            self.end_headers()
            for _ in range(pieces):
                self.wfile.write(PIECE)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Objects) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_large_video_is_never_held(bucket: str, asked: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, bucket],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(countermark.__file__).parents[1])},
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    size, grown_mib, md5, sha256 = ran.stdout.split()
    digests = [hashlib.new(name, usedforsecurity=False) for name in ("md5", "sha256")]
    for _ in range(PIECES):
        for digest in digests:
            digest.update(PIECE)
    assert (int(size), md5, sha256) == (PIECES * len(PIECE), *(digest.hexdigest() for digest in digests))
    assert int(grown_mib) < MOST_MIB
    assert asked == ["/uploads/small", "/uploads/large"]
