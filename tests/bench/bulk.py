"""Many at once: contents over HTTP, signals of a file, and files in several processes: `make bench ARGS=bulk`.

Times are those of the processor where one process works, and of the clock where several do.
"""

import http.client
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from PIL import Image

from tests.bench.machine import digits, table

CONTENTS = 20_000
BATCH = 1_000
SIGNALS = 10_000
PHOTOS = 240


def bench_bulk(
    directory: Path,
    environment: Mapping[str, str],
    photo: Path,
    server: Callable[[str], AbstractContextManager[str]],
) -> None:
    """Measure banking over `serve`, and then `match -H` and `hash` with one process and with two."""
    directory.mkdir(parents=True)
    command = str(Path(sys.executable).with_name("countermark"))
    chance = random.Random(1)
    known = [f"{chance.getrandbits(256):064x}" for _ in range(CONTENTS)]
    subprocess.run([command, "bank", "create", "BULK"], check=True, env=environment, capture_output=True)
    with server(command) as address:
        connection = http.client.HTTPConnection(address, timeout=60)
        singly = _banked(connection, "/c/bank/BULK/signal", [{"pdq": each} for each in known[:200]])
        batches = [known[start : start + BATCH] for start in range(0, CONTENTS, BATCH)]
        bodies = [{"contents": [{"pdq": each} for each in batch]} for batch in batches]
        together = _banked(connection, "/c/bank/BULK/signals", bodies) * BATCH
        connection.close()
    table(
        "Banking over `countermark serve`, one client",
        ["route", "contents per s"],
        [["`POST …/signal`", digits(singly)], ["`POST …/signals`, 1,000 each", digits(together)]],
    )
    asked = [known[n] if n % 10 == 0 else f"{chance.getrandbits(256):064x}" for n in range(SIGNALS)]
    (directory / "signals.txt").write_text("\n".join(asked))
    (directory / "one.txt").write_text(asked[1])
    match = [command, "match", "photo", "-S", "pdq", "-H"]
    alone_s, _ = _spent([*match, str(directory / "one.txt")], environment)
    all_s, _ = _spent([*match, str(directory / "signals.txt")], environment)
    table("`match -H`", ["signals per s of the processor"], [[digits(SIGNALS / (all_s - alone_s))]])
    with Image.open(photo) as image:
        for number in range(PHOTOS):
            image.convert("RGB").resize((1200 + number, 1000 + number)).save(directory / f"{number:03}.jpg", quality=88)
    photos = sorted(map(str, directory.glob("*.jpg")))
    rows = []
    for jobs in ("1", "2"):
        cpu_s, wall_s = _spent([command, "hash", "photo", "--jobs", jobs, *photos], environment)
        rows.append([jobs, digits(wall_s), digits(cpu_s), digits(PHOTOS / wall_s)])
    table(f"`hash photo` of {PHOTOS} photos", ["jobs", "s", "s of the processors", "photos per s"], rows)


def _banked(connection: http.client.HTTPConnection, path: str, bodies: Sequence[Mapping[str, object]]) -> float:
    """Return how many requests a second are answered."""
    started = time.perf_counter()
    for body in bodies:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path} answered {answer.status}: {text[:200]!r}")
    return len(bodies) / (time.perf_counter() - started)


def _spent(command: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Return the processor time and the time of a command with all its processes."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment, stdin=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent_s, time.perf_counter() - started
