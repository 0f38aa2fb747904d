"""The form that starts a run: its fields, each kept in the page's URL under its key.

What the entries come to is in `training_form.py`.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.services import cached
from dashboard.services.settings import Settings, get_settings
from dashboard.training import form_values
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import SOURCES
from diffusion_core.process.schedule import SCHEDULE_KINDS
from diffusion_core.runs import jobs
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.presets import PRESETS
from diffusion_core.runs.run import RunSnapshot

ENTRIES = frozenset(form_values.entries_of(PRESETS["small"], None))
DATA_KEYS = frozenset({"data", *SOURCES, "size", "seed"})
FORM_KEYS = ENTRIES | DATA_KEYS | {"preset", "name"}


def show_form(settings: Settings, runs: list[RunSnapshot], opened: bool) -> None:
    form = st.expander(
        "Start a run",
        expanded=opened,
        icon=":material/add_circle:",
        key="form_open",
        on_change="rerun",
    )
    with form:
        left, right = st.columns(2)
        with left:
            start = st.selectbox(
                "Start from",
                form_values.starts(runs),
                index=list(PRESETS).index("small"),
                help="A preset, or all settings of another run. small: made for two CPU cores. "
                "lecture: the lecture's network and training, 62 million parameters, slow without "
                "a GPU. base: 52 million parameters, for a GPU.",
                on_change=lambda: take_settings(st.session_state["preset"]),
                key="preset",
                bind="query-params",
            )
        try:
            config = form_values.start_config(start, settings.runs_dir)
        except ConfigError as error:
            st.error(str(error))
            return
        defaults = form_values.entries_of(config, settings.max_steps)
        with right:
            kind, detail = pick_data(defaults)
        hint = form_values.suggested_name(settings.runs_dir, start, kind)
        with left:
            name = st.text_input(
                "Name of the run", placeholder=hint, key="name", bind="query-params"
            )
        entries = pick_numbers(defaults, kind, settings.max_steps)
        with st.expander("More settings", icon=":material/tune:"):
            entries |= pick_more(defaults, config, entries["steps"])
            st.caption(f"What has no field here is as in {start.removeprefix('as ')}.")
        with st.container(horizontal=True, gap="small"):
            pressed = st.button("Start", type="primary", icon=":material/play_arrow:")
            create = st.button(
                "Create without starting",
                icon=":material/note_add:",
                help="Makes the run's folder with these settings. The run then shows the commands "
                "that train it on other machines, and starts here with Resume.",
            )
        try:
            config = form_values.make_config(
                config, form_values.data_spec(kind, detail), entries, settings.max_steps
            )
            if create:
                run = jobs.create(settings.runs_dir, name.strip() or hint, config)
            elif pressed:
                with st.spinner("Looking at the images …"):
                    run = form_values.start_run(settings, name.strip() or hint, config)
            if pressed or create:
                st.session_state["started"] = run.name
                st.rerun()
        except (ConfigError, DataError, jobs.JobError) as error:
            # Before anybody pressed Start it may only be that they have not finished typing.
            (st.error if pressed or create else st.caption)(str(error))
            return
        device = str(cached.device())
        notes = [
            form_values.estimate(runs, config, device),
            form_values.queue_note(runs, device),
        ]
        if any(notes):
            st.caption(" ".join(filter(None, notes)))


def take_settings(start: str) -> None:
    """Put the settings of a preset or a run into the form; a preset brings no images."""
    settings = get_settings()
    try:
        config = form_values.start_config(start, settings.runs_dir)
    except ConfigError:
        return  # the form says why
    entries = form_values.entries_of(config, settings.max_steps)
    of_run = start.startswith(form_values.AS_RUN)
    for key, value in entries.items():
        if of_run or key not in DATA_KEYS:
            st.session_state[key] = value


def take_datas_size() -> None:
    st.session_state["size"] = form_values.suggested_size(st.session_state["data"])


def pick_data(defaults: dict[str, Any]) -> tuple[str, str]:
    """The kind of data and what belongs to it: a number of images, a folder, a name."""
    kind = st.selectbox(
        "Images",
        list(SOURCES),
        index=list(SOURCES).index(defaults["data"]),
        help="\n".join(f"- {source.name}: {source.help}" for source in SOURCES.values()),
        on_change=take_datas_size,
        key="data",
        bind="query-params",
    )
    source = SOURCES[kind]
    if source.most is None:
        return kind, st.text_input(
            source.detail,
            defaults.get(kind, ""),
            placeholder=source.placeholder,
            key=kind,
            bind="query-params",
        )
    most = source.most
    number = st.number_input(
        source.detail,
        min_value=1,
        max_value=most,
        value=min(defaults.get(kind, most), most),
        step=100,
        help="Images are decoded when a set is first used. Takes longer for larger sets.",
        key=kind,
        bind="query-params",
    )
    return kind, "" if number == most else str(number)


def pick_numbers(defaults: dict[str, Any], kind: str, max_steps: int | None) -> dict[str, Any]:
    """The entries that everybody looks at."""
    columns = st.columns(3)
    size = defaults["size"]
    if kind != defaults["data"]:
        size = form_values.suggested_size(kind)
    with columns[0]:
        entries: dict[str, Any] = {
            "steps": number("Steps", "steps", defaults["steps"], 1, max_steps or 10**7, 100),
            "size": number(
                "Image size", "size", size, 16, 256, 16, "Pixels of each side; a multiple of 8."
            ),
        }
    with columns[1]:
        entries |= {
            "batch": number("Batch size", "batch", defaults["batch"], 1, 4096, 8, "Per step."),
            "seed": number(
                "Seed",
                "seed",
                defaults["seed"],
                0,
                2**31 - 1,
                1,
                "The same settings and seed give the same run.",
            ),
        }
    with columns[2]:
        entries |= {
            "lr": number("Learning rate", "lr", defaults["lr"], 0.0, 10.0, 1e-4),
            "every": number(
                "Samples every",
                "every",
                defaults["every"],
                0,
                10**7,
                25,
                "Steps between two sample strips; 0: none. Checkpoints and validations come as "
                "often unless you say otherwise below. The last step has them all.",
            ),
        }
    return entries


def pick_more(defaults: dict[str, Any], start: RunConfig, steps: int) -> dict[str, Any]:
    """The other entries, in four groups."""
    entries: dict[str, Any] = {}
    by_steps = min(start.warmup_steps, steps // 10)
    left, right = st.columns(2, gap="medium")
    with left:
        st.markdown("**What the network learns**")
        entries["target"] = choice(
            "Target",
            "target",
            form_values.TARGETS,
            defaults,
            "What the network says of a noisy image: the noise in it, the image behind it, "
            "their mixture called velocity, or the straight way from the image to the noise "
            "(rectified flow). In the settings: epsilon, x_0, v_prediction, flow_prediction.",
        )
        entries["loss"] = choice(
            "Loss",
            "loss",
            form_values.LOSS_WORDS,
            defaults,
            "The distance between what it says and the truth: absolute, squared, or squared where "
            "it is small and absolute beyond.",
        )
        entries["snr"] = number(
            "Min-SNR γ",
            "snr",
            defaults["snr"],
            0.0,
            1000.0,
            1.0,
            "Caps the weight of timesteps with little noise (Hang et al. 2023; 5 is usual); 0: "
            "every timestep counts the same.",
        )
        entries["schedule"] = choice(
            "Schedule",
            "schedule",
            tuple(SCHEDULE_KINDS),
            defaults,
            "How the noise rises; see the Schedule page.",
        )
        entries["T"] = number("Timesteps T", "T", defaults["T"], 2, 4000, 100)
        entries["zero_snr"] = st.toggle(
            "End in pure noise",
            defaults["zero_snr"],
            help="Nothing of the image is left at the last timestep (zero terminal SNR, Lin et "
            "al. 2024).",
            key="zero_snr",
            bind="query-params",
        )
        st.markdown("**The images**")
        entries["channels"] = choice("Channels", "channels", form_values.CHANNELS, defaults)
        entries["labels"] = st.toggle(
            "Learn the classes",
            defaults["labels"],
            help="Where the images have any and the network can. Samples can then be asked for "
            "by class.",
            key="labels",
            bind="query-params",
        )
        entries["dropout"] = number(
            "Label dropout",
            "dropout",
            defaults["dropout"],
            0.0,
            1.0,
            0.05,
            "The share of images shown without their class, so that guidance works.",
        )
    with right:
        st.markdown("**The optimisation**")
        entries["optimizer"] = choice("Optimizer", "optimizer", form_values.OPTIMIZERS, defaults)
        entries["warmup"] = number(
            "Warm-up steps",
            "warmup",
            defaults["warmup"],
            0,
            10**7,
            100,
            "The learning rate rises to its value over these. Empty: as in the preset, at most a "
            "tenth of all steps.",
            placeholder=f"{by_steps:,}",
        )
        entries["precision"] = choice(
            "Precision",
            "precision",
            form_values.PRECISIONS,
            defaults,
            "automatic: bfloat16 where the device is fast with it.",
        )
        entries["ema"] = number(
            "Averaged weights",
            "ema",
            defaults["ema"],
            0.0,
            0.99999,
            1e-4,
            "How much of the average stays at each step: 0.999 averages over about a thousand "
            "steps. Samples are drawn with these weights.",
        )
        for key, label in (("ema_short", "A shorter average"), ("ema_long", "A longer average")):
            entries[key] = number(
                label,
                key,
                defaults[key],
                0.0,
                0.99999,
                1e-4,
                "Kept beside the other, to choose when sampling; 0: none.",
            )
        st.markdown("**What is kept**")
        for key, label, none in (
            ("checkpoints", "Checkpoints every", "only the last one"),
            ("validations", "Validations every", "none"),
        ):
            entries[key] = number(
                label,
                key,
                defaults[key],
                0,
                10**7,
                25,
                f"Steps; empty: as often as the samples; 0: {none}.",
                placeholder="as the samples",
            )
        entries["keep"] = number(
            "Newest checkpoints to keep", "keep", defaults["keep"], 0, 10**6, 1, "0: all of them."
        )
        entries["keep_every"] = number(
            "Keep each that is a multiple of",
            "keep_every",
            defaults["keep_every"],
            0,
            10**7,
            1000,
            "Checkpoints of these steps stay whatever comes after them; 0: none.",
        )
        entries["keep_best"] = st.toggle(
            "Keep the best",
            defaults["keep_best"],
            help="The checkpoint with the lowest validation loss stays too.",
            key="keep_best",
            bind="query-params",
        )
        entries["tensorboard"] = st.toggle(
            "Write event files for TensorBoard",
            defaults["tensorboard"],
            help="In the folder tensorboard of the run, beside its own curves.",
            key="tensorboard",
            bind="query-params",
        )
    return entries


def number(
    label: str,
    key: str,
    default: float | None,
    least: float,
    most: float,
    step: float,
    help: str | None = None,
    placeholder: str | None = None,
) -> Any:
    """A number of the form; None where it has no default and is left empty."""
    return st.number_input(
        label,
        min_value=least,
        max_value=most,
        value=default,
        step=step,
        format="%.5g" if isinstance(least, float) else None,
        help=help,
        placeholder=placeholder,
        key=key,
        bind="query-params",
    )


def choice(label: str, key: str, options: Any, defaults: dict[str, Any], help: str = "") -> str:
    """One of a few words."""
    words = list(options)
    return st.selectbox(
        label,
        words,
        index=words.index(defaults[key]),
        help=help or None,
        key=key,
        bind="query-params",
    )
