"""Run folders in which one thing is odd: what a disk, a copy or a person makes of them."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diffusion_core.runs.metrics import MetricsWriter
from tests.tiny_runs import write_run

BIG = "1" + "0" * 400
DEEP = "[" * 100_000

Spoil = Callable[[Path], object]


def text(file: str, content: str) -> Spoil:
    return lambda run: (run / file).write_text(content, encoding="latin-1")


def value(file: str, name: str, json_text: str) -> Spoil:
    """Another value of an entry of a JSON file."""

    def spoil(run: Path) -> None:
        values = json.loads((run / file).read_text()) | {name: "HERE"}
        (run / file).write_text(json.dumps(values).replace('"HERE"', json_text))

    return spoil


def instead(file: str, make: Callable[[Path], object]) -> Spoil:
    """Something else at the place of a file or folder."""

    def spoil(run: Path) -> None:
        path = run / file
        if path.is_dir():
            shutil.rmtree(path)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.unlink(missing_ok=True)
        make(path)

    return spoil


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 3 * 2**30)  # of holes


KINDS: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "socket": make_socket,
    "huge": make_huge,
    "loop": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/zero"),
}
RECORDS = ("config.json", "status.json", "changes.json")
OTHERS = (
    "request.json",
    "metrics.sqlite",
    "train.log",
    "notes.sqlite",
    "history.jsonl",
    "remarks.jsonl",
    "votes.jsonl",
    "weights/step-00000040.safetensors",
    "state/step-00000040.pt",
    "samples/step-00000040.png",
    "quality/step-00000040-abc.json",
    "drawings/a",
    "drawings/a/order.json",
    "weights",
    "state",
    "samples",
    "quality",
    "drawings",
)
CHANGE = '{"changes": [{"step": 1, "time": %s, "settings": %s}]}'

# A record of the run cannot be used in full: the reason begins so.
UNREADABLE: dict[str, tuple[Spoil, str]] = {
    "no averages": (
        value("config.json", "ema_decays", "null"),
        "config.json: ema_decays is null; it must be an object.",
    ),
    "no data": (value("config.json", "data", "null"), "config.json: data is null; it must be"),
    "list as preset": (value("config.json", "preset", "[]"), "config.json: preset is a list"),
    "fraction as size": (
        value("config.json", "image_size", "64.0"),
        "config.json: image_size is 64.0; it must be a whole number.",
    ),
    "unknown data": (
        value("config.json", "data", '"moon:3"'),
        "config.json: data: 'moon:3' is no data set. Use cars, cars:N, ",
    ),
    "data with line breaks": (
        value("config.json", "data", '"\\n# a\\n![x](http://x/y.png)"'),
        "config.json: data: '\\n# a\\n![x]",
    ),
    "400 digits": (
        value("config.json", "steps", BIG),
        f"config.json: steps is {BIG[:40]}…; it must be from 1 to 1,000,000,000.",
    ),
    "5,000 digits": (value("config.json", "steps", "1" * 5000), "config.json is not readable"),
    "infinite": (value("config.json", "learning_rate", "1e999"), "config.json: learning_rate is"),
    "not a number": (value("config.json", "learning_rate", "NaN"), "config.json: learning_rate is"),
    "deep": (text("config.json", DEEP), "config.json is not readable JSON."),
    "empty": (text("config.json", ""), "config.json is not readable JSON."),
    "deep changes": (text("changes.json", DEEP), "changes.json is not readable JSON."),
    "infinite time of a change": (
        text("changes.json", CHANGE % ("1e400", "{}")),
        "changes.json: changes.0.time is inf; it must be a finite number.",
    ),
    "infinite change": (
        text("changes.json", CHANGE % (1, '{"learning_rate": 1e400}')),
        "changes.json: learning_rate is inf; it must be a finite number.",
    ),
    "text as change": (
        text("changes.json", CHANGE % (1, '{"steps": "many"}')),
        "changes.json: steps is 'many'; it must be a finite number.",
    ),
    "deep status": (text("status.json", DEEP), "status.json is not readable JSON."),
    "list as status": (text("status.json", "[]"), "status.json: it is a list; it must be"),
    "created of 400 digits": (
        value("status.json", "created", BIG),
        f"status.json: created is {BIG[:40]}…; it must be from 0 to 100,000,000,000.",
    ),
    "created too large": (
        value("status.json", "created", "1e20"),
        "status.json: created is 1e+20; it must be from 0 to 100,000,000,000.",
    ),
    "step of 400 digits": (
        value("status.json", "step", BIG),
        f"status.json: step is {BIG[:40]}…; it must be from 0 to 1,000,000,000,000.",
    ),
    "step too large": (value("status.json", "step", "1e20"), "status.json: step is 1e+20; it must"),
    "list as state": (
        value("status.json", "state", '["queued"]'),
        "status.json: state is a list; it must be queued, starting",
    ),
}
for each in RECORDS:
    for name, make in KINDS.items():
        reason = f"{each} is larger than 4 MB." if name == "huge" else f"{each} cannot be read: "
        UNREADABLE[f"{name} as {each}"] = instead(each, make), reason

# The records are whole; what is beside them is not.
ODD: dict[str, Spoil] = {
    "many steps": value("config.json", "steps", "100000000"),
    "many total steps": value("status.json", "total", "1000000000000"),
    "rare samples": value("config.json", "sample_every", "1000000000"),
    "large batch": value("config.json", "batch_size", "5000"),
    "many timesteps": value("config.json", "schedule", '{"timesteps": 8000}'),
    "large seed": value("config.json", "seed", str(2**63 - 1)),
    "far future": value("status.json", "created", "1e11"),
    "unknown preset": value("config.json", "preset", '"nope"'),
    "text as metrics": text("metrics.sqlite", "this is no database at all" * 300),
} | {f"{name} as {each}": instead(each, make) for each in OTHERS for name, make in KINDS.items()}


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """As for a person: root gives up its right to read and write what its permissions forbid."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread and those it starts
    rights = (ctypes.c_uint32 * 6)()  # twice effective, permitted, inheritable
    before = libc.capget(header, rights)
    kept = rights[0]
    rights[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if before or libc.capset(header, rights):
        pytest.fail("root cannot give up its rights here")
    try:
        yield
    finally:
        rights[0] = kept
        libc.capset(header, rights)


def write_odd_run(runs_dir: Path, name: str, spoil: Spoil, **status: Any) -> Path:
    run = write_run(runs_dir, name, 40, **status)
    writer = MetricsWriter(run / "metrics.sqlite")
    writer.add((step, "loss", 1 / step, 1e9 + step) for step in range(1, 41))
    writer.close()
    spoil(run)
    return run
