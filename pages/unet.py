"""Network: the U-Net as a drawing and as a table of shapes, and what each of its blocks costs."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard.figures.network import cost_figure, shape_text, short, unet_figure
from dashboard.figures.theme import show
from dashboard.services import cached
from dashboard.services.settings import get_settings
from diffusion_core.models.trace import Trace, TraceRow
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.presets import PRESETS
from diffusion_core.runs.run import list_runs

SMALLEST, LARGEST = 16, 256  # pixels a side
ABOUT = """
The network is the part of a diffusion model that learns. It is given a noisy image $x_t$ and the
step $t$, and answers with an image of the same size: what it believes the noise in it is.
"""
WHY_A_U = """
A **U-Net** goes down and up again. On the way down each level halves height and width and has more
channels, so that a single pixel comes to stand for a large part of the image: there it can be
seen what the image shows. On the way up the size is doubled again, until the answer is as large
as the image. Where something is, to the pixel, is lost on the way down; the **skips** carry it
across, joined as further channels to what comes up. Every level is also told the step $t$, because
a little noise and a lot of it are removed differently.
"""
LECTURE_BLOCK = r"""
\begin{aligned}
h &= \mathrm{norm}_1(\mathrm{ReLU}(\mathrm{conv}_1(x))) \\
h &= h + \mathrm{ReLU}(\mathrm{linear}(t)) \\
h &= \mathrm{norm}_2(\mathrm{ReLU}(\mathrm{conv}_2(h))) \\
x' &= \mathrm{transform}(h)
\end{aligned}
"""


def pick_network() -> RunConfig:
    """A preset's settings or a run's; where a run's cannot be used, says so and stops."""
    runs = {f"run {run.name}": run for run in list_runs(get_settings().runs_dir)}
    choice = st.selectbox(
        "Network",
        [*PRESETS, *runs],
        help="A preset, or what a run trains.",
        required=True,
        key="network",
        bind="query-params",
    )
    if choice in PRESETS:
        return PRESETS[choice]
    try:
        config = runs[choice].config
    except ConfigError as error:
        st.error(f"The settings of {runs[choice].name} cannot be used: {error}")
        st.stop()
    if config is None:
        st.info(f"{runs[choice].name} has not written its settings yet; try again in a moment.")
        st.stop()
    return config


def pick_size(config: RunConfig) -> int:
    """Pixels a side, out of those that the network accepts."""
    try:
        multiple = cached.size_multiple(config.network, config.network_args)
    except ConfigError as error:
        st.error(f"This network cannot be built: {error}")
        st.stop()
    sizes = [size for size in range(multiple, LARGEST + 1, multiple) if size >= SMALLEST]
    if not sizes:
        st.error(f"This network needs images of {multiple} or more pixels a side.")
        st.stop()
    default = config.image_size if config.image_size in sizes else sizes[0]
    asked = st.query_params.get("size", str(default))
    size = st.select_slider(
        "Image, pixels a side",
        sizes,
        default,
        help=f"This network takes multiples of {multiple}.",
        key="size",
        bind="query-params",
    )
    if asked not in map(str, sizes):
        st.info(
            f"This network takes images of {sizes[0]} to {sizes[-1]} pixels a side, in "
            f"multiples of {multiple}, not {asked}; it is shown at {size}."
        )
    return size


def show_totals(trace: Trace) -> None:
    parameters, work, memory = st.columns(3)
    parameters.metric("Parameters", f"{trace.parameters:,}")
    work.metric("Multiply-adds an image", short(trace.multiply_adds))
    memory.metric("Weights in float32", f"{trace.parameters * 4 / 1e6:,.1f} MB")
    st.caption(
        f"Of one forward pass, in convolutions, linear layers and attention. A multiply-add is "
        f"two operations, so that is {2 * trace.multiply_adds / 1e9:.4g} GFLOP; training costs "
        f"about three times as much an image, because the gradients go the way back."
    )


def indented(row: TraceRow) -> str:
    """A block's name, or the last word of a layer's, set in by its depth."""
    return "\N{EM SPACE}" * row.depth + (row.name.rpartition(".")[2] if row.depth else row.name)


def show_table(trace: Trace) -> None:
    layers = st.toggle(
        "Show the layers inside the blocks", value=False, key="layers", bind="query-params"
    )
    rows = trace.rows if layers else trace.blocks
    table = pd.DataFrame(
        {
            "Name": [indented(row) for row in rows],
            "Output": [shape_text(row.output) for row in rows],
            "Parameters": [row.parameters for row in rows],
            "Multiply-adds": [row.multiply_adds for row in rows],
            "What it is": [row.what for row in rows],
            "Input": [" + ".join(map(shape_text, row.inputs)) for row in rows],
            "Path": [row.name for row in rows],
        }
    )
    number = st.column_config.NumberColumn
    st.dataframe(
        table,
        hide_index=True,
        height=min(560, 37 + 35 * len(table)),
        column_config={
            "Name": st.column_config.TextColumn(pinned=True),
            "Parameters": number(format="localized"),
            "Multiply-adds": number(format="localized"),
            "Path": None if not layers else st.column_config.TextColumn(),
        },
        key="trace",
        alt="The network's blocks in order of execution with their shapes and cost.",
    )
    if layers:
        st.caption("A block's parameters and multiply-adds include those of the layers below it.")


def show_lectures_ways() -> None:
    st.markdown(
        "Two things in the lecture's network are unusual, and are kept here as they are. Inside a "
        "block the ReLU comes before the norm, mostly it comes after:"
    )
    st.latex(LECTURE_BLOCK)
    st.markdown(
        "And the deepest skip is joined to itself: nothing lies between the last block down and "
        "the first block up, so both halves of what that block is given are the same numbers."
    )


st.title("Network")
st.markdown(ABOUT)
st.latex(r"\epsilon_\theta(x_t, t) \approx \epsilon, \qquad \theta: \text{the parameters}")
left, right = st.columns(2, gap="medium")
with left:
    config = pick_network()
with right:
    size = pick_size(config)
trace = cached.network_trace(config.network, config.network_args, size)
st.caption(
    f"Images of {size}×{size}; this network is trained to answer with "
    f"{PREDICTION_TYPES[config.prediction_type].formula}."
)
show_totals(trace)

st.header("The U")
st.markdown(WHY_A_U)
show(
    unet_figure(trace),
    key="u",
    alt=f"The network drawn as a U of {len(trace.blocks)} blocks; the table has all shapes.",
)
st.caption(
    "Each rectangle is what a block hands on: its width, and the number in it where there is room, "
    "are the channels, its row and height the resolution. Point at one for its shapes and its cost."
)
if config.network == "lecture":
    show_lectures_ways()

st.header("Shapes")
st.markdown(
    "One image on its way through, block by block in order of execution; a shape is (images, "
    "channels, height, width)."
)
show_table(trace)

st.header("Parameters and work")
st.markdown(
    "Parameters gather where the channels are many; work is spent where channels and pixels are."
)
for column, quantity in zip(st.columns(2), ("parameters", "multiply_adds"), strict=True):
    with column:
        show(
            cost_figure(trace, quantity),
            key=quantity,
            alt=f"Bars: the {quantity.replace('_', '-')} of every block.",
        )
