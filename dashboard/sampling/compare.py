"""Sampling, mode Side by side: the same noises drawn in two to six ways, with what each costs."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.sampling.controls import CORRECT, LECTURE, Chosen, takes_lecture
from dashboard.sampling.wording import precise
from dashboard.services import cached
from dashboard.services.sampling_queue import OnStep, SamplingJob, Snapshot, Task
from dashboard.ui.images import offer_png, show_row
from dashboard.ui.progress import has_result, press, session_job, watch
from diffusion_core.media.images import grid, png, to_uint8
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run
from diffusion_core.sampling.metadata import entries
from diffusion_core.sampling.registry import samplers_for
from diffusion_core.sampling.spec import ANY_CLASS, EACH_IN_TURN, MAX_SEED, VARIANCES, SamplingSpec

KEY = "compare"
FEWEST, MOST = 2, 6
MOST_IMAGES = 8  # of a way
SIDE = 96  # screen pixels of an image
STEPS = [2, 5, 10, 20, 30, 50, 100, 250, 1000]
SCALES = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0]
SEEDS = list(range(10))
# Each list of values by its key in the address, with its label, in the order of the rows.
LISTS = {
    "vs_run": "Runs",
    "vs_step": "Checkpoint steps",
    "vs_average": "Averaged weights",
    "vs_sampler": "Samplers",
    "vs_steps": "Steps",
    "vs_guidance": "Guidance scales",
    "vs_seed": "Seeds",
    "vs_variance": "Variances of the noise",
    "vs_way": "Noise term and BatchNorm",
}


@dataclass(frozen=True)
class Way:
    """One row of the grid."""

    spec: SamplingSpec
    checkpoint: Checkpoint


@dataclass(frozen=True)
class ComparedRow:
    way: Way
    images: np.ndarray  # uint8 (n, H, W, C)
    evaluations: int  # of the network, for one image
    seconds: float


@dataclass(frozen=True, eq=False)
class Compared:
    """What came of it."""

    spec: SamplingSpec  # what all have in common, as chosen above the lists
    page: dict[str, Any]  # of the page's address, that brings the lists back
    rows: list[ComparedRow]


def show(chosen: Chosen, controls: DeltaGenerator, results: DeltaGenerator) -> None:
    schedule = build_schedule(chosen.checkpoint.config)
    with controls:
        st.divider()
        st.caption(
            "Choose two or more values of whatever should differ; all the rest is as above. Of "
            "several such lists every combination is drawn, two to six in all."
        )
        st.button(
            "The lecture's noise term",
            help="Held against the two correct ones: ddpm over all steps, which differs in "
            "the noise that each step adds and in nothing else.",
            icon=":material/school:",
            on_click=choose_noise_terms,
            args=(schedule.timesteps,),
            disabled=schedule.is_flow,
            width="stretch",
        )
        spec, lists, problem = pick_lists(chosen)
        ways, unfit = make_ways(chosen, spec, lists)
        problem = problem or unfit
        if problem:
            st.caption(problem)
        press(
            f"Draw {len(ways)} side by side" if not problem else "Draw side by side",
            lambda: compare_task(spec, settings(spec, lists, ways), ways),
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


def choose_noise_terms(timesteps: int) -> None:
    """The preset: ddpm over all timesteps with each of the noise terms, and all else the same."""
    st.session_state.update({key: [] for key in LISTS})
    st.session_state["vs_sampler"] = ["ddpm"]
    st.session_state["vs_steps"] = [timesteps]
    st.session_state["vs_variance"] = list(VARIANCES)


def offered(run: Run, checkpoint: Checkpoint, runs: list[Run]) -> dict[str, list]:
    """What each of the lists has to choose from, by its key."""
    schedule = build_schedule(checkpoint.config)
    flow = schedule.is_flow
    return {
        "vs_run": [each.name for each in runs],
        "vs_step": [str(each.step) for each in run.checkpoints()[0]],
        "vs_average": list(checkpoint.averages),
        "vs_sampler": [sampler.name for sampler in samplers_for(schedule)],
        "vs_steps": [k for k in STEPS if k < schedule.timesteps] + [schedule.timesteps],
        "vs_guidance": SCALES,
        "vs_seed": SEEDS,
        "vs_variance": [] if flow else list(VARIANCES),
        "vs_way": [] if flow else [CORRECT, LECTURE],
    }


def own_numbers(checkpoint: Checkpoint) -> dict[str, tuple[int, int]]:
    """The lists that take other whole numbers than those offered: the least and the most."""
    return {"vs_steps": (1, build_schedule(checkpoint.config).timesteps), "vs_seed": (0, MAX_SEED)}


def pick_lists(chosen: Chosen) -> tuple[SamplingSpec, dict[str, list], str]:
    """What all ways have in common, the values chosen of each list, and a sentence where one of
    them is none that can be."""
    checkpoint = chosen.checkpoint
    count = st.number_input("Images in a row", 1, MOST_IMAGES, 4, key="vs_n", bind="query-params")
    spec = chosen.spec.replace(n=int(count))
    own = own_numbers(checkpoint)
    guides = checkpoint.config.label_dropout > 0 and spec.label not in ("", ANY_CLASS)
    lists: dict[str, list] = {}
    problem = ""
    for key, options in offered(chosen.run, checkpoint, chosen.runs).items():
        off = (
            not options
            or (key == "vs_step" and len(lists["vs_run"]) > 0)
            or (key == "vs_guidance" and not guides)
        )
        low, high = own.get(key, (0, 0))
        given = st.multiselect(
            LISTS[key],
            options,
            placeholder="as above",
            wrap=True,
            help=f"Others can be typed, from {low:,} to {high:,}." if key in own else None,
            accept_new_options=key in own,
            disabled=off,
            key=key,
            bind="query-params",
        )
        lists[key] = [] if off else given
        if key in own:
            numbers = whole_numbers(given, low, high)
            lists[key] = numbers or []
            if numbers is None:
                problem = f"{LISTS[key]}: only whole numbers from {low:,} to {high:,} are possible."
    return spec, lists, problem


def whole_numbers(given: list, low: int, high: int) -> list[int] | None:
    """The values, some of which were typed, without repetition; None where one is none."""
    texts = [str(each).strip() for each in given]
    # Texts of so few digits that `int` takes them.
    if not all(text.isascii() and text.isdecimal() and len(text) < 20 for text in texts):
        return None
    numbers = [int(text) for text in texts]
    if not all(low <= number <= high for number in numbers):
        return None
    return list(dict.fromkeys(numbers))


def make_ways(chosen: Chosen, spec: SamplingSpec, lists: dict[str, list]) -> tuple[list[Way], str]:
    """Every combination of the values chosen, and a sentence where these cannot be compared."""
    by_name = {run.name: run for run in chosen.runs}
    places = checkpoints_of(chosen, [by_name[name] for name in lists["vs_run"]], lists["vs_step"])
    values = [lists[key] or [None] for key in LISTS if key not in ("vs_run", "vs_step")]
    count = len(places) * math.prod(map(len, values))
    if count < FEWEST:
        return [], "So far nothing differs."
    if count > MOST:
        return [], f"These are {count:,} combinations; choose at most {MOST}."
    ways = [
        Way(changed(spec, place, *combination), place)
        for place, *combination in itertools.product(places, *values)
    ]
    for k, way in enumerate(ways):
        if problem := why_not(way):
            return ways, problem
        if way.spec in [other.spec for other in ways[:k]]:
            return ways, f"Two of the rows would be the same: {way.spec.words()}."
    return ways, ""


def settings(spec: SamplingSpec, lists: dict[str, list], ways: list[Way]) -> dict[str, Any]:
    """Of the page's address, and of which checkpoint each of the runs was drawn."""
    page = {"mode": "Side by side", "vs_n": spec.n} | {
        key: values for key, values in lists.items() if values
    }
    if lists["vs_run"]:
        page["drawn_at"] = {way.spec.run: way.spec.step for way in ways}
    return page


def checkpoints_of(chosen: Chosen, runs: list[Run], at: list[str]) -> list[Checkpoint]:
    """The one chosen above, or of the same run those of the steps, or the latest of each of the
    runs, but of the one above the one that is chosen there."""
    if runs:
        latest = (
            chosen.checkpoint if run.name == chosen.run.name else run.latest_checkpoint()
            for run in runs
        )
        return [found for found in latest if found is not None]
    if at:
        return [each for each in chosen.run.checkpoints()[0] if str(each.step) in at]
    return [chosen.checkpoint]


def changed(
    spec: SamplingSpec,
    place: Checkpoint,
    average: str | None,
    sampler: str | None,
    steps: int | None,
    scale: float | None,
    seed: int | None,
    variance: str | None,
    term: str | None,
) -> SamplingSpec:
    """The order with what a way has of its own."""
    flow = build_schedule(place.config).is_flow
    spec = spec.replace(run=place.path.parent.parent.name, step=place.step, flow=flow)
    if flow:
        spec = spec.replace(spacing="trailing")  # the only one that a flow has
    if spec.classes != place.classes:
        # Another set of classes: each in turn, where there are any.
        spec = spec.replace(
            classes=place.classes,
            label=EACH_IN_TURN if place.classes else "",
            guidance_scale=1.0,
            negative="",
            guidance_interval=None,
        )
    if average is not None:
        spec = spec.replace(average=average)
    if sampler is not None:
        spec = spec.replace(sampler=sampler, as_lecture=False)
    if steps is not None:
        spec = spec.replace(steps=steps)
    if scale is not None:
        spec = spec.replace(guidance_scale=scale)
    if seed is not None:
        spec = spec.replace(seed=seed)
    if term == CORRECT:
        spec = spec.replace(sampler=sampler or "ddpm", as_lecture=False, spacing="trailing")
    elif term == LECTURE:
        spec = spec.replace(sampler="ddpm", as_lecture=True, spacing="trailing")
    if variance is not None:
        return spec.replace(variance=variance)
    # That chosen above is of ddpm alone.
    own = spec.method == "ddpm" and not spec.as_lecture
    return spec if own else spec.replace(variance=VARIANCES[0])


def why_not(way: Way) -> str:
    """A sentence where a way cannot be drawn, or its settings mean nothing there."""
    spec, checkpoint, config = way.spec, way.checkpoint, way.checkpoint.config
    schedule = build_schedule(config)
    where = f"{spec.run} at step {spec.step:,}"
    if spec.method not in [sampler.name for sampler in samplers_for(schedule)]:
        return f"{where} cannot be drawn from by {spec.method}."
    if spec.average not in checkpoint.averages:
        return f"{where} has no averaged weights called {spec.average}."
    if spec.as_lecture and not takes_lecture(config):
        return (
            f"{where} cannot be drawn from as the lecture does: that takes the lecture's network "
            "and images of more than 16 pixels."
        )
    if spec.variance != VARIANCES[0] and spec.as_lecture:
        return "The lecture's way has a noise term of its own; choose no variances beside it."
    if spec.variance != VARIANCES[0] and spec.method != "ddpm":
        return f"{spec.method} has no variance to choose; choose ddpm alone under Samplers."
    guided, knows_any = spec.guidance_scale != 1, config.label_dropout > 0
    if guided and not spec.classes:
        return f"{where} was trained without classes, so nothing can guide it."
    if guided and spec.label == ANY_CLASS:
        return f"{where} is asked for any class, so nothing can guide it; choose another class."
    if not knows_any and (spec.label == ANY_CLASS or (guided and not spec.negative)):
        return (
            f"{where} was trained with the class always given, so it knows no “{ANY_CLASS}”; "
            "choose a class above, without guidance."
        )
    try:
        spec.evaluations(schedule)
    except ValueError as error:
        return f"{where}: {error}"
    return ""


def compare_task(spec: SamplingSpec, page: dict[str, Any], ways: list[Way]) -> Task:
    """Its result is a `Compared`; `order` and `page` are only kept in it."""
    counts = [way.spec.evaluations(build_schedule(way.checkpoint.config)) for way in ways]

    def work(on_step: OnStep) -> Compared:
        found = []
        for way, count in zip(ways, counts, strict=True):
            loaded = cached.model(way.checkpoint, way.spec.average)
            way.spec.make(loaded, steps=1)  # a network's first time takes longer
            start = time.perf_counter()
            images = to_uint8(way.spec.make(loaded, on_step))
            seconds = time.perf_counter() - start
            found.append(ComparedRow(way, images, count // way.spec.n, seconds))
        return Compared(spec, page, found)

    return Task(
        ways[0].spec,
        f"{len(ways)} ways side by side",
        sum(way.spec.steps for way in ways),
        sum(counts),
        f"compare {len(ways)}",
        work,
    )


def show_rows(job: SamplingJob, seen: Snapshot) -> None:
    if not has_result(job, seen):
        return
    made: Compared = job.result
    rows = made.rows
    for k, (row, words) in enumerate(zip(rows, differing([r.way.spec for r in rows]), strict=True)):
        st.markdown(f"**{words}**")
        st.caption(
            f"{row.evaluations:,} evaluations an image · {precise(row.seconds)} for "
            f"{row.way.spec.n}"
        )
        show_row(list(row.images), f"{words}, row {k + 1}", SIDE)
    sizes = {row.images.shape[1:] for row in rows}
    if len(sizes) == 1:
        whole = grid(np.concatenate([row.images for row in rows]), rows[0].way.spec.n)
        text = entries(made.spec, what="side by side", page=made.page)
        offer_png("All rows as PNG", png(whole, text=text), f"{made.spec.run}-side-by-side.png")


def differing(specs: list[SamplingSpec]) -> list[str]:
    """Of each the pieces of its words that not all have."""
    parts = [[f"{spec.run} at step {spec.step:,}", *spec.parts()] for spec in specs]
    shared = set(parts[0]).intersection(*map(set, parts[1:]))
    return [", ".join(part for part in each if part not in shared) or "the same" for each in parts]
