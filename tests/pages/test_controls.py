"""The controls that the pages declare, apart from what one page makes of them."""

from __future__ import annotations

import math

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.ui import keys

HUGE = "9" * 5000
# What a link may say of a number, a text or an option that is none.
ODD = [
    HUGE,
    f"-{HUGE}",
    "1e400",
    "-1e400",
    "inf",
    "-Infinity",
    "nan",
    "٣",
    "1_0",
    "0x10",
    "\x00",
    "a\nb",
    "\u202e![x](http://x.example/y.png)",
    "x" * 30_000,
    "[1, 2]",
    ["3", "4"],
    ["x"] * 50,
]


def page() -> None:
    import streamlit as st

    from dashboard.ui.controls import Choice, MultiChoice, Number, Range, Text, Toggle

    controls = [
        Choice(key="side", label="Side", options=("left", "right"), segmented=True),
        Choice(key="size", label="Size", options=(16, 32)),
        Number(key="whole", label="Whole", low=1, high=99, default=7),
        Number(key="slider", label="Slider", low=1, high=99, default=7, slider=True),
        Number(key="real", label="Real", low=0.0, high=1.0, default=0.5),
        Number(key="empty", label="Empty", low=1, high=99, optional=True),
        Range(key="range", label="Range", low=0, high=9),
        Toggle(key="toggle", label="Toggle"),
        Text(key="text", label="Text", longest=20),
        MultiChoice(
            key="some",
            label="Some",
            one=Number(key="", label="", low=1, high=9),
            options=(1, 2),
            most=2,
            typed=True,
        ),
        MultiChoice(
            key="pills",
            label="Pills",
            one=Text(key="", label=""),
            options=("a", "b"),
            most=2,
            pills=True,
        ),
    ]
    st.session_state["values"] = {control.key: control.ask() for control in controls}


DEFAULTS = {
    "side": "left",
    "size": 16,
    "whole": 7,
    "slider": 7,
    "real": 0.5,
    "empty": None,
    "range": (0, 9),
    "toggle": False,
    "text": "",
    "some": [],
    "pills": [],
}


def opened(**link: str | list[str]) -> tuple[dict, list[str]]:
    """The values of the controls, and what is left out of the link."""
    app = AppTest.from_function(page)
    app.query_params.update(link)
    app.run()
    assert not app.exception
    left_out = app.session_state[keys.LEFT_OUT] if keys.LEFT_OUT in app.session_state else []  # noqa: SIM401
    return app.session_state["values"], left_out


def test_a_link_sets_every_control() -> None:
    link: dict[str, str | list[str]] = {
        "side": "right",
        "size": "32",
        "whole": "3.0",
        "slider": "1e1",
        "real": "0.25",
        "empty": "4",
        "range": ["2", "5"],
        "toggle": "True",
        "text": "a b ü",
        "some": ["2", "9"],
        "pills": ["b"],
    }
    values, left_out = opened(**link)
    assert left_out == []
    expected = ["right", 32, 3, 10, 0.25, 4, (2, 5), True, "a b ü", [2, "9"], ["b"]]
    assert list(values.values()) == expected


@pytest.mark.parametrize("odd", ODD, ids=[repr(odd)[:12] for odd in ODD])
def test_what_a_control_cannot_take_is_left_out_of_a_link_and_named(odd: str | list[str]) -> None:
    values, left_out = opened(**dict.fromkeys(DEFAULTS, odd))
    takes: dict = {"range": (3, 4), "some": odd} if odd == ["3", "4"] else {}
    if isinstance(odd, str) and len(odd) <= 20 and odd.isprintable():  # it is a text
        takes = {"text": odd}
    assert values == DEFAULTS | takes
    assert len(left_out) == len(DEFAULTS) - len(takes)
    assert all(len(sentence) < 160 for sentence in left_out)


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [
        ("side", "up", "Side is 'up'; it must be one of left, right."),
        ("size", "77", "Size is '77'; it must be one of 16, 32."),
        ("whole", "100", "Whole is 100; it must be from 1 to 99."),
        ("whole", "2.5", "Whole is 2.5; it must be a whole number from 1 to 99."),
        ("whole", "", "Whole is ''; it must be a whole number from 1 to 99."),
        ("slider", HUGE, f"Slider is '{'9' * 39}…'; it must be a whole number from 1 to 99."),
        (
            "range",
            ["7", "x"],
            "Range is 7 and 'x'; it must be two whole numbers from 0 to 9, the smaller one first.",
        ),
        ("real", "1e400", "Real is inf; it must be from 0 to 1."),
        ("real", "-1", "Real is -1.0; it must be from 0 to 1."),
        ("toggle", "yes", "Toggle is 'yes'; it must be true or false."),
        ("text", "x" * 21, "Text must be text of at most 20 characters."),
        ("text", "a\tb", "Text must be text without line breaks and control characters."),
        ("some", ["1", "12"], "Some is 12; it must be from 1 to 9."),
        ("pills", "c", "Pills is 'c'; it must be one of a, b."),
        ("whole", ["1", "2"], "Whole is given 2 times."),
    ],
)
def test_the_sentence_names_the_control_the_value_and_the_range(
    key: str, text: str | list[str], sentence: str
) -> None:
    values, left_out = opened(**{key: text})
    assert left_out == [sentence]
    assert values == DEFAULTS


def test_minus_zero_is_zero() -> None:
    values, left_out = opened(real="-0", whole="-0")
    assert (values["real"], values["whole"]) == (0, 7)
    assert math.copysign(1, values["real"]) == 1
    assert left_out == ["Whole is 0; it must be from 1 to 99."]


def test_what_is_left_out_is_gone_from_the_address_and_all_else_stays() -> None:
    app = AppTest.from_function(page)
    app.query_params.update(whole="x" * 100_000, slider="inf", real="0.25")
    app.run()
    assert dict(app.query_params) == {"real": "0.25"}


def test_a_select_box_that_cannot_be_empty_does_not_say_required() -> None:
    app = AppTest.from_function(page).run()
    assert not any(box.proto.required for box in app.selectbox)


def following_page() -> None:
    import streamlit as st

    from dashboard.ui.controls import Choice, Number

    kind = Choice(key="kind", label="Kind", options=("few", "many")).ask()
    steps = {"few": 20, "many": 300}[kind]
    spacing = {"few": "even", "many": "dense"}[kind]
    controls = [
        Number(key="steps", label="Steps", low=1, high=500, default=steps, follows=True),
        Choice(
            key="spacing",
            label="Spacing",
            options=("even", "dense", "none"),
            default=spacing,
            follows=True,
        ),
    ]
    st.session_state["values"] = [control.ask() for control in controls]


def test_a_default_follows_until_another_value_is_set_and_again_after_a_reset() -> None:
    app = AppTest.from_function(following_page).run()
    assert app.session_state["values"] == [20, "even"]
    app.selectbox(key="kind").select("many").run()
    assert app.session_state["values"] == [300, "dense"]
    assert not app.button
    app.number_input(key="steps").set_value(7).run()
    app.selectbox(key="kind").select("few").run()
    assert app.session_state["values"] == [7, "even"]
    [reset] = app.button
    assert reset.label == "Reset to default"
    reset.click().run()
    assert app.session_state["values"] == [20, "even"]
    assert not app.button
    app.selectbox(key="spacing").select("none").run()
    app.selectbox(key="kind").select("many").run()
    assert app.session_state["values"] == [300, "none"]


@pytest.mark.parametrize(
    ("link", "values", "resets"),
    [
        ({}, [20, "even"], 0),
        ({"kind": "many"}, [300, "dense"], 0),
        ({"kind": "many", "steps": "300"}, [300, "dense"], 0),
        ({"kind": "many", "steps": "20", "spacing": "even"}, [20, "even"], 2),
    ],
)
def test_a_link_that_leaves_a_value_out_means_the_default(
    link: dict[str, str], values: list, resets: int
) -> None:
    app = AppTest.from_function(following_page)
    app.query_params.update(link)
    app.run()
    assert app.session_state["values"] == values
    assert len(app.button) == resets
