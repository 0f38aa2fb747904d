"""The Network page's tab Two networks: totals, figures, blocks and settings beside each other."""

from __future__ import annotations

import streamlit as st

from dashboard.components.comparison.comparison import Line, show_table
from dashboard.explain.network import (
    NETWORK,
    Picked,
    picked_of,
    runs_by_option,
    show_unet,
    sizes_of,
)
from dashboard.figures.network import shape_text, short
from dashboard.services import cached
from dashboard.ui.controls import Choice
from dashboard.ui.outside import code, plain
from diffusion_core.models.trace import Trace
from diffusion_core.review.differences import differing
from diffusion_core.review.index import settings_of
from diffusion_core.runs.config import ConfigError, meaning
from diffusion_core.runs.presets import PRESETS
from diffusion_core.text import value_text

OTHER = Choice(key="other", label="Second network", help=NETWORK.help)
OF_NETWORK = ("network", "network_args", "image_size", "channels", "schedule", "prediction_type")


def show_beside(picked: Picked, size: int, trace: Trace) -> None:
    runs = runs_by_option()
    options = [*PRESETS, *runs]
    default = next(name for name in ("small", "lecture") if PRESETS[name] != picked.config)
    choice = OTHER.now(options=options, default=default).ask()
    other = picked_of(choice, runs)
    if other is None:
        return
    try:
        _, sizes = sizes_of(other.config)
    except ConfigError as error:
        st.error(f"This network cannot be built: {plain(error)}")
        return
    if size not in sizes:
        st.info(
            f"{code(other.name)} does not take images of {size}×{size} px. Choose another size."
        )
        return
    second = cached.network_trace(other.config.network, dict(other.config.network_args), size)
    names, traces = [picked.name, other.name], [trace, second]
    for column, name, each, key in zip(st.columns(2), names, traces, "ab", strict=True):
        with column:
            st.markdown(f"**{code(name)}**")
            show_unet(each, f"u-{key}")
    parts = {
        "Totals": totals_of([picked, other], traces),
        "Settings that differ": settings_that_differ([picked, other]),
        "Blocks: output, parameters, multiply-adds": blocks_of(traces),
    }
    show_table(names, parts, "Two networks", "two-networks", "Network")
    st.caption(f"At {size}×{size} px. Marked: not as in the first network.")


def totals_of(picked: list[Picked], traces: list[Trace]) -> list[Line]:
    classes = [each.config.network_args.get("num_classes", 0) for each in picked]
    texts = {
        "Parameters": [f"{each.parameters:,}" for each in traces],
        "Multiply-adds per image": [short(each.multiply_adds) for each in traces],
        "Weights in float32": [f"{each.parameters * 4 / 1e6:,.1f} MB" for each in traces],
        "Blocks": [str(len([row for row in each.blocks if row.parameters])) for each in traces],
        "Classes": [str(number or "none") for number in classes],
    }
    return [line(name, cells) for name, cells in texts.items()]


def settings_that_differ(picked: list[Picked]) -> list[Line]:
    """Those that the network's shapes and task depend on."""
    settings = [settings_of(each.config) for each in picked]
    names = [name for name in differing(settings) if name.partition(".")[0] in OF_NETWORK]
    return [
        line(name, [value_text(each.get(name)) for each in settings], meaning(name))
        for name in names
    ]


def blocks_of(traces: list[Trace]) -> list[Line]:
    rows = [{row.name: row for row in each.blocks if row.parameters} for each in traces]
    lines = []
    for name in dict.fromkeys([*rows[0], *rows[1]]):
        found = [each.get(name) for each in rows]
        cells = [
            f"{shape_text(row.output)}, {short(row.parameters)}, {short(row.multiply_adds)}"
            if row
            else ""
            for row in found
        ]
        what = "; ".join(dict.fromkeys(row.what for row in found if row))
        lines.append(line(name, cells, what))
    return lines


def line(name: str, cells: list[str], text: str = "") -> Line:
    return Line(name, text, cells, [False, cells[1] != cells[0]])
