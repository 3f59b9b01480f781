"""Fetching from an exchange into SQLite and into DynamoDB, and what the latter would cost."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from layers import build as layers_build
from tests.bench.machine import digits, table

ROOT = Path(__file__).resolve().parents[2]

# List prices in US dollars: us-east-1, on demand, November 2026, as in docs/deploy.md. A million units; a GB and month.
WRITE_PRICE = 0.625
READ_PRICE = 0.125
STORAGE_PRICE = 0.25
PRICED_RECORDS = 10_000_000


def bench_exchanges(directory: Path, *, records: list[int], moto_records: int) -> None:
    """Measure fetches of made-up records, each in a process of its own."""
    rows = [_row("SQLite", count, _measure("sqlite", count, directory / f"sqlite-{count}")) for count in records]
    over_moto = directory / "dynamodb"
    over_moto.mkdir(parents=True)
    _synthesise(over_moto)
    told = _measure("dynamodb", moto_records, over_moto)
    rows.append(_row("DynamoDB, in moto", moto_records, told))
    header = ["store", "records", "s", "records per s", "CPU, µs per record", "peak memory, MB", "on disk, MB"]
    table("A fetch of everything", header, rows)
    _tell_capacity(told, moto_records)


def _row(store: str, count: int, told: dict[str, Any]) -> list[str]:
    return [
        store,
        f"{count:,}",
        digits(told["fetch_s"]),
        digits(count / told["fetch_s"]),
        digits(told["cpu_s"] / count * 1e6),
        digits(told["peak_bytes"] / 1e6),
        digits(told["disk_bytes"] / 1e6) if "disk_bytes" in told else "-",
    ]


def _tell_capacity(told: dict[str, Any], count: int) -> None:
    """Tell what DynamoDB was asked for a thousand records, and what ten million would cost."""
    asked = sorted(told["requests"].items(), key=lambda each: -each[1])
    rows = [[f"`{name}`", digits(number / count * 1_000)] for name, number in asked]
    rows.append(["**all**", digits(sum(told["requests"].values()) / count * 1_000)])
    rows.append(["write units", digits(told["writes"] / count * 1_000)])
    rows.append(["read units", digits(told["reads"] / count * 1_000)])
    table("DynamoDB, for a thousand new records", ["", "requests"], rows)
    scale = PRICED_RECORDS / count
    dollars = {
        "writes": told["writes"] * scale / 1e6 * WRITE_PRICE,
        "reads": told["reads"] * scale / 1e6 * READ_PRICE,
        "storage, a month": told["stored_bytes"] * scale / 1e9 * STORAGE_PRICE,
    }
    table(
        f"{PRICED_RECORDS:,} new records, at list prices", ["", "$"], [[name, digits(x)] for name, x in dollars.items()]
    )


def _measure(kind: str, count: int, directory: Path) -> dict[str, Any]:
    directory.mkdir(parents=True, exist_ok=True)
    script = str(Path(__file__).with_name("exchanges_fetch.py"))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, kind, str(count), str(directory)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script} {kind} failed:\n{done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _synthesise(directory: Path) -> None:
    """Write the template of the storage stack, which says what the tables are."""
    layers_build.build()
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"CDK_OUTDIR": str(directory / "cdk.out"), "HOME": str(ROOT / "build" / "home")}
    subprocess.run([sys.executable, "-m", "infra.app"], cwd=ROOT, env=environ, check=True, capture_output=True)
    (directory / "cdk.out" / "countermark-storage.template.json").rename(directory / "storage.json")
