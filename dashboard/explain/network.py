"""The Network page's controls, totals, table and figures."""

from __future__ import annotations

import streamlit as st

from dashboard.figures.network import cost_figure, shape_text, short, unet_figure
from dashboard.figures.theme import show
from dashboard.services.settings import get_settings
from dashboard.ui import keys
from dashboard.ui.controls import Choice, Toggle
from dashboard.ui.outside import code, plain
from dashboard.ui.pickers import start_from_last_run
from diffusion_core.models.trace import Trace, TraceRow
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.presets import PRESETS, network_plan
from diffusion_core.runs.run import list_runs

SMALLEST, LARGEST = 16, 256  # pixels, both sides
NETWORK = Choice(key="network", label="Network", help="A preset, or the network of a run.")
SIZE_KEY = "size"
LAYERS = Toggle(key="layers", label="Show the layers inside the blocks")


def pick_network() -> RunConfig:
    """A preset's settings or a run's; one that cannot be used is an error and stops the page."""
    runs = {f"run {run.name}": run for run in list_runs(get_settings().runs_dir)}
    start_from_last_run(NETWORK.key, {run.name: option for option, run in runs.items()})
    choice = NETWORK.now(options=[*PRESETS, *runs]).ask()
    if choice in PRESETS:
        return PRESETS[choice]
    st.session_state[keys.LAST_RUN] = runs[choice].name
    try:
        config = runs[choice].config
    except ConfigError as error:
        st.error(f"The settings of {code(runs[choice].name)} cannot be used: {plain(error)}")
        st.stop()
    if config is None:
        st.info(
            f"{code(runs[choice].name)} has not written its settings yet. Try again in a moment."
        )
        st.stop()
    return config


def pick_size(config: RunConfig) -> int:
    """The image size in pixels, out of those that the network accepts."""
    try:
        multiple = network_plan(config.network, config.network_args).size_multiple
    except ConfigError as error:
        st.error(f"This network cannot be built: {plain(error)}")
        st.stop()
    sizes = [size for size in range(multiple, LARGEST + 1, multiple) if size >= SMALLEST]
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


def show_totals(trace: Trace) -> None:
    parameters, work, memory = st.columns(3)
    parameters.metric("Parameters", f"{trace.parameters:,}")
    work.metric("Multiply-adds per image", short(trace.multiply_adds))
    memory.metric("Weights in float32", f"{trace.parameters * 4 / 1e6:,.1f} MB")
    st.caption(
        "Counted are the multiply-adds of convolutions, linear layers and attention in one forward "
        f"pass. Each is two operations: {2 * trace.multiply_adds / 1e9:.4g} GFLOP in total. "
        "Training costs about three times as much per image, because of the backward pass."
    )


def show_unet(trace: Trace) -> None:
    show(
        unet_figure(trace),
        key="u",
        alt=f"The network as a U of {len(trace.blocks)} blocks; the table has all shapes.",
    )


def show_table(trace: Trace) -> None:
    """Every block in order of execution or, with the switch, every layer too."""
    import pandas as pd

    layers = LAYERS.ask()
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
