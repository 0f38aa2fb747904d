"""Dropping a downloaded image on the Sampling page sets the controls as they were for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import streamlit as st

from dashboard.sampling import compare
from dashboard.sampling.batch import most_images
from dashboard.sampling.between import MOST_FRAMES
from dashboard.sampling.controls import (
    CORRECT,
    LATEST,
    LECTURE,
    max_images,
    takes_lecture,
    url_settings,
)
from dashboard.sampling.edit_controls import (
    AREAS,
    BY_HAND,
    CAMERA,
    DATA,
    DRAWN,
    INVERT,
    LEAST_STRENGTH,
    MOST_RESAMPLES,
    MOST_VARIANTS,
    REPAINT,
    UPLOAD,
    VARY,
)
from dashboard.services import cached
from dashboard.services.settings import get_settings
from diffusion_core.data.errors import DataError
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.sampling.levels import spacings_for
from diffusion_core.sampling.metadata import MAX_MB, Kind, Made, NoSettings, read
from diffusion_core.sampling.registry import samplers_for
from diffusion_core.sampling.spec import (
    ANY_CLASS,
    MAX_SEED,
    MOST_IMAGES,
    VARIANCES,
    SamplingSpec,
    is_number,
    is_whole,
)

MAX_GUIDANCE = 8.0  # of the page's slider

Check = Callable[[Any], bool]


def whole(low: int, high: int) -> Check:
    return lambda value: is_whole(value, low, high)


def number(low: float, high: float) -> Check:
    return lambda value: is_number(value, low, high)


def one_of(names: Iterable[str]) -> Check:
    return lambda value: isinstance(value, str) and value in names


def name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 255


def steps_of_runs(value: Any) -> bool:
    return isinstance(value, dict) and all(is_whole(step, 0, 2**53) for step in value.values())


def several(check: Check) -> Check:
    """Of a list of the mode Side by side."""
    most = compare.MOST
    return lambda value: (
        isinstance(value, list) and len(value) <= most and all(check(each) for each in value)
    )


EDIT, BETWEEN, COMPARE = "From a picture", "Between two", "Side by side"
# What a file may hold beside the order, by the page's mode; nothing else of it is taken. All but
# the last are of the page's address.
PAGES: dict[str, dict[str, Check]] = {
    EDIT: {
        "edit": one_of([VARY, REPAINT, INVERT]),
        "strength": number(LEAST_STRENGTH, 1),
        "area": one_of(AREAS),
        "resample": whole(1, MOST_RESAMPLES),
        "from": one_of([DATA, DRAWN, UPLOAD, CAMERA]),
        "example": whole(0, 2**31),
    },
    BETWEEN: {
        "from_picture": whole(1, MOST_IMAGES),
        "to_picture": whole(1, MOST_IMAGES),
        "to_seed": whole(0, MAX_SEED),
        "frames": whole(2, MOST_FRAMES),
    },
    COMPARE: {
        "vs_n": whole(1, compare.MOST_IMAGES),
        "vs_run": several(name),
        "vs_step": several(name),
        "vs_average": several(name),
        "vs_sampler": several(name),
        "vs_steps": several(whole(1, 2**31)),
        "vs_guidance": several(number(1, MAX_GUIDANCE)),
        "vs_seed": several(whole(0, MAX_SEED)),
        "vs_variance": several(one_of(VARIANCES)),
        "vs_way": several(one_of([CORRECT, LECTURE])),
        "drawn_at": steps_of_runs,
    },
}


def offer() -> None:
    """The place to drop an image on, and what came of the last one. Draw it above the controls:
    the settings are taken before the page is drawn again."""
    count = st.session_state.setdefault("restored_count", 0)
    with st.popover(
        "Restore settings from an image",
        icon=":material/settings_backup_restore:",
        key=f"restoring-{count}",  # another one each time: it is closed again
    ):
        st.file_uploader(
            "A PNG that was downloaded here",
            help="All PNG files of this page carry the settings that made them.",
            key=(key := f"restore-{count}"),  # another one each time: it is empty again
            max_upload_size=min(MAX_MB, get_settings().max_upload_mb),
            on_change=take,
            args=(key,),
        )
    kind, sentence = st.session_state.pop("restored", ("", ""))
    if sentence:
        {"error": st.error, "warning": st.warning, "success": st.success}[kind](sentence)


def take(key: str) -> None:
    """Set the controls as the dropped file says, or say why not."""
    file = st.session_state.get(key)
    if file is None:
        return
    st.session_state["restored_count"] += 1
    try:
        made = read(file.getvalue())
        run, checkpoint, missing = find(made.spec)
        values = controls(made, checkpoint, missing)
        page, lost = page_values(made, run, checkpoint)
    except NoSettings as error:
        st.session_state["restored"] = ("error", str(error))
        return
    values |= page
    # A control that stands on the page only from now on does not write its value into the
    # address; one that stood there does, and nobody else may.
    known: dict[str, Any] = url_settings(made.spec) | {"many": made.spec.n} | page
    if missing:
        del known["step"]
    new = [name for name in known if name in values and name not in st.session_state]
    st.query_params.update({name: known[name] for name in new if known[name] != []})
    st.session_state.update(values)
    st.session_state["restored"] = what_came_back(made, missing, lost)


def what_came_back(made: Made, missing: bool, lost: list[str]) -> tuple[str, str]:
    """The kind of the message, and the message; `lost`: what did not, in sentences."""
    spec = made.spec
    kind = made.kind if made.kind in (Kind.FILM, Kind.STRIP) and not made.mode else Kind.IMAGE
    plain = made.kind in (Kind.GRID, Kind.IMAGE) and not made.mode
    what = f"The {kind} is of {spec.words()}"
    if plain:
        which = "The grid" if made.image is None else f"Image {made.image + 1:,}"
        what = f"{which} is of {spec.words()}"
    if missing:
        gone = "That checkpoint is not here any more; the newest is chosen, which draws other"
        return "warning", " ".join([f"{what}. {gone} images.", *lost])
    if lost:
        return "warning", " ".join([f"The settings of {spec.words()} are restored.", *lost])
    restored = f"The settings of this {kind} are restored."
    if made.mode:
        # The rows of Side by side have other settings than the order, each its own.
        rows = f"{spec.run} at step {spec.step:,}"
        how = f"under {made.mode} by {rows if made.mode == COMPARE else spec.words()}"
        return "success", f"{restored} It was made {how}; drawn again, it is the same."
    if plain:
        return "success", f"{restored} {what}; drawn again, it is the same."
    below = "" if kind == Kind.IMAGE else f", and the {kind} below them"
    return "success", f"{restored} {what}: Draw brings these images again{below}."


def find(spec: SamplingSpec) -> tuple[Run, Checkpoint, bool]:
    """The order's run with its checkpoint or, where that is gone, the newest, and whether it is.
    Raises NoSettings."""
    runs = {run.name: run for run in list_runs(get_settings().runs_dir)}
    if spec.run not in runs:
        raise NoSettings(f"The image was drawn from the run {spec.run}, which is not here.")
    usable, _ = runs[spec.run].checkpoints()
    if not usable:
        raise NoSettings(f"The image's run, {spec.run}, has no checkpoint to draw from.")
    for checkpoint in usable:
        if checkpoint.step == spec.step:
            return runs[spec.run], checkpoint, False
    return runs[spec.run], usable[-1], True


def controls(made: Made, checkpoint: Checkpoint, missing: bool) -> dict[str, Any]:
    """The value of each control of the page, by its key. Raises NoSettings where the run is not
    the one that the file means, or the controls do not reach so far."""
    spec = made.spec
    schedule = build_schedule(checkpoint.config)
    last = schedule.timesteps - 1
    guided, knows_any = spec.guidance_scale != 1, checkpoint.config.label_dropout > 0
    fits = (
        spec.classes == checkpoint.classes
        and spec.average in checkpoint.averages
        and spec.flow == schedule.is_flow
        and spec.method in [sampler.name for sampler in samplers_for(schedule)]
        and spec.spacing in spacings_for(schedule)
        and spec.steps <= schedule.timesteps
        and (not spec.as_lecture or takes_lecture(checkpoint.config))
        and (knows_any or (spec.label != ANY_CLASS and (not guided or spec.negative != "")))
    )
    if not fits:
        raise NoSettings(f"The image was drawn from another run that was called {spec.run} too.")
    if not 1 <= spec.guidance_scale <= MAX_GUIDANCE:
        raise NoSettings(
            f"The image has guidance {spec.guidance_scale:g}, and this page goes from 1 to "
            f"{MAX_GUIDANCE:g}."
        )
    low, high = spec.guidance_interval or (0, last)
    if high > last or any(not float(end).is_integer() for end in (low, high)):
        raise NoSettings("The image's guided timesteps are none that this page can set.")
    values: dict[str, Any] = {
        "run": spec.run,
        "step": LATEST if missing else str(spec.step),
        "way": LECTURE if spec.as_lecture else CORRECT,
        "flow_sampler" if spec.flow else "sampler": spec.method,
        "spacing": spec.spacing,
        "steps": spec.steps,
        "seed": spec.seed,
        "eta": float(spec.eta),
        "variance": spec.variance,
        "average": spec.average or MAIN_AVERAGE,
    }
    if spec.classes:
        values |= {"label": spec.label, "guidance": float(spec.guidance_scale)}
    if guided:
        values |= {"negative": spec.negative or ANY_CLASS, "guided": (round(low), round(high))}
    if made.image is not None:
        values["picture"] = made.image + 1
    return values


def page_values(made: Made, run: Run, checkpoint: Checkpoint) -> tuple[dict[str, Any], list[str]]:
    """The mode, the values of its own controls by their keys, and a sentence for each thing that
    does not come back. Raises NoSettings where the controls do not reach so far."""
    spec, config = made.spec, checkpoint.config
    checks = PAGES.get(made.mode)
    if checks is None:
        many = spec.n > max_images(config.image_size)
        if many and spec.n > (most := most_images(get_settings())):
            raise NoSettings(f"The image is of {spec.n:,}, and here {most:,} at most are drawn.")
        lost = ["It was made in a mode that this version of the app does not have."]
        mode = {"mode": "Many", "many": spec.n} if many else {"mode": "Draw", "n": spec.n}
        return mode, lost if made.mode else []
    page = {key: made.page[key] for key in checks if key in made.page}
    for key, value in page.items():
        if not checks[key](value):
            raise NoSettings(
                f"The image's settings of {made.mode} cannot be used: “{key}” is none that can "
                "be chosen there."
            )
    lost = []
    if made.mode == EDIT:
        lost = fit_edit(page, spec, config.data)
    elif made.mode == COMPARE:
        lost = fit_lists(page, run, checkpoint)
    return {"mode": made.mode} | page, lost


def fit_edit(page: dict[str, Any], spec: SamplingSpec, data: str) -> list[str]:
    """Complete the settings of From a picture; returns what does not come back."""
    lost = []
    if "strength" in page:
        page["strength"] = float(page["strength"])
    if page.get("edit") != INVERT:
        if spec.n > MOST_VARIANTS:
            raise NoSettings(f"The image has {spec.n:,} variants; {MOST_VARIANTS} can be drawn.")
        page["variants"] = spec.n
    if page.setdefault("from", DRAWN) != DATA:
        page.pop("example", None)
        lost.append("The image that it started from does not come with it; choose it again.")
    elif "example" in page:
        with suppress(DataError):  # the page itself says what is wrong with the data
            count = cached.image_count(data)
            if page["example"] >= count:
                raise NoSettings(
                    f"The image started from number {page['example']:,} of {data}, and the last "
                    f"one here is {count - 1:,}."
                )
    if page.get("edit") == REPAINT and page.get("area", BY_HAND) == BY_HAND:
        lost.append("The part painted by hand does not come with it; paint it again.")
    return lost


def fit_lists(page: dict[str, Any], run: Run, checkpoint: Checkpoint) -> list[str]:
    """Keep of the lists of Side by side what can be chosen now; returns what cannot."""
    found = ((each, each.latest_checkpoint()) for each in list_runs(get_settings().runs_dir))
    latest = {each: newest.step for each, newest in found if newest is not None}
    own = compare.own_numbers(checkpoint)
    gone = False
    for key, options in compare.offered(run, checkpoint, list(latest)).items():
        low, high = own.get(key, (1, 0))  # without numbers of one's own none
        given = list(dict.fromkeys(page.get(key, [])))
        page[key] = [
            options[options.index(each)] if each in options else each
            for each in given
            if each in options or (key in own and low <= each <= high)
        ]
        gone |= page[key] != given
    lost = ["Not all that was compared is here any more; the rest is chosen."] if gone else []
    drawn_at = page.pop("drawn_at", {})
    for each, step in latest.items():
        # That chosen above the lists is drawn from at its own step.
        if each != run and each.name in page["vs_run"] and drawn_at.get(each.name) != step:
            lost.append(f"The newest checkpoint of {each.name} is another now, and so is its row.")
    return lost
