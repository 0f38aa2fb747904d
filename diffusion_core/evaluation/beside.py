"""Measure a checkpoint of a run while it trains.

    python -m diffusion_core.evaluation.beside RUN STEP DEVICE PRIORITY

in a process of its own, in one thread and with a low priority, so that the training keeps its
threads and, with them, its results to the last bit. It ends with whoever started it, whose end of
its standard input closes then. It writes the seconds of CPU time that it took or, with the exit
status REFUSED, why nothing could be measured.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import torch

from diffusion_core.cores import go_behind
from diffusion_core.errors import explains_itself
from diffusion_core.evaluation.evaluate import evaluate, make_spec
from diffusion_core.evaluation.evaluator import OnStep
from diffusion_core.evaluation.results import Result
from diffusion_core.files import os_sentence
from diffusion_core.runs.checkpoint import Checkpoint, load_model
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run, load_run
from diffusion_core.sampling.spec import SamplingSpec

REFUSED = 3  # exit status, with the reason as the output


def spec_beside(run: str, checkpoint: Checkpoint) -> SamplingSpec:
    """How checkpoints are sampled beside the training: always from the same noise."""
    config = checkpoint.config
    steps = min(config.evaluate_steps, build_schedule(config).timesteps)
    return make_spec(run, checkpoint, n=config.evaluate_images, steps=steps)


def evaluate_step(
    run: Run, step: int, device: torch.device | str, on_step: OnStep | None = None
) -> Generator[int, None, Result]:
    """As `evaluate`. Raises CheckpointError too."""
    checkpoint = run.checkpoint(step)
    spec = spec_beside(run.name, checkpoint)
    loaded = load_model(checkpoint, device)
    return (yield from evaluate(run, checkpoint, spec, loaded, workers=0, on_step=on_step))


def main(path: str, step: str, device: str, priority: str) -> int:
    go_behind(os.getpid(), int(priority))
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_starter, daemon=True).start()
    try:
        for _ in evaluate_step(load_run(Path(path)), int(step), device):
            pass
    except Exception as error:
        if not (explains_itself(error) or isinstance(error, OSError)):
            raise
        print(os_sentence(error) if isinstance(error, OSError) else error)
        return REFUSED
    print(time.process_time())
    return 0


def _end_with_starter() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through Python's file, which the end of Python waits for
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
