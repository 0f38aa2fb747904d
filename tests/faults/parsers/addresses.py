"""The parameters of a link, a mask and a drawing."""

from __future__ import annotations

import base64
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

import dashboard
from dashboard.components.drawing import drawing
from dashboard.components.mask.mask import decode
from dashboard.ui.controls import Choice, Control, MultiChoice
from diffusion_core.sampling.spec import SamplingSpec
from tests.faults.odd_inputs import texts
from tests.faults.parsers.table import PARSERS, SPEC, Parser, Said


def all_controls(within: str = "dashboard") -> list[Control]:
    """Every control of every page, or of the modules of one package, as it is declared."""
    there: dict[int, Control] = {}
    for module in pkgutil.walk_packages(dashboard.__path__, "dashboard."):
        if not module.name.startswith(within):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            inside = value.values() if isinstance(value, dict) else value
            many = inside if isinstance(value, (dict, list, tuple)) else [value]
            there |= {id(each): each for each in many if isinstance(each, Control)}
    return list(there.values())


CONTROLS = all_controls()
# Of the Sampling page: elsewhere a field of the same name belongs to another record.
OF_SPEC = {
    id(each)
    for each in all_controls("dashboard.sampling")
    if each.field in SamplingSpec.model_fields
}


def read_link(link: tuple[int, list[str]], _: Path) -> Any:
    control, link_texts = CONTROLS[link[0]], link[1]
    if problem := control.link_problem(link_texts):
        raise Said(problem)
    if isinstance(control, MultiChoice):
        return control.kept(link_texts), control.numbers(link_texts)
    value = (
        tuple(int(float(text)) for text in link_texts)
        if len(link_texts) > 1
        else control.of_text(link_texts[0])
    )
    assert control.problem(value) == ""
    if value is not None and not isinstance(control, Choice):
        assert control.of_field(control.to_field(value)) == value
    if id(control) in OF_SPEC and not isinstance(control, Choice):
        SPEC.replace(**({control.field: control.to_field(value)} if value is not None else {}))
    return value


link_texts = st.one_of(
    texts,
    st.integers(-2, 10**4).map(str),
    st.floats().map(repr),
    st.sampled_from(["true", "False", "linear", "cosine", "latest", "trailing", "Edit"]),
)
PARSERS["parameter of a link"] = Parser(
    st.tuples(
        st.integers(0, len(CONTROLS) - 1),
        st.lists(link_texts, min_size=1, max_size=3),
    ),
    read_link,
    few=60,
    longest=1200,
    many=15000,
)


def read_mask(text: Any, _: Path) -> None:
    mask = decode(text, 16)
    assert mask.shape == (16, 16) and mask.dtype == bool


PARSERS["painted mask"] = Parser(
    st.one_of(texts, st.none(), st.integers(), st.binary(max_size=40).map(lambda b: b.hex())),
    read_mask,
    many=2000,
)


def read_drawing(text: Any, _: Path) -> None:
    image = drawing.decode(text)
    assert image is None or (image.shape == (128, 128, 3) and image.dtype == np.uint8)


# Of the right length as well; a colour's number in each half of a byte.
whole = st.integers(0, 255).map(lambda byte: base64.b64encode(bytes([byte]) * 8192).decode())
PARSERS["drawing"] = Parser(
    st.one_of(texts, st.none(), st.integers(), whole), read_drawing, many=2000
)
