"""The whole app without a browser, opened at one of its pages, and what it says."""

from __future__ import annotations

import json
from typing import Any

from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Button

from dashboard.services.sampling_job import SamplingJob
from dashboard.ui.navigation import FOLDER

SOON = 60.0  # seconds, on a busy machine
SHELL = FOLDER.parent / "dashboard" / "shell.py"


def open_page(file: str, **settings: object) -> AppTest:
    """The page in `pages/<file>` after its first run, with these settings in its URL."""
    app = AppTest.from_file(str(SHELL), default_timeout=60).run()  # now it knows its pages
    for name, value in settings.items():
        app.query_params[name] = value if isinstance(value, list) else str(value)
    app.switch_page(str(FOLDER / file)).run()
    assert not app.exception
    return app


def button(app: AppTest, label: str) -> Button:
    [found] = [each for each in app.button if each.label == label]
    return found


def buttons(app: AppTest) -> list[str]:
    """The labels of all buttons."""
    return [each.label for each in app.button]


def press(app: AppTest, label: str) -> AppTest:
    button(app, label).click().run()
    assert not app.exception
    return app


def generate(app: AppTest, label: str = "Generate", key: str = "generate") -> SamplingJob:
    """Press a button that submits a job, and wait until that of mode `key` is over and shown."""
    job = press(app, label).session_state["jobs"][key]
    assert job.wait(SOON)
    app.run()
    assert not app.exception
    return job


def component_data(app: AppTest, name: str, key: str = "") -> dict[str, Any]:
    """What the browser is told of the one component of that name, or of that name and key."""
    [found] = [
        each.proto
        for each in app.get("bidi_component")
        if each.proto.component_name == name and each.proto.id.endswith(key)
    ]
    return json.loads(found.json)


def figures(app: AppTest) -> list[dict[str, Any]]:
    """What the browser is told of each figure."""
    found = (each.proto for each in app.get("bidi_component"))
    return [json.loads(each.json) for each in found if each.component_name == "chart"]


def words(app: AppTest) -> str:
    """All texts of the page, as a reader sees them."""
    shown = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.success]
    return "\n".join(seen(element.value) for element in shown)


def seen(markdown: str) -> str:
    """A text as a reader sees it: without the marks of code and of bold words."""
    return markdown.replace("`", "").replace("**", "")
