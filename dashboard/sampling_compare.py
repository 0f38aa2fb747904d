"""Sampling, mode Side by side: the same noises drawn in two to six ways, with what each costs."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import resources
from dashboard.drawing import Drawing, OnStep, Snapshot, Task
from dashboard.drawing_view import press, session_job, show_ending, show_progress, watch
from dashboard.pictures import offer_png, show_row
from dashboard.sampling_controls import CORRECT, LECTURE, Chosen
from dashboard.sampling_words import precise
from diffusion_core.checkpoint import Checkpoint
from diffusion_core.flow import FlowSchedule
from diffusion_core.order import ANY_CLASS, EACH_IN_TURN, Order
from diffusion_core.picture_settings import entries
from diffusion_core.pictures import grid, png, to_uint8
from diffusion_core.presets import build_schedule
from diffusion_core.runs import Run
from diffusion_core.samplers import samplers_for

KEY = "compare"
FEWEST, MOST = 2, 6
MOST_PICTURES = 8  # of a way
SIDE = 96  # screen pixels of a picture
STEPS = [2, 5, 10, 20, 30, 50, 100, 250, 1000]
SCALES = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0]
SEEDS = list(range(10))


@dataclass(frozen=True)
class Way:
    """One row of the grid."""

    order: Order
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Drawn:
    way: Way
    pictures: np.ndarray  # uint8 (n, H, W, C)
    evaluations: int  # of the network, for one picture
    seconds: float


def show(chosen: Chosen, controls: DeltaGenerator, results: DeltaGenerator) -> None:
    with controls:
        st.divider()
        st.caption(
            "Choose two or more values of whatever should differ; all the rest is as above. Of "
            "several such lists every combination is drawn, two to six in all."
        )
        st.button(
            "The lecture's noise term",
            help="Held against the correct one: DDPM over the same steps with both.",
            icon=":material/school:",
            on_click=choose_noise_terms,
            disabled=isinstance(build_schedule(chosen.checkpoint.config), FlowSchedule),
            width="stretch",
        )
        ways, problem = pick_ways(chosen)
        if problem:
            st.caption(problem)
        press(
            f"Draw {len(ways)} side by side" if not problem else "Draw side by side",
            lambda: compare_task(ways),
            KEY,
            icon=":material/view_week:",
            disabled=bool(problem),
        )
    with results:
        job = session_job(KEY)
        if job is None:
            st.info(
                "Every row starts from the same noises, so that only what was chosen makes the "
                "difference. Beside each stand the evaluations of the network and the seconds "
                "that it took.",
                icon=":material/view_week:",
            )
            return
        watch(job, show_rows)


def choose_noise_terms() -> None:
    """The preset: DDPM over the same steps, with both noise terms."""
    for name in ("run", "step", "average", "sampler", "steps", "guidance", "seed"):
        st.session_state[f"vs_{name}"] = []
    st.session_state["vs_way"] = [CORRECT, LECTURE]


def pick_ways(chosen: Chosen) -> tuple[list[Way], str]:
    """The ways to draw, and a sentence where these are none that can be compared."""
    checkpoint, order = chosen.checkpoint, chosen.order
    count = st.number_input(
        "Pictures in a row", 1, MOST_PICTURES, 4, key="vs_n", bind="query-params"
    )
    order = replace(order, n=int(count))
    schedule = build_schedule(checkpoint.config)
    runs = pick("Runs", [run.name for run in chosen.runs], "vs_run")
    steps_there = [str(each.step) for each in chosen.run.checkpoints()[0]]
    at = pick("Checkpoint steps", steps_there, "vs_step", disabled=len(runs) > 0)
    averages = pick("Averaged weights", list(checkpoint.averages), "vs_average")
    samplers = pick("Samplers", list(samplers_for(schedule)), "vs_sampler")
    counts = pick("Steps", [k for k in STEPS if k <= schedule.timesteps], "vs_steps")
    knows_any = checkpoint.config.label_dropout > 0 and order.label not in ("", ANY_CLASS)
    scales = pick("Guidance scales", SCALES, "vs_guidance", disabled=not knows_any)
    seeds = pick("Seeds", SEEDS, "vs_seed")
    flow = isinstance(schedule, FlowSchedule)
    terms = pick("Noise terms", [CORRECT, LECTURE], "vs_way", disabled=flow)
    by_name = {run.name: run for run in chosen.runs}
    places = checkpoints_of(chosen, [by_name[name] for name in runs], at)
    ways = []
    lists = (averages, samplers, counts, scales, seeds, terms)
    for place, *values in itertools.product(places, *((found or [None]) for found in lists)):
        ways.append(Way(changed(order, place, chosen.run.name, *values), place))
    if len(ways) < FEWEST:
        return ways, "So far nothing differs."
    if len(ways) > MOST:
        return ways, f"These are {len(ways)} combinations; choose at most {MOST}."
    for way in ways:
        if problem := why_not(way):
            return ways, problem
    return ways, ""


def pick(label: str, options: list, key: str, *, disabled: bool = False) -> list:
    chosen = st.multiselect(
        label, options, placeholder="as above", disabled=disabled, key=key, bind="query-params"
    )
    return [] if disabled else chosen


def checkpoints_of(chosen: Chosen, runs: list[Run], at: list[str]) -> list[Checkpoint]:
    """The latest of each run, or those of the steps, or the one chosen above."""
    if runs:
        return [found for run in runs if (found := run.latest_checkpoint()) is not None]
    if at:
        return [each for each in chosen.run.checkpoints()[0] if str(each.step) in at]
    return [chosen.checkpoint]


def changed(
    order: Order,
    place: Checkpoint,
    own: str,
    average: str | None,
    sampler: str | None,
    steps: int | None,
    scale: float | None,
    seed: int | None,
    term: str | None,
) -> Order:
    """The order with what a way has of its own."""
    run = place.path.parent.parent.name
    order = replace(order, run=run, step=place.step)
    if run != own and order.classes != place.classes:
        # Another set of classes: each in turn, where there are any.
        order = replace(
            order,
            classes=place.classes,
            label=EACH_IN_TURN if place.classes else "",
            guidance_scale=1.0,
            negative="",
            guidance_interval=None,
        )
    if average is not None:
        order = replace(order, average=average)
    if sampler is not None:
        order = replace(order, sampler=sampler, as_lecture=False)
    if scale is not None:
        order = replace(order, guidance_scale=scale)
    if seed is not None:
        order = replace(order, seed=seed)
    if term is not None:
        order = replace(order, sampler="ddpm", as_lecture=term == LECTURE, spacing="trailing")
    return order if steps is None else replace(order, steps=steps)


def why_not(way: Way) -> str:
    """A sentence where a way cannot be drawn."""
    order, schedule = way.order, build_schedule(way.checkpoint.config)
    where = f"{order.run} at step {order.step:,}"
    if order.method not in samplers_for(schedule):
        return f"{where} cannot be drawn from by {order.method}."
    if order.average not in way.checkpoint.averages:
        return f"{where} has no averaged weights called {order.average}."
    if order.as_lecture and way.checkpoint.config.image_size <= 16:
        return f"The pictures of {where} are too small for the lecture's BatchNorm."
    try:
        order.evaluations(schedule)
    except ValueError as error:
        return f"{where}: {error}"
    return ""


def compare_task(ways: list[Way]) -> Task:
    counts = [way.order.evaluations(build_schedule(way.checkpoint.config)) for way in ways]

    def work(on_step: OnStep) -> list[Drawn]:
        found = []
        for way, count in zip(ways, counts, strict=True):
            loaded = resources.model(way.checkpoint, way.order.average)
            way.order.make(loaded, steps=1)  # a network's first time takes longer
            start = time.perf_counter()
            pictures = to_uint8(way.order.make(loaded, on_step))
            seconds = time.perf_counter() - start
            found.append(Drawn(way, pictures, count // way.order.n, seconds))
        return found

    return Task(
        ways[0].order,
        f"{len(ways)} ways side by side",
        sum(way.order.steps for way in ways),
        sum(counts),
        f"compare {len(ways)}",
        work,
    )


def show_rows(job: Drawing, seen: Snapshot) -> None:
    st.markdown(f"**{job.task.words}**")
    if seen.active:
        show_progress(job, seen)
        return
    if seen.state != "done":
        show_ending(seen, job.task.steps)
        return
    rows: list[Drawn] = job.result
    for k, (row, words) in enumerate(
        zip(rows, differing([r.way.order for r in rows]), strict=True)
    ):
        st.markdown(f"**{words}**")
        st.caption(
            f"{row.evaluations:,} evaluations a picture · {precise(row.seconds)} for "
            f"{row.way.order.n}"
        )
        show_row(list(row.pictures), f"{words}, row {k + 1}", SIDE)
    sizes = {row.pictures.shape[1:] for row in rows}
    if len(sizes) == 1:
        whole = grid(np.concatenate([row.pictures for row in rows]), rows[0].way.order.n)
        order = rows[0].way.order
        text = entries(order, what="side by side")
        offer_png("All rows as PNG", png(whole, text=text), f"{order.run}-side-by-side.png")


def differing(orders: list[Order]) -> list[str]:
    """Of each the pieces of its words that not all have."""
    parts = [[f"{order.run} at step {order.step:,}", *order.parts()] for order in orders]
    shared = set(parts[0]).intersection(*map(set, parts[1:]))
    return [", ".join(part for part in each if part not in shared) or "the same" for each in parts]
