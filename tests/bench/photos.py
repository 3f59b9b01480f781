"""Hashing of photos beside the peer: `make bench ARGS=photos`.

Every photo is hashed by each side in a process of its own, on one thread, in turns. Times are those of the processor,
so a busy machine adds little.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from tests.bench.machine import digits, table

MEGAPIXELS = {"0.5": (816, 612), "2": (1632, 1224), "12": (4000, 3000)}
FORMATS = {"JPEG": {"quality": 88}, "PNG": {"compress_level": 6}, "WebP": {"quality": 80}}
SUBJECTS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
RUNS = 5
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

LAMBDA_MEMORY_GIB = 1.769
"""The memory with which a function has one whole core. Source: Lambda developer guide, "Configure memory"."""

LAMBDA_GIB_SECOND_USD = 0.0000166667
LAMBDA_REQUEST_USD = 0.0000002
"""List prices of x86 in us-east-1. Source: AWS Lambda pricing."""


def bench_photos(directory: Path) -> None:
    """Measure, and print tables: by format and size, and what a million photos cost."""
    directory.mkdir(parents=True, exist_ok=True)
    rows, costs, refereed, count = [], [], 0, 0
    for name, options in FORMATS.items():
        for megapixels, size in MEGAPIXELS.items():
            sides = ("peer", "decode", "ours", *(["draft"] if name == "JPEG" else []))
            measured: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
            for subject in SUBJECTS:
                file = _written(directory, subject, name, size, options)
                for side in sides:
                    measured[side].append(_measure(side, file))
                file.unlink()
                ours, theirs = measured["ours"][-1], measured["peer"][-1]
                if (ours["value"], ours["quality"]) != (theirs["value"], theirs["quality"]):
                    print(f"\nours is not the peer's of {subject} as {name}, {megapixels} MP", file=sys.stderr)
            milliseconds = {side: _mean_ms(results) for side, results in measured.items()}
            peaks = {side: _peak_mib(results) for side, results in measured.items()}
            refereed += sum(result["refereed"] for result in measured["ours"])
            count += len(SUBJECTS)
            rows.append(
                [
                    f"{name} {megapixels} MP",
                    *(digits(milliseconds[side]) for side in ("peer", "decode", "ours")),
                    f"{milliseconds['peer'] / milliseconds['ours']:.1f}",
                    digits(milliseconds["draft"]) if "draft" in measured else "-",
                    digits(1_000 / milliseconds["ours"]),
                    digits(peaks["peer"]),
                    digits(peaks["ours"]),
                ]
            )
            costs.append([f"{name} {megapixels} MP", *(_cost(milliseconds[side]) for side in ("peer", "ours"))])
    header = ["mean CPU ms", "peer", "decoding alone", "countermark", "peer / countermark", "draft"]
    header += ["countermark, photos per s", "peer MiB", "countermark MiB"]
    table(f"Hashing a photo, {len(SUBJECTS)} photos each ({refereed} of {count} needed the exact method)", header, rows)
    title = f"A million photos on functions of {LAMBDA_MEMORY_GIB} GiB, computed from list prices, USD"
    table(title, ["photo", "peer", "countermark"], costs)


def _written(directory: Path, subject: str, name: str, size: tuple[int, int], options: dict[str, int]) -> Path:
    specification = importlib.util.find_spec("skimage")
    if specification is None or specification.origin is None:
        sys.exit("scikit-image is not installed: run `make bench`")
    file = directory / f"{subject}.{name.lower()}"
    with Image.open(Path(specification.origin).parent / "data" / subject) as image:
        image.convert("RGB").resize(size).save(file, name, **options)
    return file


def _measure(side: str, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.photos_side", side, str(file), str(RUNS)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _mean_ms(results: list[dict[str, Any]]) -> float:
    """Return the mean over photos, as a refereed one takes longer, of the fastest of its runs."""
    return 1_000 * statistics.mean(min(map(float, result["cpu_s"])) for result in results)


def _peak_mib(results: list[dict[str, Any]]) -> float:
    return float(statistics.median(result["peak_bytes"] for result in results)) / 2**20


def _cost(milliseconds: float) -> str:
    return f"{1e6 * (milliseconds / 1_000 * LAMBDA_MEMORY_GIB * LAMBDA_GIB_SECOND_USD + LAMBDA_REQUEST_USD):.2f}"
