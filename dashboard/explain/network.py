"""The Network page's controls, totals, table and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import streamlit as st

from dashboard.figures.network import cost_figure, shape_text, short, unet_figure
from dashboard.figures.theme import show
from dashboard.services.settings import get_settings
from dashboard.ui import keys
from dashboard.ui.controls import Choice, Toggle
from dashboard.ui.outside import code, plain
from dashboard.ui.pickers import start_from_last_run
from diffusion_core.models.trace import Trace, TraceRow
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.presets import PRESETS, network_plan
from diffusion_core.runs.run import Run, list_runs

SMALLEST, LARGEST = 16, 256  # pixels, both sides
NETWORK = Choice(key="network", label="Network", help="A preset, or the network of a run.")
SIZE_KEY = "size"
ARCHITECTURE, INSIDE, SKIPS, REACH, BESIDE = TABS = (
    "Architecture",
    "Inside a block",
    "Skips",
    "Receptive field",
    "Two networks",
)
TAB = Choice(key="tab", label="Tab", options=TABS)
BLOCK = Choice(key="block", label="Block", help="Or click it in the figure.")
LAYERS = Toggle(key="layers", label="Show the layers inside the blocks")


@dataclass(frozen=True)
class Picked:
    """A preset or a run."""

    name: str
    config: RunConfig
    run: Run | None = None  # None: a preset


def pick_network() -> Picked:
    """A preset or a run; one that cannot be used is an error and stops the page."""
    runs = runs_by_option()
    start_from_last_run(NETWORK.key, {run.name: option for option, run in runs.items()})
    choice = NETWORK.now(options=[*PRESETS, *runs]).ask()
    if choice in runs:
        st.session_state[keys.LAST_RUN] = runs[choice].name
    picked = picked_of(choice, runs)
    if picked is None:
        st.stop()
    return picked


def runs_by_option() -> dict[str, Run]:
    return {f"run {run.name}": run for run in list_runs(get_settings().runs_dir)}


def picked_of(choice: str, runs: Mapping[str, Run]) -> Picked | None:
    """What an option stands for; None, and a sentence, where it cannot be used."""
    if choice in PRESETS:
        return Picked(choice, PRESETS[choice])
    run = runs[choice]
    try:
        config = run.config
    except ConfigError as error:
        st.error(f"The settings of {code(run.name)} cannot be used: {plain(error)}")
        return None
    if config is None:
        st.info(f"{code(run.name)} has not written its settings yet. Try again in a moment.")
        return None
    return Picked(run.name, config, run)


def pick_size(config: RunConfig) -> int:
    """The image size in pixels, out of those that the network accepts."""
    try:
        multiple, sizes = sizes_of(config)
    except ConfigError as error:
        st.error(f"This network cannot be built: {plain(error)}")
        st.stop()
    if not sizes:
        st.error(f"This network needs images of at least {multiple}×{multiple} px.")
        st.stop()
    default = config.image_size if config.image_size in sizes else sizes[0]
    requested = st.query_params.get_all(SIZE_KEY) or [str(default)]
    size = st.select_slider(
        "Image size (px)",
        sizes,
        default,
        help=f"This network takes multiples of {multiple}.",
        key=SIZE_KEY,
        bind="query-params",
    )
    if len(requested) > 1:
        st.info(
            f"The link gives the image size {len(requested):,} times. The network is shown at "
            f"{size} px."
        )
    elif requested[0] not in map(str, sizes):
        st.info(
            f"This network takes images of {sizes[0]} to {sizes[-1]} px in multiples of "
            f"{multiple}, not {code(requested[0])}. It is shown at {size} px."
        )
    return size


def sizes_of(config: RunConfig) -> tuple[int, list[int]]:
    """What the sizes of its images are multiples of, and those that the page offers. Raises
    ConfigError."""
    multiple = network_plan(config.network, config.network_args).size_multiple
    sizes = range(multiple, LARGEST + 1, multiple)
    return multiple, [size for size in sizes if size >= SMALLEST]


def show_totals(trace: Trace, config: RunConfig, size: int) -> None:
    show_numbers(
        {
            "Parameters": f"{trace.parameters:,}",
            "Multiply-adds per image": short(trace.multiply_adds),
            "Weights in float32": f"{trace.parameters * 4 / 1e6:,.1f} MB",
        }
    )
    st.caption(
        f"Images of {size}×{size} px. This network is trained to predict "
        f"{PREDICTION_TYPES[config.prediction_type].formula}."
    )


def show_numbers(numbers: Mapping[str, str]) -> None:
    """Side by side, wrapping as needed."""
    with st.container(horizontal=True, gap="medium"):
        for name, number in numbers.items():
            st.metric(name, number, width="content")


def pick_block(trace: Trace) -> TraceRow:
    """The chosen block, by a click on the U or with the control below it."""
    rows = {row.name: row for row in trace.blocks if row.parameters}
    first = next((name for name, row in rows.items() if row.part == "downs"), next(iter(rows)))
    control = BLOCK.now(options=list(rows), default=first)
    place = st.container()
    chosen = control.ask()

    def click(block: str) -> None:
        if block in rows:
            st.session_state[BLOCK.key] = block

    with place:
        show_unet(trace, "u", chosen, click)
    return rows[chosen]


def show_unet(
    trace: Trace, key: str, chosen: str = "", on_click: Callable[[str], None] | None = None
) -> None:
    """With a legend where a block can be chosen."""
    show(
        unet_figure(trace, chosen, legend=on_click is not None),
        key=key,
        alt=f"The network as a U of {len(trace.blocks)} blocks; the table has all shapes.",
        on_click=on_click,
    )


def show_architecture(trace: Trace, config: RunConfig) -> None:
    """What the U is, every block's shapes, and where the cost lies."""
    st.markdown(
        "Each rectangle of the **U** is a block's output: its width, and the number in it where "
        "there is room, show the channels; its row and height show the resolution. On the way "
        "down, each level halves height and width, so each position covers more of the image. On "
        "the way up, the **skips** bring back the exact positions as additional channels. Every "
        "level is also given $t$, because removing a little noise differs from removing a lot."
    )
    if config.network == "lecture":
        show_lectures_oddities()
    show_table(trace)
    show_costs(trace)
    st.caption(
        "Counted are the multiply-adds of convolutions, linear layers and attention in one forward "
        f"pass. Each is two operations: {2 * trace.multiply_adds / 1e9:.4g} GFLOP in total. "
        "Training costs about three times as much per image, because of the backward pass."
    )


def show_lectures_oddities() -> None:
    with st.expander("Two things are unusual in the lecture's network", icon=":material/help:"):
        st.markdown(
            "They are kept as they are. Usually the ReLU comes after the norm; here it comes "
            "before:"
        )
        st.latex(
            r"""
\begin{aligned}
h &= \mathrm{norm}_1(\mathrm{ReLU}(\mathrm{conv}_1(x))) \\
h &= h + \mathrm{ReLU}(\mathrm{linear}(t)) \\
h &= \mathrm{norm}_2(\mathrm{ReLU}(\mathrm{conv}_2(h))) \\
x' &= \mathrm{transform}(h)
\end{aligned}
"""
        )
        st.markdown(
            "And the deepest skip is joined to itself: nothing lies between the last down block "
            "and the first up block, so both halves of that block's input are the same."
        )


def show_table(trace: Trace) -> None:
    """Every block in order of execution or, with the switch, every layer too."""
    import pandas as pd

    layers = LAYERS.ask()
    blocks = [row.name for row in trace.blocks if row.parameters]

    def click() -> None:
        chosen = st.session_state["trace"]["selection"]["rows"]
        block = ".".join(rows[chosen[0]].name.split(".")[:2]) if chosen else ""
        block = block if block in blocks else block.partition(".")[0]
        if block in blocks:
            st.session_state[BLOCK.key] = block

    rows = trace.rows if layers else trace.blocks
    table = pd.DataFrame(
        {
            "Name": [_indented(row) for row in rows],
            "Output": [shape_text(row.output) for row in rows],
            "Parameters": [row.parameters for row in rows],
            "Multiply-adds": [row.multiply_adds for row in rows],
            "Type": [row.what for row in rows],
            "Input": [" + ".join(map(shape_text, row.inputs)) for row in rows],
            "Path": [row.name for row in rows],
        }
    )
    number = st.column_config.NumberColumn
    longest = max(len(row.what) for row in rows)
    st.dataframe(
        table,
        hide_index=True,
        height=min(560, 37 + 35 * len(table)),
        column_config={
            "Name": st.column_config.TextColumn(pinned=True),
            "Parameters": number(format="localized"),
            "Multiply-adds": number(format="localized"),
            "Type": st.column_config.TextColumn(width=24 + 7 * longest),  # else it is cut
            "Path": None if not layers else st.column_config.TextColumn(),
        },
        key="trace",
        on_select=click,
        selection_mode="single-row",
        alt="The network's blocks in order of execution with their shapes and cost.",
    )
    if layers:
        st.caption("A block's parameters and multiply-adds include those of its layers.")


def show_costs(trace: Trace) -> None:
    """The parameters and the multiply-adds of every block, as bars."""
    for column, quantity in zip(st.columns(2), ("parameters", "multiply_adds"), strict=True):
        with column:
            show(
                cost_figure(trace, quantity),
                key=quantity,
                alt=f"Bars: the {quantity.replace('_', '-')} of every block.",
            )


def _indented(row: TraceRow) -> str:
    """A block's name, or the last part of a layer's, indented by its depth."""
    return "\N{EM SPACE}" * row.depth + (row.name.rpartition(".")[2] if row.depth else row.name)
