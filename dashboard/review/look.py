"""The view Look: samples of the chosen runs in a grid, two of them compared large."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from dashboard.components.gallery.gallery import address_of
from dashboard.components.swipe import swipe
from dashboard.remarks import say_about
from dashboard.review.look_controls import (
    AXES,
    COUNT,
    FROM,
    IMAGE,
    ONES,
    SEED,
    SLIDER,
    TRAINED,
    ask_axes,
    ask_one,
    ask_values,
    spread,
    take_state,
    viewer_state,
)
from dashboard.review.look_images import (
    Key,
    Wanted,
    generate_task,
    image_count,
    missing,
    noise_of,
    png_side,
    strip_of,
    want,
)
from dashboard.review.look_nearest import Shown, show_nearest
from dashboard.services.sampling_job import Snapshot
from dashboard.services.shared_look import recent
from dashboard.ui.outside import code, plain
from dashboard.ui.progress import (
    press,
    session_job,
    show_budget,
    show_running,
    show_seconds,
    watch,
)
from dashboard.ui.run_wording import count
from diffusion_core.data.decode import ImageError
from diffusion_core.review.differences import differing
from diffusion_core.review.grid import (
    GUIDANCE,
    RUN,
    SAMPLER,
    SETTING,
    STEP,
    STEPS,
    USUAL,
    Axis,
    Cell,
    Source,
    make_cells,
    nearest_source,
    setting_values,
)
from diffusion_core.review.index import Row, Value, settings_of
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.remarks import Subject
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.sampling.metadata import NoSettings, read, subject_of
from diffusion_core.sampling.registry import samplers_for
from diffusion_core.text import cut, either, value_text

KEY = "look"  # of the session's job, and of the component
MOST_CELLS = 64
MOST_SLIDERS = 4  # for settings
USUAL_STEPS = (2, 5, 10, 20, 30, 50, 100, 250, 1000)
SCALES = ("1", "1.5", "2", "3", "4", "6", "8")


@dataclass(frozen=True)
class Choices:
    """The chosen runs and what rows, columns and sliders can be."""

    runs: dict[str, RunSnapshot]  # by their names
    sources: list[Source]
    files: dict[str, dict[int, Path]]  # of each run the strips, or the weights, by their steps
    options: dict[str, list[str]]  # of each axis, as text; none of a setting

    def shared_steps(self) -> list[str]:
        """Those that all runs have with any; none where there are fewer than two."""
        steps = [set(source.steps) for source in self.sources if source.steps]
        shared = sorted(set.intersection(*steps))
        return [str(step) for step in shared] if len(shared) > 1 else []


class Found(NamedTuple):
    """The image of a cell, or why there is none."""

    file: bytes = b""  # PNG
    problem: str = ""


def show_look(chosen: Sequence[RunSnapshot], rows: Sequence[Row]) -> None:
    """`rows`: of all runs; not used."""
    if not chosen:
        st.info("Choose up to eight runs in the table to look at their samples.")
        return
    trained = FROM.ask() == TRAINED
    choices = choices_of(chosen, trained)
    for source in choices.sources:
        if not source.steps:
            what = "samples from training" if trained else "checkpoints"
            st.caption(f"{code(source.name)} has no {what}.")
    if not choices.options[STEP]:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = ask_axes(list(choices.options))
        rows_axis, columns_axis = (ask_axis(choices, name) for name in names)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        rest = ask_rest(choices, names)
        image, n, seed = ask_images(list(choices.runs.values()), trained)
    size = len(rows_axis.values) * len(columns_axis.values)
    if not size:
        st.caption("Choose at least one value for the rows and one for the columns.")
        return
    if size > MOST_CELLS:
        st.warning(f"These are {size:,} cells; choose at most {MOST_CELLS}.")
        return
    say_noise(list(choices.runs.values()), trained)
    show_running()
    cells = make_cells(choices.sources, rows_axis, columns_axis, rest)
    if trained:
        found = [[strip_image(choices, cell, image) for cell in row] for row in cells]
        shown = show_grid(rows_axis, columns_axis, cells, found, image)
    else:
        wanted = want(cells, choices.runs, n, seed)
        todo = missing(wanted)
        offer_to_generate(todo, n)
        job = session_job(KEY)
        failed = job.result if job is not None and job.result else {}

        def show() -> dict[str, Shown]:
            found = made(wanted, image, failed)
            return show_grid(rows_axis, columns_axis, cells, found, image)

        if job is not None and job.active:
            watch(job, lambda *_: show())  # the cells appear as they are made
            return
        if job is not None and todo:
            say_outcome(job.snapshot())
        shown = show()
    offer_to_say(shown, choices.runs)
    show_nearest(shown, choices.runs)


def offer_to_say(shown: Mapping[str, Shown], runs: Mapping[str, RunSnapshot]) -> None:
    """What is said of the two large images; of samples from training it is said of their step."""
    with st.container(horizontal=True):
        for which, image in shown.items():
            try:
                subject = subject_of(read(image.file))
            except NoSettings:
                subject = Subject(step=image.step)
            say_about(runs[image.run].run, subject, f"Say about {which}", key=which)


# ------------------------------------------------------------------------ what can be chosen


def choices_of(chosen: Sequence[RunSnapshot], trained: bool) -> Choices:
    runs = {run.name: run for run in chosen}
    files = {
        name: recent(("look", run.path, trained), functools.partial(read_files, run, trained))
        for name, run in runs.items()
    }
    settings = {name: settings_in(run) for name, run in runs.items()}
    sources = [Source(name, tuple(files[name]), settings[name]) for name in runs]
    steps = sorted({step for source in sources for step in source.steps})
    options = {RUN: list(runs), STEP: [str(step) for step in steps]}
    if steps and not trained:
        options |= sampling_options(list(runs.values()))
    differ = differing(list(settings.values()))
    return Choices(runs, sources, files, options | {f"{SETTING}{name}": [] for name in differ})


def settings_in(run: RunSnapshot) -> dict[str, Value]:
    """An empty text is no value, as in `differing`."""
    found = settings_of(run.config) if run.config is not None else {}
    return {name: value for name, value in found.items() if value != ""}


def read_files(run: RunSnapshot, trained: bool) -> dict[int, Path]:
    """The strips, or the weights, of a run by their steps, rising."""
    return dict(run.run.samples() if trained else run.run.weights())


def sampling_options(runs: Sequence[RunSnapshot]) -> dict[str, list[str]]:
    """Samplers, steps and guidance scales that at least one of the runs takes."""
    configs = [run.config for run in runs if run.config is not None]
    schedules = [build_schedule(config) for config in configs]
    taken = [
        [sampler.name for sampler in samplers_for(schedule, config.distilled)]
        for config, schedule in zip(configs, schedules, strict=True)
    ]
    names = list(dict.fromkeys(name for each in taken for name in each))
    alike = all(set(names) == set(each) for each in taken)
    most = max((schedule.timesteps for schedule in schedules), default=1)
    guided = any(config.network_args.get("num_classes") for config in configs)
    return {
        SAMPLER: names if alike and names else [USUAL, *names],
        STEPS: [*(str(steps) for steps in USUAL_STEPS if steps < most), str(most)],
        GUIDANCE: list(SCALES if guided else SCALES[:1]),
    }


def ask_axis(choices: Choices, name: str) -> Axis:
    """An axis with its values; those of runs and settings are all that there are."""
    if name == RUN:
        return Axis(name, list(choices.runs))
    if name.startswith(SETTING):
        return Axis(name, setting_values(choices.sources, name.removeprefix(SETTING)))
    options = [option for option in choices.options[name] if option != USUAL]
    usual: dict[str, list[str]] = {STEP: spread(choices.shared_steps() or options)}
    usual[STEPS] = [each for each in ("5", "10", "20") if each in options]
    usual[GUIDANCE] = [each for each in ("1", "2", "4") if each in options]
    return Axis(name, values_of(name, ask_values(name, options, usual.get(name, options[:3]))))


def values_of(name: str, texts: Sequence[str]) -> list[Any]:
    """The values of an axis for its options."""
    kinds: dict[str, Callable[[str], Any]] = {STEP: int, STEPS: int, GUIDANCE: float}
    return [kinds.get(name, str)(text) for text in texts]


def ask_rest(choices: Choices, axes: Sequence[str]) -> dict[str, Any]:
    """The values of what is no axis."""
    rest: dict[str, Any] = {RUN: next(iter(choices.runs))}
    usual = {STEP: choices.options[STEP][-1], GUIDANCE: SCALES[0]}
    if STEPS in choices.options:
        usual[STEPS] = [k for k in choices.options[STEPS] if int(k) <= 20][-1]
    for name in AXES:
        if name in axes or name not in choices.options:
            continue
        options = choices.options[name]
        [rest[name]] = values_of(name, [ask_one(name, options, usual.get(name, options[0]))])
    if RUN not in axes:
        ask_settings(choices, axes, rest[RUN])
    return rest


def ask_settings(choices: Choices, axes: Sequence[str], run: str) -> None:
    """Sliders that lead to another run, by a setting that it has."""
    names = [name for name in choices.options if name.startswith(SETTING) and name not in axes]
    for name in names[:MOST_SLIDERS]:
        setting = name.removeprefix(SETTING)
        by_text = {value_text(v): v for v in setting_values(choices.sources, setting)}
        if len(by_text) < 2:
            continue
        asked = next(source for source in choices.sources if source.name == run)
        key = f"look-{name}"
        st.session_state[key] = value_text(asked.settings.get(setting))
        with st.container(width=SLIDER):
            st.select_slider(
                code(setting),
                list(by_text),
                key=key,
                on_change=move_run,
                args=(choices.sources, asked, key, setting, by_text),
            )


def move_run(
    sources: Sequence[Source], asked: Source, key: str, name: str, by_text: dict[str, Value | None]
) -> None:
    """The callback of a setting's slider: the run with that value which is otherwise like it."""
    found = nearest_source(sources, {name: by_text[st.session_state[key]]}, asked)
    if found is not None:
        st.session_state[ONES[RUN].key] = found.name


def ask_images(runs: Sequence[RunSnapshot], trained: bool) -> tuple[int, int, int]:
    """The number of the image that is shown, how many are generated, and their seed."""
    if trained:
        n, seed = max(map(image_count, runs)), 0
    else:
        n, seed = COUNT.ask(width=160), SEED.ask(width=160)
    with st.container(width=SLIDER):
        return (IMAGE.now(high=n).ask() if n > 1 else 1), n, seed


def say_noise(runs: Sequence[RunSnapshot], trained: bool) -> None:
    """Whether all images start from the same noise."""
    noises = {noise for run in runs if (noise := noise_of(run)) is not None}
    sizes = sorted({size for _, size, _ in noises})
    if len({noise[1:] for noise in noises}) > 1:
        what = "sizes" if len(sizes) > 1 else "numbers of channels"
        of = f" ({either([f'{size}×{size}' for size in sizes])} px)" if len(sizes) > 1 else ""
        st.caption(f"The images have different {what}{of}, so they start from different noise.")
    elif trained and len(noises) > 1:
        st.caption(
            "The runs have different seeds, so their samples from training start from different "
            "noise. Generated images start from the same."
        )


# --------------------------------------------------------------------------- the images


def strip_image(choices: Choices, cell: Cell, image: int) -> Found:
    """Image number `image` of the strip of a cell."""
    if cell.problem:
        return Found(problem=cell.problem)
    run = choices.runs[cell.values[RUN]]
    try:
        files = strip_of(choices.files[run.name][cell.values[STEP]])
    except ImageError as error:
        return Found(problem=str(error))
    there = len(files) if image_count(run) > 1 else 1
    if image > there:
        return Found(problem=f"It has only {count(there, 'image')}.")
    return Found(files[image - 1])


def made(
    wanted: Sequence[Sequence[Wanted]], image: int, failed: Mapping[Key, str]
) -> list[list[Found]]:
    """Image number `image` of each cell that is generated; `failed`: why others are not."""

    def one(each: Wanted) -> Found:
        if each.problem:
            return Found(problem=each.problem)
        files = each.made
        if files is None:
            return Found(problem=failed.get(each.key, "Not generated yet."))
        return Found(files[image - 1])

    return [[one(each) for each in row] for row in wanted]


def offer_to_generate(todo: list[Wanted], n: int) -> None:
    """The button, and what it costs."""
    if todo:
        task = generate_task(todo)
        with st.container(horizontal=True, vertical_alignment="center"):
            press(f"Generate {count(n * len(todo), 'image')}", lambda: task, KEY)
            show_budget()
            show_seconds(task.pace_key, task.evaluations)


def say_outcome(seen: Snapshot) -> None:
    """Why the last job did not make all images, if it did not."""
    if seen.state == "failed":
        st.error(plain(seen.sentence))
    elif seen.state == "cancelled":
        st.warning(f"{plain(seen.sentence)} What was generated before is kept.")


def show_grid(
    rows: Axis,
    columns: Axis,
    cells: Sequence[Sequence[Cell]],
    found: Sequence[Sequence[Found]],
    image: int,
) -> dict[str, Shown]:
    """The images; returns those that are large, by "A" and "B"."""
    row_titles, column_titles = titles(rows), titles(columns)
    there: dict[str, Shown] = {}
    shown_cells: list[list[swipe.Cell]] = []
    for r, (line, files) in enumerate(zip(cells, found, strict=True)):
        shown_cells.append([])
        for c, (cell, one) in enumerate(zip(line, files, strict=True)):
            if not one.file:
                shown_cells[-1].append(swipe.Cell(problem=one.problem))
                continue
            run, step = cell.values[RUN], cell.values[STEP]
            shown_cells[-1].append(
                swipe.Cell(
                    address_of(one.file),
                    f"{run}-step-{step}-image-{image}.png",
                    png_side(one.file),
                    cell.note,
                )
            )
            name = f"{row_titles[r]}, {column_titles[c]}"
            there[f"{r + 1}.{c + 1}"] = Shown(name, one.file, run, step)
    grid = swipe.Grid(
        f"Image {image} of each cell",
        f"{AXES.get(rows.name, 'Setting')} / {AXES.get(columns.name, 'Setting')}",
        column_titles,
        row_titles,
        shown_cells,
    )
    state = viewer_state(there)
    swipe.show_swipe(grid, state, KEY, take_state)
    return {each.upper(): there[state[each]] for each in ("a", "b") if state[each] in there}


def titles(axis: Axis) -> list[str]:
    setting = axis.name.removeprefix(SETTING)
    words = {
        RUN: "{}",
        STEP: "step {:,}",
        SAMPLER: "{}",
        STEPS: "{:,} sampling steps",
        GUIDANCE: "guidance {:g}",
    }
    if axis.name in words:
        return [cut(words[axis.name].format(value)) for value in axis.values]
    return [cut(f"{setting} {value_text(value)}") for value in axis.values]
