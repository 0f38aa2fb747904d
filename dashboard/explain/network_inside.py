"""The Network page's tab Inside a block: its cost, values and feature maps, and its attention."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import streamlit as st
from torch import nn

from dashboard.components.pixel.pixel import Panel, show_pixel
from dashboard.explain.network import show_numbers
from dashboard.explain.network_look import Look, pick_pixel, result_of, set_pixel
from dashboard.figures.network import bars_figure, histogram_figure, shape_text, short
from dashboard.figures.theme import show
from dashboard.services import cached
from dashboard.ui.images import show_image
from dashboard.ui.outside import code, plain
from diffusion_core.media.images import grid, to_uint8
from diffusion_core.models import inside
from diffusion_core.models.inside import WHOLE, Given, Histogram
from diffusion_core.models.trace import TraceRow
from diffusion_core.runs.presets import network_plan

MOST_MAPS = 64
MOST_HEADS = 16
SHEET = 512  # screen pixels of the feature maps
REPEATS = 5


@dataclass(frozen=True, eq=False)
class Values:
    """What a block holds and hands on."""

    weights: Histogram
    activations: Histogram
    channels: list[int]  # of the feature maps
    maps: np.ndarray  # uint8 (n, h, w); empty for an embedding


@dataclass(frozen=True, eq=False)
class Attended:
    """Where a position attends to."""

    x_t: np.ndarray  # uint8 (H, W, C)
    weights: np.ndarray  # (heads, h, w)


def show_inside(look: Look, row: TraceRow) -> None:
    """Everything about the block of a row of the trace."""
    show_cost(look, row)
    values = result_of(
        look,
        "values of a block",
        row.name,
        1,
        lambda network, given, *_: values_of(network, given, row.name),
    )
    if values is not None:
        show_values(look, row, values)
    plan = network_plan(look.config.network, look.config.network_args)
    if inside.attention_in(plan, row.name) is not None:
        show_attention(look, row.name)


def values_of(network: nn.Module, given: Given, block: str) -> Values:
    output = inside.output_of(network, given, block)
    weights = [p for p in network.get_submodule(block).parameters() if p.ndim > 1]
    channels: list[int] = []
    maps = np.zeros((0, 1, 1), np.uint8)
    if output.ndim == 4:
        channels, maps = inside.feature_maps(output, MOST_MAPS)
    return Values(
        inside.histogram_of(*weights or network.get_submodule(block).parameters()),
        inside.histogram_of(output),
        channels,
        maps,
    )


def show_cost(look: Look, row: TraceRow) -> None:
    """Shapes, parameters, time and memory."""
    inputs = " + ".join(map(shape_text, row.inputs))
    st.markdown(f"**{code(row.name)}**, {row.what}: {inputs} → {shape_text(row.output)}")
    seconds = result_of(
        look,
        "time of the blocks",
        None,
        REPEATS + 1,
        lambda network, given, *_: inside.block_seconds(network, given, REPEATS),
        any_image=True,
    )
    kept = cached.kept_bytes(look.config.network, dict(look.config.network_args), look.size)
    total = look.trace
    numbers = {
        "Parameters": short(row.parameters),
        "Memory of weights": megabytes(row.parameters * 4),
        "Memory of activations": megabytes(kept[row.name]),
    }
    shares = f"{row.parameters / total.parameters:.1%} of the parameters"
    if seconds is not None:
        own = seconds[row.name]
        numbers["Time"] = f"{1000 * own:.3g} ms"
        shares += f", {own / seconds[WHOLE]:.1%} of the time"
    shares += f", {kept[row.name] / sum(kept.values()):.1%} of the activations"
    show_numbers(numbers)
    st.caption(
        f"{row.parameters:,} parameters. {shares}. Time: the median of {REPEATS} forward passes of "
        "one image in float32 on this machine. Activations: what training keeps for the backward "
        f"pass, per image; the output alone is {megabytes(4 * math.prod(row.output))}."
    )
    if seconds is not None:
        times = st.expander(
            "Time of every block", icon=":material/timer:", key="times", on_change="rerun"
        )
        if times.open:
            blocks = [each for each in total.blocks if each.name in seconds]
            with times:
                show(
                    bars_figure(blocks, [1000 * seconds[each.name] for each in blocks], "ms"),
                    key="seconds",
                    alt="Bars: the time of every block in milliseconds.",
                )


def megabytes(number: float) -> str:
    return f"{number / 1e6:,.3g} MB" if number < 1e9 else f"{number / 1e9:,.3g} GB"


def show_values(look: Look, row: TraceRow, values: Values) -> None:
    """The feature maps, and the histograms."""
    left, right = st.columns(2, gap="medium")
    with left if values.channels else st.container():
        show_maps(look, row, values)
    for name, found in (("weights", values.weights), ("activations", values.activations)):
        with right:
            show(
                histogram_figure(found, name),
                key=f"values-{name}",
                alt=f"Histogram of the {name} of {row.name}",
            )
            st.caption(spread_text(name, found))


def show_maps(look: Look, row: TraceRow, values: Values) -> None:
    """The sheet of feature maps; of an embedding there are none."""
    if not values.channels:
        st.caption("One vector, the same for every position: there are no feature maps.")
        return
    shown, of = len(values.channels), row.output[1]
    framed = np.pad(values.maps, ((0, 0), (1, 1), (1, 1)))[..., None]
    show_image(grid(framed), f"{shown} feature maps of {row.name}", SHEET, stretch=True)
    which = f"All {of} channels"
    if shown < of:
        which = f"The {shown} of {of:,} channels that vary most"
    with st.popover("Which channels", icon=":material/grid_on:"):
        st.markdown(f"{which}, row by row: {_numbers(values.channels)}.")
    st.caption(
        f"**Feature maps.** {which}. Grey is 0; black and white are each channel's largest "
        f"magnitude, negative and positive. {plain(look.what)}, at t = {look.t:,}."
    )


def spread_text(name: str, found: Histogram) -> str:
    text = f"{found.values:,} {name}: mean {found.mean:.3g}, standard deviation {found.std:.3g}"
    if found.zeros:
        text += f", {found.zeros / found.values:.1%} exactly 0"
    if found.not_finite:
        text += f", {found.not_finite:,} more are NaN or infinite"
    return f"{text}."


def _numbers(channels: list[int]) -> str:
    """Ranges of numbers: "0 to 7, 9, 12 to 15"."""
    parts: list[list[int]] = []
    for channel in channels:
        if parts and channel == parts[-1][-1] + 1:
            parts[-1].append(channel)
        else:
            parts.append([channel])
    return ", ".join(
        f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts
    )


def show_attention(look: Look, block: str) -> None:
    """Per head, what the chosen position attends to."""
    st.markdown("**Attention**")
    st.markdown(
        r"Each position takes a mean of all positions' values, weighted by $\mathrm{softmax}"
        r"(QK^\top/\sqrt d)$. Click a pixel to see the weights of its position, head by head."
    )
    pixel = pick_pixel(look.size)
    found = result_of(
        look,
        "attention",
        (block, pixel),
        1,
        lambda network, given, *_: Attended(
            to_uint8(given.x)[0],
            inside.attention_weights(network, given, block, pixel).cpu().numpy(),
        ),
    )
    if found is None:
        return
    heads = [Panel(f"Head {k + 1}", head) for k, head in enumerate(found.weights[:MOST_HEADS])]
    panels = [Panel(f"x_t at t = {look.t:,}", found.x_t), *heads]
    show_pixel(panels, look.size, pixel, "attention", set_pixel)
    positions = found.weights[0].size
    st.caption(
        f"{found.weights.shape[1]}×{found.weights.shape[2]} positions. Colours go from 0 to each "
        f"head's largest weight: "
        f"{', '.join(f'{head.max():.3f}' for head in found.weights[:MOST_HEADS])}. Equal weights "
        f"would be {1 / positions:.4f}."
    )
