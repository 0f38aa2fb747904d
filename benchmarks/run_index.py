"""The list of many runs: how long it takes to read, to read again and to filter.

    python -m benchmarks.run_index [--runs 500] [--rows 1000000]

Makes that many finished runs with so many rows of metrics in all and a quality result each, in a
folder of its own, and prints the median of several looks, in milliseconds:

- rebuilt: no index file yet, every folder is read;
- opened: by a new process, from the index file;
- again: nothing has changed;
- one changed: one run has written its status;
- filter, sort, group: of rows that were read.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.timing import machine
from diffusion_core.files import write_json
from diffusion_core.review.index import FILE, Index, Row
from diffusion_core.review.query import group_rows, parse_filter, sort_rows
from diffusion_core.runs.config_file import write_config_file
from diffusion_core.runs.metrics import BIN_NAMES, MetricsWriter
from diffusion_core.runs.presets import preset

FILTER = (
    "batch_size >= 64 and state = finished and not (best_validation_loss > 0.3 or data ~ digits)"
)
EVERY = 50  # steps from one row of a curve to the next
CURVES = ("loss", "validation_loss", "learning_rate", "gradient_norm", *BIN_NAMES)
DEMO_QUALITY = Path("checkpoints/demo-cars/quality")


def make_run(path: Path, number: int, rows: int) -> None:
    """A finished run; its settings depend on its number."""
    path.mkdir()
    config = preset("small").replace(
        batch_size=16 << number % 4, seed=number, data=("cars", "digits")[number % 2]
    )
    write_config_file(path, config, {"device": "CPU, 2 threads", "parameters": 5_455_084})
    count = rows // len(CURVES)
    write_json(
        path / "status.json",
        {"state": "finished", "step": count * EVERY, "created": 1e9 + number, "loss": 0.1},
    )
    writer = MetricsWriter(path / "metrics.sqlite")
    writer.add(
        (EVERY * step, name, 1 / (step + number % 7), 1e9 + step)
        for step in range(1, count + 1)
        for name in CURVES
    )
    writer.close()
    (path / "quality").mkdir()
    result = next(DEMO_QUALITY.glob("*.json"))
    values = json.loads(result.read_text(encoding="utf-8"))
    values["metrics"]["frechet"]["value"] += number
    write_json(path / "quality" / result.name, values)


def median_ms(measure: Callable[[], object], before: Callable[[], object], times: int) -> float:
    """`before` is done before each time, and not counted."""
    found = []
    for _ in range(times):
        before()
        began = time.perf_counter()
        measure()
        found.append(1000 * (time.perf_counter() - began))
    return statistics.median(found)


def measure(runs_dir: Path, times: int = 5) -> dict[str, float]:
    """Milliseconds, by what was done."""
    index = Index(runs_dir)
    rows = index.rows()
    status = runs_dir / str(rows[0].values["name"]) / "status.json"
    values = json.loads(status.read_text(encoding="utf-8"))

    def nothing() -> None:
        return

    def forget() -> None:
        os.remove(runs_dir / FILE)

    def change() -> None:
        values["step"] += 1
        write_json(status, values)

    def fitting() -> list[Row]:
        holds = parse_filter(FILTER)
        return [row for row in rows if holds(row.values)]

    return {
        "rebuilt": median_ms(lambda: Index(runs_dir).rows(), forget, times),
        "opened": median_ms(lambda: Index(runs_dir).rows(), nothing, times),
        "again": median_ms(index.rows, nothing, times),
        "one changed": median_ms(index.rows, change, times),
        "filter": median_ms(fitting, nothing, times),
        "sort": median_ms(lambda: sort_rows(rows, "quality.frechet"), nothing, times),
        "group": median_ms(lambda: group_rows(rows, "batch_size"), nothing, times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of metrics, in all")
    arguments = parser.parse_args()
    print(machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.runs):
            make_run(Path(folder) / f"run-{number:04}", number, arguments.rows // arguments.runs)
        for name, milliseconds in measure(Path(folder)).items():
            print(f"{name:12} {milliseconds:8.1f} ms")
        size = (Path(folder) / FILE).stat().st_size / 2**20
        print(f"{'file':12} {size:8.1f} MiB")


if __name__ == "__main__":
    main()
