"""Measures the quality of checkpoints beside the training.

Each measurement is a process of its own of the lowest priority (`evaluation.beside`), on CUDA a
thread with a stream of its own. The results are files of the run like those of `evaluate`, of which
the curves are a copy. What was cut off has written nothing and is left out.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from diffusion_core.cores import BEHIND, LAST, usable_cores
from diffusion_core.evaluation.beside import REFUSED, evaluate_step, spec_beside
from diffusion_core.evaluation.progress import compared_by, scalars, without_better
from diffusion_core.evaluation.results import (
    Result,
    read_result,
    read_results,
    result_path,
    same_sampling,
)
from diffusion_core.files import complain
from diffusion_core.runs.metrics import Row
from diffusion_core.runs.request import ENDING
from diffusion_core.runs.run import Run
from diffusion_core.runs.status_writer import StatusWriter
from diffusion_core.sampling.sample import Cancelled, StepView
from diffusion_core.training.background import Background
from diffusion_core.training.context import TrainingContext
from diffusion_core.training.reasons import log_traceback, reason
from diffusion_core.training.step_log import StepLog

ROOT = Path(__file__).resolve().parents[2]
KILLED = -9  # the code of a process that the system has ended, as it does where memory is short
LOOK_SECONDS = 0.1  # between two looks whether a process has ended
# A step computes each image forward and backward, which takes about three evaluations.
PER_TRAINED_IMAGE = 3


class NotMeasured(RuntimeError):
    """The process of an evaluation has measured nothing; the message is one sentence."""


class Evaluations:
    """The evaluations of a run by its trainer: those that are known, and those under way."""

    def __init__(self, context: TrainingContext, status: StatusWriter, done: int) -> None:
        """`done`: the step of the checkpoint that the run goes on from; 0 for none."""
        self.context = context
        self.status = status
        self.run = Run(status.path)
        self.apart = context.device.type != "cuda"
        # The thread only waits for a process, unless it measures itself.
        device = torch.device("cpu") if self.apart else context.device
        self.thread = Background("evaluations", device)
        self.over = threading.Event()
        self.steps: set[int] = set()  # under way, or not in the curves yet
        self.began = time.monotonic()
        self.spent = self.newest = 0.0  # seconds of the training's time, in all and of the newest
        self.ready = queue.SimpleQueue[Result]()
        self.known: dict[int, Result] = {}  # by their steps
        if done and context.config.evaluate_every:
            spec = spec_beside(self.run.name, self.run.checkpoint(done))
            self.known = {
                result.spec.step: result
                for result in read_results(self.run.path)[0]
                if result.spec.step <= done
                and same_sampling(result.spec, spec.replace(step=result.spec.step))
            }

    def rows(self) -> list[Row]:
        """The curves of what is known: a process that was killed may have left them without it."""
        return [
            (step, name, value, result.written)
            for step, result in self.known.items()
            for name, value in scalars(result.metrics).items()
        ]

    def fit(self, speed: float | None, last: bool) -> bool:
        """Whether another evaluation costs no more than the share of the time that it may.

        `speed`: images trained on per second, which tells what the first one costs. `last`: it may
        follow one that is under way, which the end of the training waits for anyhow.
        """
        config = self.context.config
        if config.evaluate_share == 1:
            return True
        if not speed or (self.steps and not last):
            return False
        images = config.evaluate_images * config.evaluate_steps
        expected = self.newest or images / (PER_TRAINED_IMAGE * speed)
        elapsed = time.monotonic() - self.began
        return self.spent + expected <= config.evaluate_share * elapsed

    def start(self, step: int) -> None:
        """Measure the checkpoint of a step, which is on disk; waits while two are not done."""
        self.steps.add(step)
        self.thread.submit(lambda: self._measure(step))

    def under_way(self) -> set[int]:
        """The steps whose checkpoints are still needed."""
        return set(self.steps)

    def best_step(self) -> int | None:
        """The step with the best value among the weights that are there."""
        there = {step for step, _ in self.run.weights()}
        known = dict(self.known)  # asked by the thread that writes checkpoints
        found = {step: each.metrics for step, each in known.items() if step in there}
        metric = compared_by(found.values())
        if metric is None:
            return None
        return min((each[metric.name].value, step) for step, each in found.items())[1]

    def write(self, log: StepLog) -> None:
        """Write the curves of what is ready, and stop the run where it no longer gets better."""
        while not self.ready.empty():
            result = self.ready.get()
            step = result.spec.step
            log.write(step, scalars(result.metrics), result.written)
            self.known[step] = result
            self.steps.discard(step)
            if not self.status.enough:
                self._stop_without_better()

    def cancel(self) -> None:
        """End what is under way and begin nothing more."""
        self.over.set()

    def finish(self, log: StepLog) -> None:
        """Wait for what is under way, until a request ends that too."""
        while not self.over.is_set() and (steps := self.under_way()):
            newest = f"Measuring the quality of step {max(steps):,}."
            self.status.update(message=newest, quick=True)
            self.over.wait(LOOK_SECONDS)
            self.write(log)
            if self.status.poll() in ENDING:
                self.cancel()
        self.thread.wait()
        self.write(log)

    def close(self) -> None:
        self.cancel()
        self.thread.close()

    def _measure(self, step: int) -> None:
        try:
            if self.over.is_set():
                raise Cancelled
            cost = self._measure_apart(step) if self.apart else self._measure_here(step)
            self.spent, self.newest = self.spent + cost, cost
            spec = spec_beside(self.run.name, self.run.checkpoint(step))
            result = read_result(result_path(self.run.path, spec))
            assert result is not None
            self.ready.put(result)
        except Cancelled:
            self.steps.discard(step)  # the run ends
        except Exception as error:  # none of them is worth the training
            sentence = f"The quality of step {step:,} was not measured. {reason(error)}"
            if not isinstance(error, NotMeasured):
                log_traceback(self.run.path, error)
            complain(sentence)
            self.status.warn(sentence)
            self.steps.discard(step)

    def _measure_here(self, step: int) -> float:
        """Returns the seconds of the device's time that it took, nearly all of it for sampling."""

        def on_step(view: StepView) -> None:
            if self.over.is_set():
                raise Cancelled

        work = evaluate_step(self.run, step, self.context.device, on_step)
        while not self.over.is_set():
            try:
                next(work)
            except StopIteration as end:
                return end.value.seconds
        raise Cancelled

    def _measure_apart(self, step: int) -> float:
        """As `_measure_here`; on a CPU of the time of all its cores."""
        run = self.run.path.absolute()
        # When the steps are made there is nothing to go behind, and the queue waits.
        config = self.context.config
        beside = step < config.steps and step != config.pause_at
        words = [str(run), str(step), self.context.device.type, str(LAST if beside else BEHIND)]
        process = subprocess.Popen(
            [sys.executable, "-m", "diffusion_core.evaluation.beside", *words],
            stdin=subprocess.PIPE,  # it ends when this process does
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            # Ctrl+C is for the training. Not a session of its own: Linux shares the CPU among
            # sessions first, whatever the priorities in them.
            process_group=0,
        )
        with process:
            while process.poll() is None:
                if self.over.wait(LOOK_SECONDS):
                    process.kill()
                    raise Cancelled
            said = process.stdout.read().strip() if process.stdout else ""
        if process.returncode == REFUSED:
            raise NotMeasured(said)
        if process.returncode == KILLED:
            raise NotMeasured("Its process was killed, perhaps for want of memory.")
        if process.returncode:
            raise NotMeasured(f"Its process ended with the code {process.returncode}.")
        shared = usable_cores() if self.context.device.type == "cpu" else 1
        return float(said.splitlines()[-1]) / shared

    def _stop_without_better(self) -> None:
        patience, steps = self.context.config.stop_when_no_better, sorted(self.known)
        evaluations = [self.known[step].metrics for step in steps]
        metric = compared_by(evaluations)
        if not patience or metric is None:
            return
        values = [each[metric.name] for each in evaluations]
        if (without := without_better(values)) >= patience:
            best, at = min((each.value, step) for each, step in zip(values, steps, strict=True))
            self.status.enough = (
                f"{metric.title} has not become better for {without:,} "
                f"{'evaluation' if without == 1 else 'evaluations'} (best: {metric.format(best)} "
                f"at step {at:,})."
            )
