"""The Embedding page on a run's checkpoints: its `time_mlp`, and what that gives each block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from dashboard.components.chart.chart import show_live
from dashboard.explain.embedding import BLOCKS, MLP, charts_of_rows, show_pair, thinned
from dashboard.figures import embedding as figures
from dashboard.services import conditioning
from dashboard.services.settings import get_settings
from dashboard.ui import pickers
from dashboard.ui.controls import Choice
from dashboard.ui.outside import code, plain
from diffusion_core.models.conditioning import conditioned_blocks
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.presets import build_schedule, network_plan
from diffusion_core.runs.run import list_runs
from diffusion_core.sampling.capabilities import ANY_CLASS, Capabilities

STEP = Choice(key="step", label="Training step", slider=True)
BLOCK = Choice(key="block", label="Block", help="In the order in which the network computes them.")
TERM = Choice(key="term", label="Term", segmented=True)
LABEL = Choice(key="label", label="Class", help="What the network is told beside t.")
MOST_CURVES = 6
MOST_CLASSES = 8
MOST_STEPS = 24  # checkpoints of which the figure over training is made
BIAS = (
    r"\begin{gathered}h \leftarrow h + \text{bias}\\[4pt]"
    r"\text{bias} = \mathrm{ReLU}(W e(t) + b)\end{gathered}"
)
SCALE_SHIFT = (
    r"\begin{gathered}h \leftarrow \mathrm{GroupNorm}(h)\,(1 + \text{scale}) + \text{shift}\\[4pt]"
    r"[\text{scale}, \text{shift}] = W\, \mathrm{SiLU}(e(t)) + b\end{gathered}"
)


def show(view: str) -> None:
    """One of the views of a trained network."""
    checkpoints = pick_checkpoints()
    if not checkpoints:
        return
    try:
        if view == MLP:
            show_time_mlp(pick_step(checkpoints))
        elif view == BLOCKS:
            show_blocks(pick_step(checkpoints))
        else:
            show_training(checkpoints)
    except CheckpointError as error:
        st.error(plain(error))


def pick_checkpoints() -> Sequence[Checkpoint]:
    """The usable checkpoints of a run; none where there is none, which the page then says."""
    runs, damaged = {}, False
    for run in list_runs(get_settings().runs_dir):
        if run.latest_checkpoint():
            runs[run.name] = run
        elif broken := run.checkpoints()[1]:
            st.warning(f"No checkpoint of {code(run.name)} can be used: {plain(broken[-1])}")
            damaged = True
    if not runs:
        if not damaged:
            st.info(
                "No run has a checkpoint yet. Train a model, and its embedding of the timesteps "
                "appears here."
            )
        return ()
    usable, broken = pickers.pick_run(list(runs.values()), last_first=True).checkpoints()
    for sentence in broken:
        st.warning(f"{plain(sentence)} It is skipped.")
    return usable


def pick_step(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """One of a run's checkpoints, the newest to begin with."""
    steps = {str(checkpoint.step): checkpoint for checkpoint in checkpoints}
    newest = list(steps)[-1]
    chosen = newest
    if len(steps) > 1:
        chosen = STEP.now(options=list(steps), default=newest).ask()
    checkpoint = steps[chosen]
    config = checkpoint.config
    st.caption(
        f"Step {checkpoint.step:,} of {config.steps:,}, preset {code(config.preset)}, "
        f"T = {build_schedule(config).timesteps:,}."
    )
    return checkpoint


def pick_timestep(checkpoint: Checkpoint) -> None:
    pickers.pick_timestep(build_schedule(checkpoint.config).timesteps, default=30)


def show_time_mlp(checkpoint: Checkpoint) -> None:
    """What the network's `time_mlp` makes of every timestep."""
    pick_timestep(checkpoint)
    rows = conditioning.time_rows(checkpoint)
    show_pair(*charts_of_rows(rows, conditioning.timesteps_of(checkpoint)), "learned")
    st.caption(
        f"`time_mlp` turns the sinusoidal row into {rows.shape[1]:,} numbers, $e(t)$, that all "
        "blocks get. Training brings timesteps that need similar work closer together and "
        "pushes others apart: compare with the view Formula."
    )


def show_blocks(checkpoint: Checkpoint) -> None:
    """What the timestep, and the class, give each channel of a block."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        block = pick_block(checkpoint)
        label = pick_class(checkpoint)
        terms = conditioning.block_terms(checkpoint, block, label)
        term = pick_term(list(terms))
    pick_timestep(checkpoint)
    steps = conditioning.timesteps_of(checkpoint)
    left, right = st.columns(2)
    with left:
        st.markdown(f"**{term.capitalize()} of {code(block)}**")
        alt = f"Heatmap of the {term} that the block is given, over t and channel."
        figure = figures.rows_figure(*thinned(terms[term], steps), along="channel")
        show_live(figure, "terms", alt, cursor="y")
        st.caption(
            "A column that changes from top to bottom is a channel that the timestep switches; an "
            "even one is the same for all timesteps."
        )
    with right:
        st.markdown(f"**Size of the {term} of every block**")
        sizes = conditioning.term_sizes(checkpoint, label)[term]
        alt = f"Heatmap of the size of the {term} over t, for every block."
        figure = figures.sizes_figure(sizes, steps, blocks_of(checkpoint), "timestep t")
        show_live(figure, "sizes", alt, cursor="x")
        st.caption(
            "Root mean square over the channels: the larger, the more the timestep has to say to "
            "that block."
        )
    st.latex(BIAS if term == "bias" else SCALE_SHIFT)
    if checkpoint.classes:
        show_classes(checkpoint, block, term)


def show_classes(checkpoint: Checkpoint, block: str, term: str) -> None:
    """What the class adds to a term of a block."""
    st.markdown("**What the class adds**")
    any_class = Capabilities.of(checkpoint).any_class
    names = checkpoint.classes[:MOST_CLASSES]
    given = [
        conditioning.block_terms(checkpoint, block, label)[term] for label in range(len(names))
    ]
    without = (
        conditioning.block_terms(checkpoint, block, None)[term]
        if any_class
        else np.mean(given, axis=0)
    )
    curves = {
        name: np.sqrt(np.square(values - without).mean(axis=1))
        for name, values in zip(names, given, strict=True)
    }
    figure = figures.curves_figure(
        conditioning.timesteps_of(checkpoint), curves, f"change of the {term}"
    )
    alt = f"Curves over t: how much each class changes the {term} of the block."
    show_live(figure, "classes", alt, cursor="x")
    more = (
        f" The first {MOST_CLASSES} classes are shown."
        if len(names) < len(checkpoint.classes)
        else ""
    )
    st.caption(
        "Each class has a learned vector that is added to $e(t)$, the same at every $t$; the SiLU "
        f"behind the sum lets its effect depend on $t$. Shown is the root mean square of the "
        f"difference from {'any class' if any_class else 'the mean of the classes'}: high where "
        f"the class decides, near 0 where the network does not look at it.{more}"
    )


def show_training(checkpoints: Sequence[Checkpoint]) -> None:
    """The sizes of the terms over the checkpoints of a run."""
    newest = checkpoints[-1]
    if len(checkpoints) == 1:
        st.info(
            "This run has one checkpoint, and training is seen between several. Set *Keep "
            "checkpoints* higher in the next run."
        )
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        block = pick_block(newest)
        label = pick_class(newest)
        term = pick_term(list(conditioning.term_sizes(newest, label)))
    pick_timestep(newest)
    blocks = blocks_of(newest)
    left, right = st.columns(2)
    with left:
        st.markdown(f"**{term.capitalize()} of {code(block)}, step by step**")
        curves = {
            f"step {each.step:,}": conditioning.term_sizes(each, label)[term][blocks.index(block)]
            for each in spread(checkpoints, MOST_CURVES)
        }
        alt = f"Curves over t: the size of the {term} of the block, one for each training step."
        figure = figures.curves_figure(
            conditioning.timesteps_of(newest), curves, f"size of the {term}", in_order=True
        )
        show_live(figure, "steps", alt, cursor="x")
        st.caption("Where the curves part, the block has learned to treat timesteps differently.")
    with right:
        st.markdown(f"**How much t changes the {term} of every block**")
        alt = f"Heatmap over training step and block: how much the {term} varies over t."
        some = spread(checkpoints, MOST_STEPS)
        varied = [conditioning.term_variations(each, label)[term] for each in some]
        steps = np.array([each.step for each in some])
        figure = figures.sizes_figure(np.stack(varied, axis=1), steps, blocks, "training step")
        show_live(figure, "variations", alt)
        st.caption(
            "Standard deviation over the timesteps, as root mean square over the channels: a row "
            "that grows belongs to a block that heeds the timestep more and more."
        )


def pick_block(checkpoint: Checkpoint) -> str:
    return BLOCK.now(options=blocks_of(checkpoint)).ask()


def pick_term(terms: list[str]) -> str:
    """The bias, or the scale or the shift."""
    return TERM.now(options=terms).ask() if len(terms) > 1 else terms[0]


def pick_class(checkpoint: Checkpoint) -> int | None:
    """The label of a class; None for any class, and for a network that takes none."""
    if not checkpoint.classes:
        return None
    any_class = [ANY_CLASS] if Capabilities.of(checkpoint).any_class else []
    name = LABEL.now(options=[*any_class, *checkpoint.classes]).ask()
    return None if name == ANY_CLASS else checkpoint.classes.index(name)


def blocks_of(checkpoint: Checkpoint) -> list[str]:
    config = checkpoint.config
    return list(conditioned_blocks(network_plan(config.network, config.network_args)))


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, at equal distances, with the first and the last."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places]
