"""Sampling, mode Many: up to 4,096 images in the background, as files in the run's folder.

The folders are the truth: all visitors see the same series, also after the server was started
anew. What of them this server draws is in its line, like every other drawing.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.sampling.controls import Chosen
from dashboard.services import cached, sampling_queue
from dashboard.services.sampling_queue import QueueFull, SamplingJob, Task
from dashboard.services.settings import Settings, get_settings
from dashboard.ui.images import show_image
from dashboard.ui.progress import say_expected
from dashboard.ui.run_wording import count, duration, size
from diffusion_core.files import folder_size
from diffusion_core.media.images import grid, png
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.jobs import JobError, check_name, free_name
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import ACTIVE, RESUMABLE
from diffusion_core.sampling import series as series_folder
from diffusion_core.sampling.metadata import entries
from diffusion_core.sampling.series import Series, SeriesError
from diffusion_core.sampling.spec import MOST_IMAGES, SamplingSpec

USUAL = 64
AT_ONCE = 4  # series under way in this server: the line has places for others
VIEWERS_IMAGES = 256  # of a series, unless the installation says otherwise
VIEWERS_SERIES = 20  # of a run, that viewers may make it up to
SHOWN = 64  # images at a time
MAX_ZIP = 512 * 2**20  # bytes that the server holds in memory while it sends them
STATE_WORDS = {
    "queued": "waits for the device",
    "starting": "is starting",
    "running": "is being drawn",
    "stopped": "was cancelled",
    "finished": "is complete",
    "failed": "has failed",
    "lost": "was interrupted: the app was stopped or started anew",
}

_jobs: dict[Path, SamplingJob] = {}  # what this server draws, or has drawn
_jobs_lock = threading.Lock()


def show(chosen: Chosen, controls: DeltaGenerator, results: DeltaGenerator) -> None:
    settings = get_settings()
    run = chosen.run
    with controls:
        show_form(chosen, settings)
    with results:
        show_refusal()
        series = series_folder.list_series(run.path)
        before = progress_of(series)
        active = any(each.state in ACTIVE for each in series)
        st.fragment(show_active, run_every=1.0 if active else 5.0)(run, before)
        if not series:
            st.info(
                "Each series that is begun here appears in this place, for everybody who opens "
                "the page. It goes on when you leave, and its images stay with the run.",
                icon=":material/photo_library:",
            )
            return
        names = [each.name for each in series]
        name = st.selectbox("Series", names, required=True, key="series", bind="query-params")
        show_series(series[names.index(name)], chosen, settings)


# ---------------------------------------------------------------- beginning one


def show_form(chosen: Chosen, settings: Settings) -> None:
    run, checkpoint = chosen.run, chosen.checkpoint
    most = most_images(settings)
    number = st.number_input(
        "Images",
        1,
        most,
        min(USUAL, most),
        help=f"1 to {most:,}. Each is a file of its own, which carries its settings.",
        key="many",
        bind="query-params",
    )
    spec = chosen.spec.replace(n=int(number))
    name = st.text_input(
        "Name",
        placeholder=usual_name(run, spec),
        max_chars=80,
        help="Of the folder that the images are written to. Left empty: the one shown.",
        key="series_name",
    )
    if most < MOST_IMAGES:
        st.caption(f"A series here has up to {most:,} images; the app's operator sets that.")
    if st.button(
        "Draw in the background", type="primary", icon=":material/brush:", width="stretch"
    ):
        try:
            series = begin(run, checkpoint, spec, name.strip(), settings)
        except (ValueError, RuntimeError, OSError) as error:
            st.error(sampling_queue.explain(error))
            return
        st.session_state["series"] = series.name
        st.session_state.setdefault("own_series", set()).add(series.path)
        st.rerun()
    config = checkpoint.config
    say_expected(spec, config, spec.evaluations(build_schedule(config)))
    st.caption("Other drawings go first, between its batches.")


def most_images(settings: Settings) -> int:
    """Of a series in this installation."""
    usual = MOST_IMAGES if settings.may_operate else VIEWERS_IMAGES
    return min(settings.max_images or usual, MOST_IMAGES)


def usual_name(run: Run, spec: SamplingSpec) -> str:
    stem = f"{spec.method}-{spec.steps}-seed-{spec.seed}"
    return free_name(run.path / series_folder.FOLDER, stem)


def begin(
    run: Run, checkpoint: Checkpoint, spec: SamplingSpec, name: str, settings: Settings
) -> Series:
    """Make the folder and put the drawing in the device's line. Raises ValueError, LineFull and
    OSError with a sentence."""
    try:
        name = check_name(name or usual_name(run, spec))
    except JobError as error:
        raise SeriesError(str(error).replace("a run's name", "the name of a series")) from error
    check_room(spec, settings)
    made = len(series_folder.list_series(run.path))
    if not settings.may_operate and made >= VIEWERS_SERIES:
        raise SeriesError(
            f"{run.name} has {made} series already, and no more are made here; the app's operator "
            "can delete some."
        )
    config = checkpoint.config
    batch = series_folder.batch_for(spec, config.image_size, cached.device())
    series = series_folder.create(run.path / series_folder.FOLDER / name, spec, checkpoint, batch)
    try:
        submit(series, checkpoint)
    except QueueFull:
        series_folder.cancel(series)
        series_folder.remove(series)
        raise
    return series


def check_room(spec: SamplingSpec, settings: Settings) -> None:
    """Raises DrawingsError where this installation draws no such series now."""
    most = most_images(settings)
    if spec.n > most:
        raise SeriesError(f"A series here has up to {most:,} images, not {spec.n:,}.")
    if len(under_way()) >= AT_ONCE:
        raise SeriesError(f"{AT_ONCE} series are under way already; wait until one is done.")


def submit(series: Series, checkpoint: Checkpoint) -> None:
    """Put a queued series in the line of the device. Raises LineFull."""
    spec, device = series.spec, cached.device()
    task = Task(
        spec,
        f"{series.name}: {spec.words()}",
        spec.n,
        spec.evaluations(build_schedule(checkpoint.config)),
        sampling_queue.pace_key(spec, checkpoint.config),
        lambda on_step: series_folder.generate(
            series, lambda: cached.model(checkpoint, spec.average), str(device), on_step
        ),
        background=True,
    )
    job = sampling_queue.queue_of(device).submit(task)
    with _jobs_lock:
        for path in [path for path, old in _jobs.items() if not old.active]:
            del _jobs[path]
        _jobs[series.path] = job


def under_way() -> list[SamplingJob]:
    with _jobs_lock:
        return [job for job in _jobs.values() if job.active]


# ---------------------------------------------------------------- what is under way


def progress_of(series: list[Series]) -> list[tuple[str, bool, int]]:
    """What the page shows of each series: when this changes, all of it is drawn again."""
    found = []
    for each in series:
        done = each.status.step
        found.append((each.name, each.state in ACTIVE, (done > 0) + done // SHOWN))
    return found


def show_active(run: Run, before: list[tuple[str, bool, int]]) -> None:
    """A bar for each series that somebody draws just now, with its button Cancel."""
    series = series_folder.list_series(run.path)
    if progress_of(series) != before:
        st.rerun()  # of the whole page
    for each in series:
        if each.state not in ACTIVE:
            continue
        status = each.status
        done, total = status.step, max(1, status.total)
        words = f"**{each.name}** {STATE_WORDS.get(each.state, 'is stopping')}"
        words += f", {done:,} of {total:,} images"
        with _jobs_lock:
            job = _jobs.get(each.path)
        seen = job.snapshot() if job is not None and job.active else None
        if seen is not None and seen.state == "waiting" and seen.before:
            words += f", {count(seen.before, 'drawing')} before it"
        elif seen is not None and seen.seconds_left is not None and seen.step:
            words += f", about {duration(seen.seconds_left)} left"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.progress(min(1.0, done / total), words)
            if may_change(each):
                st.button(
                    "Cancel",
                    icon=":material/close:",
                    on_click=cancel,
                    args=(each,),
                    key=f"cancel-{each.path}",
                )


def may_change(series: Series) -> bool:
    """Viewers cancel and resume what they began themselves."""
    own = series.path in st.session_state.get("own_series", ())
    return own or get_settings().may_operate


def cancel(series: Series) -> None:
    with _jobs_lock:
        job = _jobs.get(series.path)
    try:
        if job is not None:
            job.cancel()
        series_folder.cancel(series)  # one that another process draws, or nobody has begun
    except OSError as error:
        refuse(error)


# ---------------------------------------------------------------- one series


def show_series(series: Series, chosen: Chosen, settings: Settings) -> None:
    try:
        spec = series.spec
    except SeriesError as error:
        st.error(str(error))
        if settings.may_operate:
            show_delete(series)
        return
    state, numbers = series.state, series.numbers()
    st.markdown(f"**{spec.words()}**")
    if state not in ACTIVE:  # else the bar above says it
        show_state(series, state, len(numbers), spec.n)
    with st.container(horizontal=True, gap="small"):
        if state in RESUMABLE and may_change(series):
            st.button(
                "Resume",
                type="primary",
                icon=":material/play_arrow:",
                on_click=resume,
                args=(series, spec, chosen.run),
                key="series-resume",
            )
        if numbers:
            show_downloads(series, spec, len(numbers))
        if state not in ACTIVE and settings.may_operate:
            show_delete(series)
    if numbers:
        show_images(series, spec)


def show_state(series: Series, state: str, done: int, total: int) -> None:
    status = series.status
    seconds = status.seconds
    took = f" in {duration(seconds)}" if seconds else ""
    words = f"It {STATE_WORDS[state]}. {done:,} of {total:,} images{took}."
    if state == "failed":
        st.error(f"{words} {status.error or 'See the log of the server for the reason.'}")
    elif state in ("stopped", "lost"):
        st.warning(f"{words} What is drawn is kept, and it can be resumed.")
    else:
        st.caption(words)


def show_delete(series: Series) -> None:
    if st.button("Delete", icon=":material/delete:", key="series-delete"):
        st.session_state["series_to_delete"] = series.name
    if st.session_state.get("series_to_delete") == series.name:
        confirm_deletion(series)


def forget_deletion() -> None:
    st.session_state.pop("series_to_delete", None)


@st.dialog("Delete this series?", on_dismiss=forget_deletion)
def confirm_deletion(series: Series) -> None:
    st.write(
        f"**{series.name}** goes for good with its {count(len(series.numbers()), 'image')}, "
        f"{size(folder_size(series.path))} in all. Its settings can draw the same again."
    )
    with st.container(horizontal=True):
        if st.button("Delete it", type="primary", icon=":material/delete:"):
            try:
                series_folder.remove(series)
            except SeriesError as error:
                refuse(error)
            forget_deletion()
            st.rerun()
        if st.button("Keep it"):
            forget_deletion()
            st.rerun()


def resume(series: Series, spec: SamplingSpec, run: Run) -> None:
    try:
        check_room(spec, get_settings())
        checkpoint = run.checkpoint(spec.step)
        series_folder.line_up(series, checkpoint)
        try:
            submit(series, checkpoint)
        except QueueFull:
            series_folder.cancel(series)
            raise
    except CheckpointError as error:
        refuse(SeriesError(f"{series.name} cannot go on: {error}"))
        return
    except (ValueError, RuntimeError, OSError) as error:
        refuse(error)


def refuse(error: Exception) -> None:
    """Say it at the next run of the page: a callback has no place for words."""
    st.session_state["series_refusal"] = sampling_queue.explain(error)


def show_refusal() -> None:
    if refusal := st.session_state.pop("series_refusal", None):
        st.error(refusal)


def show_downloads(series: Series, spec: SamplingSpec, done: int) -> None:
    part = "" if done == spec.n else f" of {done:,} so far"
    too_large = folder_size(series.path) > MAX_ZIP
    st.download_button(
        f"ZIP{part}",
        lambda: zip_of(series),
        file_name=f"{spec.run}-{series.name}.zip",
        mime="application/zip",
        on_click="ignore",
        icon=":material/folder_zip:",
        disabled=too_large,
        help=f"Too large to send: more than {size(MAX_ZIP)}. The files are in drawings/"
        f"{series.name} in the run's folder."
        if too_large
        else None,
        key="series-zip",
    )
    st.download_button(
        f"Grid as PNG{part}",
        lambda: grid_png(series, spec),
        file_name=f"{spec.run}-{series.name}-grid.png",
        mime="image/png",
        on_click="ignore",
        icon=":material/grid_on:",
        key="series-grid",
    )


def zip_of(series: Series) -> bytes:
    """Built on the disk: in memory it would be there twice."""
    with tempfile.TemporaryFile() as file:
        series_folder.write_zip(series, file)
        file.seek(0)
        return file.read()


def grid_png(series: Series, spec: SamplingSpec) -> bytes:
    return png(series_folder.grid_of(series), text=entries(spec))


def show_images(series: Series, spec: SamplingSpec) -> None:
    """So many at a time, and one of them large."""
    pages = -(-spec.n // SHOWN)
    page = 1
    if pages > 1:
        page = int(
            st.number_input(
                f"Page, 1 to {pages}", 1, pages, width=160, key="series_page", bind="query-params"
            )
        )
    first = (page - 1) * SHOWN
    shown = range(first, min(first + SHOWN, spec.n))
    found = {k: p for k in shown if (p := series_folder.read_image(series.image(k))) is not None}
    if not found:
        st.caption(f"Images {first + 1:,} to {shown[-1] + 1:,} are not drawn yet.")
        return
    blank = np.zeros_like(next(iter(found.values())))
    # No further than the last that is there: the rest of the page would be one black field.
    images = np.stack([found.get(k, blank) for k in range(first, max(found) + 1)])
    whole = grid(images, spec.columns(len(shown)))
    missing = len(shown) - len(found)
    show_image(
        whole,
        f"Images {first + 1} to {shown[-1] + 1} of {series.name}",
        700,
        f"Images {first + 1:,} to {shown[-1] + 1:,}, row by row"
        + (f"; {missing:,} are not drawn yet" if missing else ""),
        stretch=len(shown) > 16,
    )
    show_one(series, spec)


def show_one(series: Series, spec: SamplingSpec) -> None:
    k = 1
    if spec.n > 1:
        k = int(
            st.number_input("One image", 1, spec.n, width=160, key="picture", bind="query-params")
        )
    path = series.image(k - 1)
    image = series_folder.read_image(path)
    if image is None:
        st.caption(f"Image {k:,} is not drawn yet.")
        return
    name = spec.class_of(k - 1)
    side = image.shape[0]
    caption = f"Image {k:,}{f', {name}' if name else ''}, {side}×{side} pixels"
    show_image(image, f"Image {k}, enlarged", 256, caption)
    st.download_button(
        "This image as PNG",
        lambda: path.read_bytes(),
        file_name=f"{spec.run}-{series.name}-{path.name}",
        mime="image/png",
        on_click="ignore",
        icon=":material/download:",
        key="series-one",
    )
