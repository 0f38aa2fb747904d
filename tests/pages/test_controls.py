"""The controls that the pages declare, apart from what one page makes of them."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest


def page() -> None:
    import streamlit as st

    from dashboard.ui.controls import Choice

    st.write(Choice(key="side", label="Side", options=("left", "right"), segmented=True).ask())
    st.write(Choice(key="size", label="Size", options=(16, 32)).ask())


@pytest.mark.parametrize(
    ("side", "size", "expected"),
    [("right", "32", ["right", "32"]), ("", "", ["left", "16"]), ("up", "77", ["left", "16"])],
    ids=["chosen", "empty", "unknown"],
)
def test_a_link_chooses_an_option_or_leaves_the_first(
    side: str, size: str, expected: list[str]
) -> None:
    app = AppTest.from_function(page)
    app.query_params["side"], app.query_params["size"] = side, size
    app.run()
    assert not app.exception
    assert [text.value.strip("`") for text in app.markdown] == expected


def test_a_select_box_that_cannot_be_empty_does_not_say_required() -> None:
    app = AppTest.from_function(page).run()
    [box] = app.selectbox
    assert not box.proto.required
