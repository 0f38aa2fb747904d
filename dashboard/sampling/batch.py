"""Sampling, mode Batch: many images in the background, as files in the run's folder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.components.film.served import samples_address
from dashboard.components.gallery.gallery import Row, Tile, show_gallery
from dashboard.sampling.choose import Chosen, show_warning
from dashboard.sampling.sharing import offer_link
from dashboard.sampling.trajectory import IMAGE, image_name
from dashboard.services import roles, series_jobs
from dashboard.services.roles import Deed
from dashboard.services.sampling_job import explain
from dashboard.services.settings import get_settings
from dashboard.ui import keys
from dashboard.ui.controls import Choice, Number, Text
from dashboard.ui.images import show_image
from dashboard.ui.outside import code, plain
from dashboard.ui.progress import show_expected
from dashboard.ui.run_wording import count, duration, size
from diffusion_core.files import folder_size
from diffusion_core.media.images import png
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import ACTIVE, RESUMABLE
from diffusion_core.sampling import series as series_folder
from diffusion_core.sampling.metadata import entries
from diffusion_core.sampling.series import Series, SeriesError
from diffusion_core.sampling.spec import MOST_IMAGES, SamplingSpec

SHOWN = 64  # images on a page
MAX_ZIP = 512 * 2**20  # bytes that the server holds in memory while it sends them
STATES = {
    "queued": "waiting for the device",
    "starting": "starting",
    "running": "sampling",
    "stopping": "stopping",
    "stopped": "Cancelled",
    "finished": "Complete",
    "failed": "Failed",
    "lost": "Interrupted: the app was stopped or restarted",
}

COUNT = Number(key="many", label="Images", low=1, high=MOST_IMAGES, default=64)
NAME = Text(
    key="series_name",
    label="Name",
    longest=80,
    bind=False,
    help="Name of the folder with the images. If empty, the one shown.",
)
SERIES = Choice(key=keys.SERIES, label="Series")
PAGE = Number(key="series_page", label="Page", low=1, high=1, default=1)


def show(
    chosen: Chosen, bar: DeltaGenerator, controls: DeltaGenerator, results: DeltaGenerator
) -> None:
    run = chosen.run
    show_form(chosen, bar, controls)
    series = series_folder.list_series(run.path)
    with bar:
        before = progress_of(series)
        active = any(each.state in ACTIVE for each in series)
        st.fragment(show_active, run_every=1.0 if active else 5.0)(run, before)
    with results:
        if error := st.session_state.pop(keys.SERIES_ERROR, None):
            st.error(plain(error))
        if not series:
            st.info(
                "Each series appears here, for everyone. It keeps running if you leave this page.",
                icon=":material/photo_library:",
            )
            return
        names = [each.name for each in series]
        name = SERIES.now(options=names).ask()
        show_series(series[names.index(name)], chosen)


def show_form(chosen: Chosen, bar: DeltaGenerator, controls: DeltaGenerator) -> None:
    run, checkpoint, config = chosen.run, chosen.checkpoint, chosen.checkpoint.config
    with controls:
        most = series_jobs.most_images()
        number = COUNT.now(
            high=most,
            default=min(COUNT.default, most),
            help=f"1 to {most:,}. Each is a file with its settings in it.",
        ).ask()
        spec = chosen.spec.replace(n=number)
        name = NAME.now(placeholder=series_jobs.usual_name(run, spec)).ask()
        if most < MOST_IMAGES:
            st.caption(f"A series has at most {most:,} images here.")
        if sentence := series_jobs.budget_sentence(get_settings()):
            st.caption(sentence)
        show_warning(spec, chosen.can)
        st.caption("Interactive requests take priority.")
    with bar:
        if st.button("Generate in background", type="primary", icon=":material/brush:"):
            try:
                series = series_jobs.begin(run, checkpoint, spec.checked(chosen.can), name.strip())
            except (ValueError, RuntimeError, OSError) as error:
                st.error(plain(explain(error)))
                return
            st.session_state[keys.SERIES] = series.name
            st.session_state.setdefault(keys.OWN_SERIES, set()).add((series.path, series.created))
            st.rerun()
        show_expected(spec, config, spec.evaluations(build_schedule(config)))


# ---------------------------------------------------------------- active series


def progress_of(series: list[Series]) -> list[tuple[str, bool, int]]:
    """What the page shows of each series: when this changes, the whole page is rerun."""
    found = []
    for each in series:
        done = each.status.step
        found.append((each.name, each.state in ACTIVE, (done > 0) + done // SHOWN))
    return found


def show_active(run: Run, before: list[tuple[str, bool, int]]) -> None:
    """A bar for each active series, with its button Cancel."""
    series = series_folder.list_series(run.path)
    if progress_of(series) != before:
        st.rerun()  # the whole page
    for each in series:
        if each.state not in ACTIVE:
            continue
        status = each.status
        done, total = status.step, max(1, status.total)
        text = f"{code(each.name)}: {state_text(each.state)}, {done:,} of {total:,} images"
        job = series_jobs.job_of(each)
        seen = job.snapshot() if job is not None else None
        if seen is not None and seen.state == "waiting" and seen.before:
            text += f", {count(seen.before, 'job')} before it"
        elif seen is not None and seen.seconds_left is not None and seen.step:
            text += f", about {duration(seen.seconds_left)} left"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.progress(min(1.0, done / total), text)
            if roles.may(Deed.CHANGE_SERIES, is_own(each)):
                st.button(
                    "Cancel",
                    icon=":material/close:",
                    on_click=attempt,
                    args=(cancel, each),
                    key=f"cancel-{each.path}",
                )


def state_text(state: str) -> str:
    return STATES.get(state, state)


def is_own(series: Series) -> bool:
    """Whether this visitor started it, and not another one of the same name."""
    return (series.path, series.created) in st.session_state.get(keys.OWN_SERIES, ())


def cancel(series: Series) -> None:
    series_jobs.cancel(series, is_own(series))


def resume(run: Run, series: Series, spec: SamplingSpec) -> None:
    series_jobs.resume(run, series, spec, is_own(series))


def attempt(action: Callable[..., object], *arguments: object) -> None:
    """Run a button's action. A callback cannot show text: the next rerun shows its error."""
    try:
        action(*arguments)
    except (ValueError, RuntimeError, OSError) as error:
        st.session_state[keys.SERIES_ERROR] = explain(error)


# ---------------------------------------------------------------- one series


def show_series(series: Series, chosen: Chosen) -> None:
    try:
        spec = series.spec
    except SeriesError as error:
        st.error(plain(error))
        if roles.may(Deed.DELETE_SERIES):
            show_delete(series)
        return
    state, numbers = series.state, series.numbers()
    st.markdown(plain(spec.describe()))
    if (expires := series.expires) is not None:
        st.caption(f"Will be deleted in {duration(max(0.0, expires - time.time()))}.")
    if state not in ACTIVE:  # else the bar above says it
        show_state(series, state, len(numbers), spec.n)
    with st.container(horizontal=True, gap="small"):
        if state in RESUMABLE and roles.may(Deed.CHANGE_SERIES, is_own(series)):
            st.button(
                "Resume",
                type="primary",
                icon=":material/play_arrow:",
                on_click=attempt,
                args=(resume, chosen.run, series, spec),
                key="series-resume",
            )
        if numbers:
            show_downloads(series, spec, len(numbers))
        if state not in ACTIVE and roles.may(Deed.DELETE_SERIES):
            show_delete(series)
        offer_link(spec, {"mode": "Batch", COUNT.key: spec.n, SERIES.key: series.name})
    if numbers:
        show_images(series, spec)


def show_state(series: Series, state: str, done: int, total: int) -> None:
    status = series.status
    took = f" in {duration(status.seconds)}" if status.seconds else ""
    text = f"{state_text(state)}. {done:,} of {total:,} images{took}."
    if state == "failed":
        st.error(f"{text} {plain(status.error) or 'The reason is in the log of the server.'}")
    elif state in ("stopped", "lost"):
        st.warning(f"{text} The images are kept, and the series can be resumed.")
    else:
        st.caption(text)


def show_delete(series: Series) -> None:
    if st.button("Delete", icon=":material/delete:", key="series-delete"):
        st.session_state[keys.SERIES_TO_DELETE] = series.name
    if st.session_state.get(keys.SERIES_TO_DELETE) == series.name:
        confirm_deletion(series)


def forget_deletion() -> None:
    st.session_state.pop(keys.SERIES_TO_DELETE, None)


@st.dialog("Delete this series?", on_dismiss=forget_deletion)
def confirm_deletion(series: Series) -> None:
    st.write(
        f"{code(series.name)} and its {count(len(series.numbers()), 'image')} "
        f"({size(folder_size(series.path))}) will be deleted. The same settings can generate them "
        "again."
    )
    with st.container(horizontal=True):
        if st.button("Delete series", type="primary", icon=":material/delete:"):
            attempt(series_jobs.remove, series)
            forget_deletion()
            st.rerun()
        if st.button("Cancel"):
            forget_deletion()
            st.rerun()


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
        help=f"Too large: more than {size(MAX_ZIP)}. The files are in "
        f"{code(f'{series_folder.FOLDER}/{series.name}')} in the run's folder."
        if too_large
        else None,
        key="series-zip",
    )
    st.download_button(
        f"Grid as PNG{part}",
        lambda: png(series_folder.grid_of(series), text=entries(spec)),
        file_name=f"{spec.run}-{series.name}-grid.png",
        mime="image/png",
        on_click="ignore",
        icon=":material/grid_on:",
        key="series-grid",
    )


def zip_of(series: Series) -> bytes:
    """Built on the disk: in memory it would exist twice."""
    with tempfile.TemporaryFile() as file:
        series_folder.write_zip(series, file)
        file.seek(0)
        return file.read()


def show_images(series: Series, spec: SamplingSpec) -> None:
    """A page of images, and one of all images enlarged."""
    pages = -(-spec.n // SHOWN)
    page = PAGE.now(label=f"Page, 1 to {pages}", high=pages).ask(width=160) if pages > 1 else 1
    first = (page - 1) * SHOWN
    shown = range(first, min(first + SHOWN, spec.n))
    found = {k: p for k in shown if (p := series_folder.read_image(series.image(k))) is not None}
    if not found:
        st.caption(f"Images {first + 1:,} to {shown[-1] + 1:,} are not generated yet.")
        return
    paths = {k: series.image(k) for k in found}
    tiles = tuple(
        Tile(
            f"{samples_address(path.parent)}/{path.name}?v={series.created}",
            f"Image {image_name(spec, k + 1)}",
            f"{spec.run}-{series.name}-{path.name}",
        )
        for k, path in paths.items()
    )
    missing = len(shown) - len(found)
    text = f"Images {first + 1:,} to {shown[-1] + 1:,}, row by row"
    side = next(iter(found.values())).shape[0]
    row = Row(tiles, side, 160, min(len(tiles), spec.columns(len(shown))))
    show_gallery([row], f"{text}, of {series.name}", "series-images")
    st.caption(text + (f"; {missing:,} are not generated yet" if missing else ""))
    show_one(series, spec)


def show_one(series: Series, spec: SamplingSpec) -> None:
    k = IMAGE.now(high=spec.n).ask(width=160) if spec.n > 1 else 1
    path = series.image(k - 1)
    image = series_folder.read_image(path)
    if image is None:
        st.caption(f"Image {k:,} is not generated yet.")
        return
    name = spec.class_of(k - 1)
    side = image.shape[0]
    caption = f"Image {k:,}{f', {code(name)}' if name else ''}, {side}×{side} pixels"
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
