"""The form that measures a run in the background."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st
import torch
from streamlit.delta_generator import DeltaGenerator

from dashboard.services import cached, sampling_queue
from dashboard.services.budgets import OverBudget
from dashboard.services.roles import Deed, NotAllowed, check
from dashboard.services.sampling_job import SamplingJob, Snapshot, explain
from dashboard.services.sampling_queue import QueueFull
from dashboard.services.sampling_tasks import OnStep, PaceKey, Task, pace_key
from dashboard.ui.controls import Choice, Number, Toggle
from dashboard.ui.guidance import GUIDE, GUIDE_RUN, NEGATIVE, controls_of_guidance
from dashboard.ui.outside import code, plain
from dashboard.ui.progress import show_progress
from dashboard.ui.run_wording import count, duration
from diffusion_core.evaluation.evaluate import evaluate, make_spec, without_bits
from diffusion_core.evaluation.evaluator import FEWEST, cost
from diffusion_core.runs.checkpoint import Checkpoint, load_model
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run
from diffusion_core.sampling.capabilities import EACH_IN_TURN, Capabilities
from diffusion_core.sampling.spec import MOST_IMAGES, SamplingSpec

CHECKPOINT = Choice(key="quality_checkpoint", label="Checkpoint to measure", bind=False)
SAMPLER = Choice(key="quality_sampler", label="Sampler", bind=False)
COUNT = Number(
    key="quality_n",
    label="Number of images",
    default=512,
    low=FEWEST,
    high=MOST_IMAGES,
    help="More images make the intervals narrower. Compare only results of the same number of "
    "images; papers use 10,000 or more.",
    bind=False,
)
OF_GUIDE = {control.field for control in GUIDE}
STEPS = (5, 10, 20, 50, 100, 250)
FEW_STEPS = (1, 2, 4, 8)  # of a distilled run
USUAL_STEPS, USUAL_FEW_STEPS = 20, 2
BITS = Toggle(
    key="quality_bits",
    label="Also measure bits per dimension",
    help="How well the network predicts held-out images. Measured once per checkpoint; not "
    "available for flows and distilled runs.",
    bind=False,
)


_jobs: dict[Path, SamplingJob] = {}  # the newest measurement of each run folder
_lock = threading.Lock()


def job_of(run: Run) -> SamplingJob | None:
    """The newest measurement of a run by this server, whoever has started it."""
    return _jobs.get(run.path)


class Part(NamedTuple):
    checkpoint: Checkpoint
    spec: SamplingSpec
    cost: int  # evaluations of the network, approximately


@dataclass(frozen=True)
class Plan:
    """Measurements, one after the other."""

    run: Run
    parts: list[Part]
    bits: bool

    @property
    def cost(self) -> int:
        return sum(part.cost for part in self.parts)

    @property
    def pace_key(self) -> PaceKey:
        """Of its own: an evaluation takes longer where images are judged too."""
        checkpoint, spec, _ = self.parts[0]
        network, at_once = pace_key(spec, checkpoint.config)
        return f"measuring {network} {self.bits}", at_once


def show_form(run: Run) -> None:
    """The settings of a measurement and its button."""
    usable, _ = run.checkpoints()
    if not usable:
        st.caption("Quality can be measured as soon as the run has a checkpoint.")
        return
    job = job_of(run)
    busy = job is not None and job.active
    with st.expander("Measure", icon=":material/straighten:", key="quality_form"):
        plan = ask_plan(run, usable)
        if plan is None:
            return
        queue = sampling_queue.queue_of(cached.device())
        expected = queue.expected_seconds(plan.pace_key, plan.cost)
        text = f"{plan.cost:,} network evaluations"
        if expected is not None:
            text += f", about {duration(max(1.0, expected))}"
        st.caption(
            f"{text}. Keeps running if you close this page; interactive requests take priority. "
            "Existing results with the same settings are reused."
        )
        if st.button("Measure", type="primary", icon=":material/straighten:", disabled=busy):
            start(plan)


def ask_plan(run: Run, usable: Sequence[Checkpoint]) -> Plan | None:
    """What to measure; None, with a caption that says why, if it is nothing."""
    choices = {"latest": [usable[-1]]}
    if len(usable) > 1:
        choices["all"] = list(usable)
    choices |= {f"step {checkpoint.step:,}": [checkpoint] for checkpoint in reversed(usable)}
    left, middle, right = st.columns(3)
    with left:
        checkpoints = choices[CHECKPOINT.now(options=tuple(choices)).ask()]
    can = Capabilities.of(newest := checkpoints[-1])
    with middle:
        sampler = SAMPLER.now(options=can.samplers).ask()
    with right:
        n = COUNT.ask()
    some, usual = (FEW_STEPS, USUAL_FEW_STEPS) if can.distilled else (STEPS, USUAL_STEPS)
    allowed = [*(steps for steps in some if steps < can.timesteps), can.timesteps]
    taken = st.multiselect(
        "Steps",
        allowed,
        default=[usual] if usual in allowed else allowed[-1:],
        help="Each is measured separately. Several give the curve of quality versus compute.",
        key="quality_steps",
    )
    averages = _pick_averages(checkpoints)
    if not averages:
        st.caption("Select at least one average of the weights.")
        return None
    guidance = _pick_guidance(can, newest, averages[0])
    without = bool(without_bits(newest.config))
    bits = BITS.ask(disabled=without) and not without
    if not taken:
        st.caption("Select at least one number of steps.")
        return None
    parts: list[Part] = []
    refused: dict[str, None] = {}  # sentences, each once
    for checkpoint in checkpoints:
        schedule = build_schedule(checkpoint.config)
        for average, steps in itertools.product(averages, sorted(taken)):
            settings = {"sampler": sampler, "steps": steps, "average": average} | guidance
            try:
                spec = make_spec(run.name, checkpoint, n=n, **settings)
            except ConfigError as error:  # such as the guide itself among all checkpoints
                refused[str(error)] = None
                continue
            parts.append(Part(checkpoint, spec, cost(spec, schedule, bits)))
    for sentence in refused:
        st.caption(f"Left out: {plain(sentence)}")
    return Plan(run, parts, bits) if parts else None


def _pick_guidance(can: Capabilities, checkpoint: Checkpoint, average: str) -> dict[str, Any]:
    """The fields of guidance, by the controls of the Sampling page for a checkpoint."""
    label = EACH_IN_TURN if can.classes else ""
    values = {"step": checkpoint.step, "average": average, "label": label}
    found: dict[str, Any] = {}
    columns: list[DeltaGenerator] = []
    for control in controls_of_guidance(can, values):
        if control.key == NEGATIVE.key:
            continue  # the images are of all classes, that one among them
        if control.key == GUIDE_RUN.key:
            columns = st.columns(len(OF_GUIDE))
        own = control.now(key=f"quality_{control.key}", bind=False)
        with columns.pop(0) if control.field in OF_GUIDE else st.container():
            found[own.field] = values[own.field] = own.to_field(own.ask())
    return found


def _pick_averages(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """The averaged weights to measure, which all of the checkpoints have."""
    there = [
        name for name in checkpoints[0].averages if all(c.has_average(name) for c in checkpoints)
    ]
    any_length = all(checkpoint.snapshots for checkpoint in checkpoints)
    if len(there) < 2:
        return there
    text = "Each is measured separately."
    if any_length:
        text += (
            " Several post-hoc ones give the curve of quality by length, a share of the training; "
            "type post-hoc 0.06 for another length."
        )
    chosen = st.multiselect(
        "Averaged weights",
        there,
        default=there[:1],
        accept_new_options=any_length,
        help=text,
        key="quality_averages",
    )
    for name in chosen:
        if not all(checkpoint.has_average(name) for checkpoint in checkpoints):
            st.caption(f"The checkpoints chosen do not all have {code(name)}; it is left out.")
    return [name for name in chosen if all(c.has_average(name) for c in checkpoints)]


def start(plan: Plan) -> None:
    """Put the plan into the device's queue, or show why that is refused."""
    device = cached.device()
    task = Task(
        plan.parts[0].spec,
        f"Measuring {plan.run.name}: {count(len(plan.parts), 'result')}",
        plan.cost,
        plan.cost,
        plan.pace_key,
        lambda load, on_step: measure(plan, device, on_step),
        background=True,
    )
    try:
        check(Deed.MEASURE)
        with _lock:
            job = job_of(plan.run)
            if job is None or not job.active:  # else another visitor was faster
                _jobs[plan.run.path] = sampling_queue.submit(task, device)
    except (QueueFull, OverBudget, NotAllowed) as error:
        st.error(plain(explain(error)))
        return
    st.rerun()


def measure(plan: Plan, device: torch.device, on_step: OnStep) -> Generator[int, None, None]:
    """Yields the evaluations done, of `plan.cost`.

    It loads its own models: measuring every checkpoint would push those that people sample with out
    of the shared cache.
    """
    before, loaded, held = 0, None, None
    for checkpoint, spec, evaluations in plan.parts:
        if loaded is None or held != (checkpoint, spec.average):
            loaded, held = load_model(checkpoint, device, spec.average), (checkpoint, spec.average)
        # workers=0: each process would import the whole app first.
        work = evaluate(
            plan.run, checkpoint, spec, loaded, bits=plan.bits, workers=0, on_step=on_step
        )
        for done in work:
            yield before + done
        before += evaluations
        yield before


def show_job(job: SamplingJob, seen: Snapshot) -> None:
    if seen.active:
        st.markdown(plain(job.task.text))
        show_progress(job, seen, "Evaluation", Deed.MEASURE)
    elif seen.state == "failed":
        st.error(plain(seen.sentence))
    elif seen.state == "cancelled":
        st.warning(f"{plain(seen.sentence)} Results measured before are kept.")
