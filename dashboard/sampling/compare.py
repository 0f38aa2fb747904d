"""Sampling, mode Compare: the same noises sampled in two to six ways, with the cost of each."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.components.gallery.gallery import Row as GalleryRow
from dashboard.components.gallery.gallery import Tile, address_of, show_gallery
from dashboard.sampling.choose import Chosen
from dashboard.sampling.compare_lists import (
    Row,
    choose_noise_terms,
    make_rows,
    page_settings,
    pick_lists,
)
from dashboard.sampling.history import Result, face_of, keep
from dashboard.sampling.sharing import offer_link
from dashboard.services.sampling_job import SamplingJob, Snapshot
from dashboard.services.sampling_tasks import Load, OnStep, Task, load_guide, pace_key_of
from dashboard.ui.images import offer_png
from dashboard.ui.outside import plain
from dashboard.ui.progress import precise, press, session_job, show_seconds, show_state, watch
from dashboard.ui.run_wording import count
from diffusion_core.media.images import grid, png, to_uint8
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.metadata import Kind, Made, entries
from diffusion_core.sampling.spec import SamplingSpec

KEY = "compare"
SIDE = 96  # screen pixels of an image


@dataclass(frozen=True)
class ComparedRow:
    spec: SamplingSpec
    images: np.ndarray  # uint8 (n, H, W, C)
    evaluations: int  # of the network, for one image
    seconds: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """The result."""

    spec: SamplingSpec  # what all rows have in common, as chosen above the lists
    page: dict[str, Any]  # values of the controls that restore the lists
    rows: list[ComparedRow]


def show(
    chosen: Chosen, bar: DeltaGenerator, controls: DeltaGenerator, results: DeltaGenerator
) -> None:
    with controls:
        st.divider()
        spec, lists, problem = pick_lists(chosen)
        st.caption("All combinations are generated (2 to 6). Nothing else differs between rows.")
        rows, unfit = make_rows(chosen, spec, lists)
        problem = problem or unfit
        if problem:
            st.caption(plain(problem))
        warnings = [row.spec.warning(Capabilities.of(row.checkpoint)) for row in rows]
        for warning in filter(None, dict.fromkeys(warnings)):
            st.warning(plain(warning))
        st.button(
            "Compare noise terms",
            help="Selects DDPM over all timesteps with the lecture's noise term and the two "
            "correct ones.",
            icon=":material/school:",
            on_click=choose_noise_terms,
            args=(chosen.can.timesteps,),
            disabled=chosen.can.flow,
            width="stretch",
        )
    with bar:
        press(
            "Generate comparison" if problem else f"Generate {len(rows)} rows",
            lambda: compare_task(spec, page_settings(spec, lists, rows), rows),
            KEY,
            icon=":material/view_week:",
            disabled=bool(problem),
        )
        if not problem:
            task = compare_task(spec, {}, rows)
            show_seconds(task.pace_key, task.evaluations)
    with results:
        job = session_job(KEY)
        if job is None:
            st.info(
                "All rows start from the same noise, so only the compared settings make a "
                "difference. Each row shows its network evaluations and the time that it took.",
                icon=":material/view_week:",
            )
            return
        watch(job, show_rows)


def compare_task(spec: SamplingSpec, page: dict[str, Any], rows: list[Row]) -> Task:
    """The result is a `Comparison` with this `spec` and `page`."""
    counts = [row.spec.evaluations(build_schedule(row.checkpoint.config)) for row in rows]
    pace = pace_key_of([(row.spec, row.checkpoint.config) for row in rows])

    def work(load: Load, on_step: OnStep) -> Comparison:
        made = []
        for row, evaluations in zip(rows, counts, strict=True):
            loaded = load(row.checkpoint, row.spec.average, row.spec.exact)
            guide = load_guide(load, row.spec, row.checkpoint)
            # The first evaluations of a network take longer, also of one that guides later only.
            one_step = row.spec.replace(guidance_interval=None)
            one_step.make(loaded, guide=guide, steps=1, timesteps=row.spec.timesteps[:1])
            start = time.perf_counter()
            images = to_uint8(row.spec.make(loaded, on_step, guide=guide))
            seconds = time.perf_counter() - start
            made.append(ComparedRow(row.spec, images, evaluations // row.spec.n, seconds))
        return Comparison(spec, page, made)

    return Task(
        rows[0].spec,
        f"Comparison of {len(rows)} rows",
        sum(row.spec.steps for row in rows),
        sum(counts),
        pace,
        work,
    )


def show_rows(job: SamplingJob, seen: Snapshot) -> None:
    if not show_state(job, seen):
        return
    made: Comparison = job.result
    rows = made.rows
    result = keep(job, lambda: result_of(job))
    show_gallery(result.rows, job.task.text, "compared")
    st.caption(
        "Times are measured on a shared machine and depend on what else runs there; the number of "
        "evaluations does not."
    )
    sizes = {row.images.shape[1:] for row in rows}
    with st.container(horizontal=True):
        if len(sizes) == 1:
            whole = grid(np.concatenate([row.images for row in rows]), rows[0].spec.n)
            text = entries(made.spec, None, "comparison", made.page, Kind.OTHER)
            offer_png("All rows as PNG", png(whole, text=text), f"{made.spec.run}-comparison.png")
        offer_link(made.spec, made.page, result.not_linked)


def result_of(job: SamplingJob) -> Result:
    made: Comparison = job.result
    titles = differences([row.spec for row in made.rows])
    rows = tuple(map(gallery_row, made.rows, titles))
    lost = ""
    if len({row.spec.run for row in made.rows}) > 1:
        lost = "Other runs than the first are sampled at their newest checkpoint."
    what = " · ".join(titles)
    text = f"{job.task.text}: {what}"
    face = face_of(made.rows[0].images[0])
    return Result(Made(made.spec, None, Kind.OTHER, made.page), text, rows, face, what, lost)


def gallery_row(row: ComparedRow, title: str) -> GalleryRow:
    spec = row.spec
    start = f"{spec.run}-step-{spec.step}-{spec.method}-{spec.steps}-steps-seed-{spec.seed}"
    tiles = tuple(
        Tile(
            address_of(png(image, text=entries(spec, k))),
            f"Image {k + 1}",
            f"{start}-image-{k + 1}.png",
        )
        for k, image in enumerate(row.images)
    )
    note = (
        f"{row.evaluations:,} network evaluations per image · "
        f"{count(spec.n, 'image')} in {precise(row.seconds)} (measured)"
    )
    return GalleryRow(tiles, row.images.shape[1], SIDE, title=title, note=note)


def differences(specs: list[SamplingSpec]) -> list[str]:
    """Of each spec the parts of its text that not all have."""
    details = [{"run": f"{s.run} at step {s.step:,}"} | s.details() for s in specs]
    shared = set.intersection(*(set(each.items()) for each in details))
    return [
        ", ".join(text for field, text in each.items() if (field, text) not in shared) or "the same"
        for each in details
    ]
