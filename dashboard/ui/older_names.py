"""What earlier versions wrote into links and image files, and how it is called now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

WAYS = {"as the lecture does": "lecture"}
# By the key of the control. Keys themselves have never changed.
NOW_CALLED: dict[str, dict[str, str]] = {
    "mode": {
        "Draw": "Generate",
        "From a picture": "Edit",
        "Between two": "Interpolate",
        "Side by side": "Compare",
        "Many": "Batch",
    },
    "edit": {"Invert and back": "Invert"},
    "from": {"drawn before": "generated"},
    "fit": {"fit": "pad", "stretch": "squash"},
    "show": {"the noisy x_t": "noisy x_t", "the predicted x_0": "predicted x_0"},
    "way": WAYS,
    "vs_way": WAYS,
}


def now_called(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values of controls by their keys, as they are called today; of any origin and type."""

    def new(key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [new(key, each) for each in value]
        return NOW_CALLED.get(key, {}).get(value, value) if isinstance(value, str) else value

    return {key: new(key, value) for key, value in settings.items()}


def update_address() -> None:
    """Rewrite the values in the page's address that have another name now, then rerun the page.

    Call it before the widgets are made: they take their values from the address. A control that is
    in the session already is not touched; it owns its part of the address.
    """
    given = {
        key: st.query_params.get_all(key)
        for key in NOW_CALLED
        if key in st.query_params and key not in st.session_state
    }
    if (new := now_called(given)) != given:
        st.query_params.update(new)
        st.rerun()
