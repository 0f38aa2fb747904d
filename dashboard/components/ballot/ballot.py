"""Images of which one is chosen by a key, a click or a finger, without a word about what they are.

The browser gets the images themselves and their numbers, and no name, file or address.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st

from dashboard.components.assemble import component

HTML = """
<div class="ballot">
  <label><span role="status"></span><progress></progress></label>
  <div class="images" role="group" aria-label="Images to choose from"></div>
  <div class="bar">
    <button type="button" class="back">← Back</button>
    <button type="button" class="skip">Skip</button>
  </div>
</div>
"""


def show_ballot(
    images: Sequence[bytes],
    question: str,
    at: tuple[int, int],
    chosen: int | None,
    can_go_back: bool,
    key: str,
    on_answer: Callable[[str, int], None],
) -> None:
    """`images`: PNG files in their order. `question`: differs for each question that is shown.
    `at`: its number, from 1, and of how many. `chosen`: the place of the image that was chosen
    before.

    `on_answer` is told the question and the place of an image, from 0, or BACK or SKIP: as numbers
    from outside.
    """

    def answered() -> None:
        answer = st.session_state[key].get("answer")
        if isinstance(answer, dict):
            asked, place = answer.get("question"), answer.get("place")
            if isinstance(asked, str) and type(place) is int:
                on_answer(asked, place)

    data = {
        "images": [f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in images],
        "question": question,
        "at": at,
        "chosen": chosen,
        "back": can_go_back,
    }
    component(Path(__file__), HTML)(key=key, data=data, on_answer_change=answered)


BACK, SKIP = -1, -2
