"""A photo is hashed in memory: nothing of it, not even for a moment, is a file."""

import base64
import io
import json
import sys
from importlib.util import find_spec

import pytest

from tests.signals.photos import photo
from tests.signals.test_decode import FILES, child

# The kernel lets this process write no byte into a file, whichever library would.
WRITES_NOTHING = """
import base64, io, json, os, resource, sys
from countermark.domain.signal import ContentType
from countermark.flows.hash import applicable_types, hash_content
from countermark.signals import SIGNAL_TYPES

sys.dont_write_bytecode = True
contents = [base64.b64decode(each) for each in json.load(sys.stdin)]
written = []

def hook(event, given):
    if event == "open":
        path, mode, flags = given
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(str(path))
    elif event.startswith(("tempfile.", "os.mkdir", "os.rename", "os.link", "os.symlink", "shutil.")):
        written.append(event)

resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
sys.addaudithook(hook)
types = applicable_types(SIGNAL_TYPES, ContentType.PHOTO)
for with_variants in (False, True):
    for content in contents:
        report = hash_content(io.BytesIO(content), ContentType.PHOTO, types, with_variants=with_variants)
        assert {"pdq", "photo_md5", "photo_sha256"} <= {signal.type for signal in report.signals}, report.unhashable
assert not written, written
path = f"/tmp/countermark-{os.getpid()}"
try:
    with open(path, "wb", buffering=0) as file:
        file.write(b"x")
except OSError:
    assert written == [path]
    os.remove(path)
else:
    raise AssertionError("the limit does not hold here")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what a process may write is limited by the kernel's own call")
def test_a_photo_of_any_format_is_hashed_without_a_file() -> None:
    image = photo("coffee.png").resize((150, 100))
    contents = [save(image) for save, _loses in FILES.values()]
    if find_spec("pillow_heif") is not None:
        import pillow_heif

        file = io.BytesIO()
        pillow_heif.from_pillow(image).save(file)
        contents.append(file.getvalue())
    child(WRITES_NOTHING, json.dumps([base64.b64encode(content).decode() for content in contents]).encode())
