"""The Playground page's controls, its state as a link and as code."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import numpy as np
import streamlit as st

from dashboard.components.playground.playground import show_playground
from dashboard.explain.playground_gallery import GALLERY
from dashboard.services import cached
from dashboard.services.roles import Deed, NotAllowed, check, may
from dashboard.ui.controls import Choice, Control, MultiChoice, Number, Text, Toggle
from dashboard.ui.images import show_row
from dashboard.ui.navigation import entry
from dashboard.ui.outside import plain
from diffusion_core.data.decode import ImageError
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import SOURCES
from diffusion_core.playground.code import python_code
from diffusion_core.playground.data import ALONG, ImagePlane
from diffusion_core.playground.drawing import MOST_POINTS, read_drawing
from diffusion_core.playground.settings import DATA, DRAWING, IMAGES, KINDS, TIMESTEPS, Settings
from diffusion_core.process.tables import SCHEDULE_KINDS, ScheduleTables

KEY = "playground"
PANELS = {"ddpm": "DDPM", "ddim": "DDIM", "flow": "Flow", "exact": "DDIM, exact score"}


@dataclass(frozen=True, kw_only=True)
class Drawing(Text):
    """Points, as `read_drawing` takes them."""

    def problem(self, value: Any) -> str:
        try:
            read_drawing(value)
        except (ValueError, TypeError, AttributeError) as error:
            return f"{self.label} {error}."
        return ""


def _number(field: str, label: str, low: float, high: float, step: float, default: float) -> Number:
    return Number(
        key=field, field=field, label=label, low=low, high=high, step=step, default=default
    )


def _choice(field: str, label: str, options: Any, default: Any, key: str = "") -> Choice:
    return Choice(
        key=key or field, field=field, label=label, options=options, default=default,
    )  # fmt: skip


START = Settings()
# What the browser lets set, in its groups; the keys are those of the link.
GROUPS: dict[str, tuple[Control, ...]] = {
    "Data": (
        replace(_choice("data", "Data", DATA, START.data), segmented=True),
        _choice("images", "Images", [s.name for s in SOURCES.values() if s.most], START.images),
        Drawing(key="drawing", field="drawing", label="Drawing"),
        Toggle(
            key="classes",
            field="classes",
            label="Tell the network the class",
            help="So that it can be guided.",
        ),
        _number("dropout", "Labels left out", 0.0, 0.9, 0.05, START.dropout),
    ),
    "Process": (
        MultiChoice(
            key="panels",
            field="panels",
            label="Samplers",
            one=Choice(key="panels", label="Samplers", options=list(PANELS)),
            options=list(PANELS),
            default=("ddpm", "ddim"),
            most=len(PANELS),
        ),
        _choice("kind", "Schedule", list(KINDS), START.kind),
        _choice("timesteps", "Timesteps T", TIMESTEPS, START.timesteps, key="T"),
        _number("sampling_steps", "Sampling steps", 1, max(TIMESTEPS), 1, START.sampling_steps),
        _number("guidance_scale", "Guidance scale", 0.0, 10.0, 0.5, START.guidance_scale),
        _choice("particles", "Particles", (100, 300, 600), START.particles),
    ),
    "Network": (
        _choice("layers", "Hidden layers", (1, 2, 3, 4), START.layers),
        _choice("width", "Neurons each", (4, 16, 32, 64, 128), START.width),
        _choice(
            "learning_rate", "Learning rate", (0.0003, 0.001, 0.003, 0.01, 0.03, 0.3),
            START.learning_rate,
        ),
        _choice("batch", "Batch", (16, 32, 64, 128, 256), START.batch),
        _choice("steps", "Steps", (200, 500, 1000, 2000, 5000, 10_000), START.steps),
        _number("seed", "Seed", 0, 9999, 1, START.seed),
    ),
}  # fmt: skip
FIELDS = ("off", "learned", "exact", "both")
DIRECTIONS = ("reverse", "forward")
VIEW: tuple[Control, ...] = (
    replace(_choice("direction", "Direction", DIRECTIONS, "reverse"), segmented=True),
    _choice("field", "Field", FIELDS, "learned"),
    Toggle(key="paths", field="paths", label="Trajectories"),
    Number(
        key="level", field="level", label="Noise steps", low=0, high=max(TIMESTEPS),
        optional=True,
    ),
)  # fmt: skip
CONTROLS = (*(control for group in GROUPS.values() for control in group), *VIEW)
# When a control is shown: the field on which that depends, and its values.
NEEDS = {
    "images": ("data", (IMAGES,)),
    "dropout": ("classes", (True,)),
    "guidance_scale": ("classes", (True,)),
}
TITLES = {
    "data": {DRAWING: "your drawing", IMAGES: "images (PCA)"},
    "panels": PANELS,
    "kind": {kind: SCHEDULE_KINDS[kind].title for kind in KINDS},
    "direction": {"reverse": "Noise → data", "forward": "Data → noise"},
}


def defaults() -> dict[str, Any]:
    return {control.field: _plain(control.default) for control in CONTROLS}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def from_link() -> dict[str, Any]:
    """The settings in the page's address; what cannot be set is left out of it."""
    values = defaults()
    for control in map(_now, CONTROLS):
        control.check_link()
        if texts := st.query_params.get_all(control.key):
            values[control.field] = control.of_link(texts)
    values["panels"] = [name for name in PANELS if name in values["panels"]] or ["ddim"]
    values["sampling_steps"] = min(values["sampling_steps"], values["timesteps"])
    if values["level"] is not None:
        values["level"] = min(values["level"], values["timesteps"])
    return values


def _now(control: Control) -> Control:
    """Those who may read folders of the server can have named one in the link."""
    if control.field == "images" and may(Deed.READ_PATHS):
        return control.now(typed=True)
    return control


def to_link(values: dict[str, Any]) -> dict[str, list[str]]:
    """What of the settings differs from the start."""
    start = defaults()
    if values.get("data") != DRAWING:
        values = {**values, "drawing": ""}
    return {
        control.key: control.to_link(values[control.field])
        for control in CONTROLS
        if control.field in values and values[control.field] != start[control.field]
    }


def _keep(told: Any) -> None:
    """Put what the browser has set into the address, where it can be set."""
    if not isinstance(told, dict):
        return
    values = defaults()
    for control in map(_now, CONTROLS):
        value = told.get(control.field)
        if isinstance(control, Number) and not control.whole and isinstance(value, (int, float)):
            value = float(value)
        if control.field in told and not control.problem(value):
            values[control.field] = value
    st.query_params.from_dict(to_link(values))


def show(values: dict[str, Any], plane: ImagePlane | None) -> None:
    """The playground; `plane`: the images that are chosen as points."""
    data = {
        "settings": values,
        "defaults": defaults(),
        "groups": [
            {"title": title, "open": True, "controls": _described(group, values)}
            for title, group in GROUPS.items()
        ],
        "view": [{"title": "View", "open": True, "controls": _described(VIEW, values)}],
        "panels": PANELS,
        "most": MOST_POINTS,
        "signals": _signals(),
        "gallery": [
            {
                "title": title,
                "sentence": sentence,
                "settings": settings,
                "address": _address(settings),
            }
            for title, sentence, settings in GALLERY
        ],
    }
    images = plane and {
        "spec": values["images"],
        "points": _base64(plane.data.points),
        "labels": plane.data.labels.tolist(),
    }
    show_playground(data | {"images": images}, KEY, _keep)


def _address(settings: dict[str, Any]) -> str:
    return f"{entry('playground.py').url_path}?{urlencode(to_link(settings), doseq=True)}"


def _described(controls: tuple[Control, ...], values: dict[str, Any]) -> list[dict[str, Any]]:
    """The declarations, as controls.js builds them."""
    return [
        {
            "field": control.field,
            "label": control.label,
            "help": control.help,
            "needs": NEEDS.get(control.field),
            **_kind(control, values[control.field]),
        }
        for control in controls
        if control.field not in ("drawing", "level")  # which have elements of their own
    ]


def _kind(control: Control, value: Any) -> dict[str, Any]:
    if isinstance(control, (Choice, MultiChoice)):
        many = isinstance(control, MultiChoice)
        titles = TITLES.get(control.field, {})
        names = [*control.options]
        if not many and value not in names:  # typed into the link
            names.append(value)
        options = [[name, titles.get(name, f"{name}")] for name in names]
        buttons = isinstance(control, MultiChoice) or control.segmented
        kind = "segments" if buttons else "choice"
        return {"kind": kind, "options": options, "many": many}
    if isinstance(control, Toggle):
        return {"kind": "toggle"}
    assert isinstance(control, Number)
    most = "timesteps" if control.field == "sampling_steps" else None
    kind = "number" if control.field == "seed" else "range"
    return {
        "kind": kind, "low": control.low, "high": control.high, "step": control.step, "most": most,
    }  # fmt: skip


@st.cache_data(show_spinner=False)
def _signals() -> dict[str, str]:
    """The table of every schedule that can be chosen, float64 in base64."""
    tables = {}
    for kind in KINDS:
        for timesteps in TIMESTEPS:
            signal = ScheduleTables(kind, timesteps).sqrt_alphas_cumprod
            tables[f"{kind} {timesteps}"] = _base64(signal)
    return tables


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f8").tobytes()).decode()


def plane_of_images(values: dict[str, Any]) -> ImagePlane | None:
    """The images that are chosen as points; None if none are. An error is shown here."""
    if values["data"] != IMAGES:
        return None
    try:
        if values["images"] not in SOURCES:
            check(Deed.READ_PATHS)
        return cached.image_plane(values["images"])
    except (DataError, ImageError, NotAllowed) as error:
        st.error(plain(error))
        return None


def show_code(values: dict[str, Any]) -> None:
    """The state as Python code."""
    if values["data"] == DRAWING and not values["drawing"]:
        return
    known = {name: value for name, value in values.items() if name in Settings.model_fields}
    code = python_code(Settings.model_validate(known), values["panels"])
    with st.expander("The same in Python", icon=":material/code:"):
        st.write("Runs on this project's core and gives the same losses and samples to 1e-4.")
        st.code(code, language="python")
        st.download_button(
            "Download",
            code,
            file_name="playground_run.py",
            mime="text/x-python",
            on_click="ignore",
            icon=":material/download:",
        )


def show_axes(plane: ImagePlane, images: str) -> None:
    """What the plane shows of the images."""
    first = ", ".join(plane.classes[: (len(plane.classes) + 1) // 2])
    with st.expander("The axes as images", icon=":material/image:"):
        st.write(
            f"The points are {len(plane.data.points):,} images of {plain(images)}. Each row moves "
            "their mean along an axis, from −2 to 2 standard deviations."
        )
        for axis, row, share in zip("xy", plane.axes, plane.explained, strict=True):
            st.caption(f"${axis}$: {share:.0%} of the variance".replace("%", " %"))
            show_row(
                list(row),
                alt=f"The mean image moved along {axis}",
                width=96,
                captions=[f"{place:+g} σ" if place else "mean" for place in ALONG],
            )
        if len(plane.classes) > 1:
            st.caption(f"Class 0: {plain(first)}. Class 1: the others.")


def show_formulas() -> None:
    """What the browser computes."""
    with st.expander("What is computed", icon=":material/function:"):
        st.markdown(
            r"""
The network predicts $\epsilon$ from $x_t = \sqrt{\bar\alpha_t}\,x_0 +
\sqrt{1-\bar\alpha_t}\,\epsilon$. DDPM and DDIM walk back with it; the arrows point along
$-\hat\epsilon$, the direction of the score. For a flow $x_s = (1-s)\,x_0 + s\,\epsilon$, and the
network predicts the velocity $\epsilon - x_0$.

The data are $N$ points $y_k$, so the best prediction is known. With $a = \sqrt{\bar\alpha_t}$ and
$b = \sqrt{1-\bar\alpha_t}$:
"""
        )
        st.latex(
            r"\mathbb{E}[x_0 \mid x_t] = \sum_k w_k\,y_k,\quad w_k \propto "
            r"e^{-\lVert x_t - a\,y_k\rVert^2 / 2b^2},\quad "
            r"\nabla\log p(x_t) = -\frac{\mathbb{E}[\epsilon \mid x_t]}{b}"
        )
        st.markdown(
            r"""
The error above a panel is the root mean square difference of the learned and the exact prediction,
over noised points. With classes, $\hat\epsilon = \hat\epsilon_\varnothing + w\,(\hat\epsilon_c -
\hat\epsilon_\varnothing)$ with the guidance scale $w$; the field is that of any class,
$\varnothing$.
"""
        )
