"""How soon new content matches, and how long lookups take, while a large bank is changed as a whole.

Run: python -m tests.bench.freshness [CONTENTS [SECONDS]]. It fills a state with PDQ signals in 201 banks, half of them
in one bank, starts a server, and disables, enables, repairs and deletes that bank, for so many seconds each. Meanwhile
one client looks up random signals, and another adds a content every second and asks until it matches.
"""

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from countermark.domain.bank import BankContent
from countermark.domain.index import Manifest
from countermark.domain.stores import MAX_PAGE
from countermark.local.state import LocalState

BANKS = 200
START_S = 180


def pdq(rng: random.Random) -> str:
    return f"{rng.getrandbits(256):064x}"


def fill(directory: Path, contents: int) -> None:
    """Bank random signals: half of them in BIG, the others in 200 banks."""
    rng = random.Random(1)
    with LocalState.open(directory) as state:
        banks = [state.banks.create_bank(f"B{n}", ratio=1.0).id for n in range(BANKS)]
        big = state.banks.create_bank("BIG", ratio=1.0).id
        state.banks.create_bank("FRESH", ratio=1.0)
        for done in range(0, contents, MAX_PAGE):
            bank_id = big if done < contents // 2 else rng.choice(banks)
            ids = state.banks.allot_content_ids(MAX_PAGE)
            page = [BankContent(id=each, bank_id=bank_id, signals={"pdq": pdq(rng)}) for each in ids]
            state.banks.put_contents(page, are_new=True)


class Client:
    """A client with one connection."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"content-type": "application/json"})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text)

    def matches(self, value: str) -> bool:
        return bool(self.ask("GET", f"/m/raw_lookup?signal={value}&signal_type=pdq")["matches"])


def share(seconds: Sequence[float], part: float) -> float:
    """Return a quantile, in milliseconds."""
    ordered = sorted(seconds) or [0.0]
    return 1_000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def measure(name: str, address: str, seconds: float, act: Callable[[], object]) -> None:
    """Do something, measure for so long, and print a row of a table."""
    is_over = threading.Event()
    lookups: list[float] = []
    fresh: list[float] = []

    def look_up() -> None:
        client, rng = Client(address), random.Random(2)
        while not is_over.is_set():
            began = time.perf_counter()
            client.matches(pdq(rng))
            lookups.append(time.perf_counter() - began)
            time.sleep(0.01)

    def add() -> None:
        client, rng = Client(address), random.Random()
        while not is_over.is_set():
            value = pdq(rng)
            began = time.perf_counter()
            client.ask("POST", "/c/bank/FRESH/signal", {"pdq": value})
            while not client.matches(value):
                time.sleep(0.02)
            fresh.append(time.perf_counter() - began)
            time.sleep(max(0.0, 1 - fresh[-1]))

    threads = [threading.Thread(target=look_up), threading.Thread(target=add)]
    for thread in threads:
        thread.start()
    act()
    time.sleep(seconds)
    is_over.set()
    for thread in threads:
        thread.join()
    row = [share(lookups, 0.5), share(lookups, 0.99), share(fresh, 0.5), share(fresh, 1.0)]
    print(f"| {name} | {' | '.join(f'{each:,.0f}' for each in row)} |", flush=True)


def repair(directory: Path) -> None:
    """Ask for a repair, as a build does of an index that is not of its store."""
    with LocalState.open(directory) as state:
        staged = state.index.staged
        staged.publish(Manifest(begun_at_s=int(time.time())), replaces=staged.manifest_token())


def main(contents: int = 300_000, seconds: float = 25) -> None:
    """Measure, and print a table in Markdown."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "state"
        fill(directory, contents)
        server = subprocess.Popen(
            [sys.executable, "-m", "countermark", "serve", "--port", "0", "--fetch-every", "0"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "COUNTERMARK_STATEDIR": str(directory)},
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            client = Client(address)
            until_s = time.monotonic() + START_S
            while (client.ask("GET", "/m/index/status")["pdq"].get("size") or 0) < contents:
                if time.monotonic() > until_s:
                    raise RuntimeError("the first index was not built in time")
                time.sleep(0.5)
            print("| under way | lookup p50, ms | p99, ms | new content p50, ms | most, ms |\n|---|---|---|---|---|")
            measure("nothing", address, 10, lambda: None)
            measure("disable", address, seconds, lambda: client.ask("PUT", "/c/bank/BIG", {"enabled_ratio": 0}))
            measure("enable", address, seconds, lambda: client.ask("PUT", "/c/bank/BIG", {"enabled_ratio": 1}))
            measure("repair", address, seconds, lambda: repair(directory))
            measure("delete", address, seconds, lambda: client.ask("DELETE", "/c/bank/BIG"))
            size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
            print(f"database: {(directory / 'countermark.db').stat().st_size:,} bytes of {size:,}")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
