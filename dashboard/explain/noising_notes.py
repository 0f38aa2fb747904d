"""The Noising page's notes on tensors: short pieces of code with what Python answers to them."""

from __future__ import annotations

import ast
from dataclasses import dataclass

import streamlit as st
import torch


@dataclass(frozen=True)
class Note:
    """A title, what to see, and code of ours, which is run line by line."""

    title: str
    text: str
    code: str


NOTES = (
    Note(
        "`...` and `None`",
        "`...` stands for all dimensions that are not written, `None` adds one of length 1. So "
        "`[..., None, None]` turns (B, C) into (B, C, 1, 1), which broadcasts over pixels: a block "
        "of the U-Net adds the timestep's embedding to its features like this. Without it the "
        "shapes are compared from the right and do not fit.",
        """\
time = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # 2 images, 3 channels
time[..., None, None].shape
time[:, :, None, None].shape
time[None].shape
features = torch.zeros(2, 3, 4, 4)
(features + time[..., None, None])[:, :, 0, 0]
features + time
""",
    ),
    Note(
        "`torch.full`",
        "A tensor of one value. Sampling noises or denoises the whole batch at one t, and the "
        "network wants one t per image: `torch.full((B,), t)`. The type follows from the value: 30 "
        "gives integers, 30.0 gives floats, with which a table cannot be read.",
        """\
torch.full((4,), 30)
table = torch.linspace(1, 0, 300)
table[torch.full((4,), 30)]
torch.full((4,), 30.0)
table[torch.full((4,), 30.0)]
""",
    ),
    Note(
        "`torch.tensor`",
        "A tensor of the given values, with one dimension per level of brackets. "
        "`torch.tensor(30)` has none, so it picks a number and not a batch of one. "
        "`torch.Tensor`, with a capital T, always gives floats.",
        """\
torch.tensor([0, 30, 60])
torch.tensor(30).shape
torch.tensor([30]).shape
table = torch.linspace(1, 0, 300)
table[torch.tensor(30)].shape
table[torch.tensor([30])].shape
torch.Tensor([0, 30, 60])
""",
    ),
)


def show_notes() -> None:
    """Each note with its code and the output of that."""
    for note in NOTES:
        st.markdown(f"**{note.title}**")
        st.markdown(note.text)
        st.code(session(note.code), wrap_lines=True)


@st.cache_data(show_spinner=False)
def session(code: str) -> str:
    """Code of NOTES as a Python session: each statement, and the value or the error it gives."""
    names: dict[str, object] = {"torch": torch}
    lines = []
    for statement in ast.parse(code).body:
        source = code.splitlines()[statement.lineno - 1]
        lines.append(f">>> {source}")
        try:
            if isinstance(statement, ast.Expr):
                lines.append(repr(eval(source, names)))
            else:
                exec(source, names)
        except (RuntimeError, IndexError) as error:
            lines.append(f"{type(error).__name__}: {error}")
    return "\n".join(lines)
