"""Writes checkpoints and strips beside the training, and restores a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffusion_core.cores import computing
from diffusion_core.device import is_out_of_memory, kind_of
from diffusion_core.files import DiskFull, complain
from diffusion_core.models.inference import for_sampling
from diffusion_core.runs import checkpoint, post_hoc
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.runs.moved import check_images
from diffusion_core.runs.run import load_run
from diffusion_core.runs.status_writer import StatusWriter
from diffusion_core.training import strips
from diffusion_core.training.background import Background, all_finite, snapshot, to_cpu
from diffusion_core.training.context import TrainingContext, begin_matching, load_optimizer
from diffusion_core.training.evaluations import Evaluations
from diffusion_core.training.reasons import log_traceback, reason

if TYPE_CHECKING:
    from diffusion_core.training.event_files import EventWriter

WriteReport = Callable[[Path], None]  # into the folder of a run


class CannotResume(RuntimeError):
    """The run cannot be resumed from its files; the message is one sentence for the user."""


class CheckpointWriter:
    """Writes the checkpoints and samples the strips of a run, each in a thread of its own.

    Training hands it a snapshot and continues.
    """

    def __init__(
        self,
        context: TrainingContext,
        status: StatusWriter,
        events: EventWriter | None,
        evaluations: Evaluations,
        write_report: WriteReport | None = None,
    ) -> None:
        """`events`: where the strips go as well. `write_report`: see `refresh_report`."""
        self.path = status.path
        self.context = context
        self.status = status
        self.events = events
        self.evaluations = evaluations
        self.write_report = write_report
        self.writer = Background("checkpoints", context.device)
        self.sampler = Background("strips", context.device, priority=-1)
        self.reporter = Background("reports", torch.device("cpu"))
        self.held: list[tuple[int, Callable[[], None]]] = []

    def checkpoint(self, step: int, must: bool = False, evaluate: bool = False) -> None:
        """Take the snapshot of a step; it is written after `release`.

        `evaluate`: measure it then. `must`: the last chance to keep these steps, so a full disk
        ends the run as failed; else training continues with a warning and tries again at the next
        checkpoint.
        """
        context = self.context
        state = snapshot(
            {
                "step": step,
                "model": context.bare_model.state_dict(),
                "optimizer": context.optimizer.state_dict(),
                "micro_batch": context.micro_batch,
                "processes": context.accelerator.num_processes,
                "device": kind_of(context.device),
                "data_fingerprint": context.store.fingerprint,
                "data_content": context.store.content,
            }
        )
        if context.weighting is not None:
            state["weighting"] = snapshot(context.weighting.state_dict())
        if context.powers:
            state["powers"] = self._powers()
        if context.critic is not None and context.critic_optimizer is not None:
            state["critic"] = snapshot(context.critic.state_dict())
            state["critic_optimizer"] = snapshot(context.critic_optimizer.state_dict())
        averages = {
            name: snapshot(average.state_dict()) for name, average in context.averages.items()
        }
        classes = context.store.classes if context.labelled else ()
        config = context.config

        def write() -> None:
            if self._write(step, state, averages, config, classes, must) and evaluate:
                self.evaluations.start(step)

        self.held.append((step, write))

    def snapshot_averages(self, step: int) -> None:
        """Keep the averages of which one of any length can be made; as `checkpoint`, but training
        continues without them where the disk is full."""
        powers = self._powers()

        def write() -> None:
            if not all(all_finite(weights) for weights in powers.values()):
                return  # the next step reports it
            try:
                post_hoc.save_snapshot(self.path, step, powers)
            except DiskFull as error:
                complain(str(error))
                self.status.warn(str(error))

        self.held.append((step, write))

    def release(self, step: int) -> None:
        """Let the checkpoints up to this step be written: the numbers of their steps are.

        In this order a resume at a checkpoint never misses a number.
        """
        while self.held and self.held[0][0] <= step:
            self.writer.submit(self.held.pop(0)[1])

    def strip(self, step: int) -> None:
        """Sample the strip of this step; a full disk or memory costs the strip alone."""
        context, config = self.context, self.context.config
        weights = snapshot(context.average.state_dict())
        self.sampler.submit(lambda: self._sample(step, weights, config))

    def remove_old(self, config: RunConfig) -> None:
        """Remove the checkpoints that are no longer to be kept."""
        kept = self.evaluations.under_way()
        if config.keep_best:
            best = load_run(self.path).best_step("validation_loss"), self.evaluations.best_step()
            kept |= {step for step in best if step is not None}
        checkpoint.remove_old(self.path, config.keep_checkpoints, config.keep_every, kept)

    def finish(self) -> None:
        """Wait until all that was released is on disk. Raises what went wrong with it."""
        self.sampler.wait()
        self.writer.wait()
        self.reporter.wait()

    def close(self) -> None:
        for thread in (self.sampler, self.writer, self.reporter):
            thread.close()

    def _powers(self) -> dict[float, dict[str, Tensor]]:
        powers = self.context.powers
        return {length: snapshot(average.state_dict()) for length, average in powers.items()}

    def _write(
        self,
        step: int,
        state: dict[str, Any],
        averages: dict[str, dict[str, Tensor]],
        config: RunConfig,
        classes: tuple[str, ...],
        must: bool,
    ) -> bool:
        """Whether it is on disk."""
        path = self.path
        if not (all_finite(state["model"]) and all_finite(state.get("critic", {}))):
            return False  # the next step reports it; the last good checkpoint stays on disk
        state, averages = to_cpu(state), to_cpu(averages)
        try:
            checkpoint.save_state(path, step, state)
            main = averages.pop(MAIN_AVERAGE)
            checkpoint.save_weights(path, step, main, config, classes, averages)
        except DiskFull as error:
            # A state alone cannot be resumed, and takes the space that the next one needs.
            if not checkpoint.weights_path(path, step).exists():
                checkpoint.state_path(path, step).unlink(missing_ok=True)
            if must:
                raise
            complain(str(error))
            self.status.warn(str(error))
            return False
        self.remove_old(config)
        self.status.warn()
        self.status.update(checkpoint_step=step)
        if config.report:
            self.reporter.submit(lambda: refresh_report(path, self.write_report))
        return True

    def _sample(self, step: int, weights: dict[str, Tensor], config: RunConfig) -> None:
        context = self.context
        half = context.accelerator.mixed_precision == "bf16"
        self.status.update(sampling_step=step)
        try:
            with computing(self.path.parent, context.device):
                if not all_finite(weights):
                    return  # the next step reports it
                network = checkpoint.network_of(config, weights, context.device)
                network = for_sampling(network, half, config.image_shape)
                strip = strips.write_strip(self.path, step, network, context.schedule, config)
            if self.events is not None:
                self.events.add_strip(step, strip)
        except DiskFull as error:
            complain(str(error))
            self.status.warn(str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            warning = f"The device had no memory left for the samples of step {step}."
            complain(warning)
            self.status.warn(warning)
        finally:
            self.status.update(sampling_step=None)


def refresh_report(path: Path, write_report: WriteReport | None) -> None:
    """Write the report of a run that wants one. Whatever goes wrong with it, training goes on."""
    try:
        config = load_run(path).config
        if write_report is not None and config is not None and config.report:
            write_report(path)
    except Exception as error:
        complain(f"The report cannot be written. {reason(error)}")
        log_traceback(path, error)


def start_from(weights: dict[str, Tensor], context: TrainingContext) -> None:
    """Give the network and its averages these weights, before the first step."""
    context.bare_model.load_state_dict(weights)
    for average in context.averages.values():
        average.load_state_dict(weights)


def restore(path: Path, context: TrainingContext) -> tuple[int, str]:
    """Load the newest step of which both state and weights are whole.

    Returns it (0 if the run has no checkpoint yet) and a warning about newer ones ("" if none).
    Raises CannotResume where it has some and none can be used: starting again would lose them;
    ConfigError for other images.
    """
    skipped = []
    run = load_run(path)
    first = context.optimizer
    for step, _ in reversed(run.weights()):
        try:
            found = run.checkpoint(step)
            state = checkpoint.load_state(path, step)
            averages = {name: checkpoint.load_weights(found, name) for name in context.averages}
        except checkpoint.CheckpointError as error:
            skipped.append(f"Step {step} cannot be resumed: {error}")
            continue
        check_images(
            context.config.data,
            context.store,
            state["data_fingerprint"],
            state.get("data_content", ""),
            context.labelled,
        )
        try:
            context.bare_model.load_state_dict(state["model"])
            if "critic" in state:
                begin_matching(context)
                assert context.critic is not None and context.critic_optimizer is not None
                context.critic.load_state_dict(state["critic"])
                load_optimizer(context.critic_optimizer, context.device, state["critic_optimizer"])
            load_optimizer(context.optimizer, context.device, state["optimizer"])
            if context.weighting is not None:
                context.weighting.load_state_dict(state["weighting"])
            for length, average in context.powers.items():
                average.load_state_dict(state["powers"][length])
            for name, average in context.averages.items():
                average.load_state_dict(averages[name])
        except Exception:  # each part raises its own for what is of another network
            file = checkpoint.state_path(path, step).name
            skipped.append(f"Step {step} cannot be resumed: {file} is not of this run.")
            complain(skipped[-1])
            # An older checkpoint may be one of before the matching.
            context.optimizer, context.critic, context.critic_optimizer = first, None, None
            continue
        # The same parts as before, where each process has the same share of the batch and as much
        # memory: their order of summing is part of an exact resume.
        now = (context.accelerator.num_processes, kind_of(context.device))
        if (state.get("processes"), state.get("device", "cpu")) == now:
            context.micro_batch = state["micro_batch"]
        if not skipped:
            return step, ""
        warning = f"{' '.join(skipped)} Resumed from step {step}."
        complain(warning)
        return step, warning
    if skipped:
        raise CannotResume(f"None of the checkpoints can be resumed. {' '.join(skipped)}")
    return 0, ""
