"""What the blocks of `benchmarks.gpu` are given, what they find, and the table of it."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Setting:
    device: torch.device
    quick: bool  # little work: whether the script itself works

    def choose(self, usual: int, quick: int) -> int:
        return quick if self.quick else usual

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """That `work` takes, on the device too."""
        self.synchronize()
        start = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - start


@dataclass(frozen=True)
class Finding:
    block: str
    what: str
    value: str
    goal: str = ""
    good: bool | None = None  # False: something is wrong, which a missed goal of speed is not


class Report:
    """Prints findings and adds them to a file, both at once."""

    def __init__(self, block: str, file: Path) -> None:
        self.block = block
        self.file = file

    def __call__(self, what: str, value: str, goal: str = "", good: bool | None = None) -> None:
        found = Finding(self.block, what, value, goal, good)
        wrong = "  WRONG" if good is False else ""
        print(f"  {what}: {value}{f' (goal: {goal})' if goal else ''}{wrong}", flush=True)
        with self.file.open("a") as file:
            file.write(json.dumps(asdict(found)) + "\n")

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """An error in the block is a finding, and what comes after is still measured."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            told = next(iter(str(error).splitlines()), "")[:200]
            self(what, f"{type(error).__name__}: {told}", good=False)


def read_findings(file: Path) -> list[Finding]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [Finding(**json.loads(line)) for line in lines]


def table(found: list[Finding], machine: str) -> str:
    """In Markdown, with what was measured on."""
    lines = [machine, "", "| block | what | found | goal | right |", "|---|---|---|---|---|"]
    for each in found:
        right = {None: "", True: "yes", False: "**no**"}[each.good]
        cells = [each.block, each.what, each.value, each.goal, right]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)
