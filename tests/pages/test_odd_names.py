"""Every page with a run whose every text is one that Streamlit would make something else of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.pages.app import open_page
from tests.pages.ui.test_outside import outside_code
from tests.tiny_runs import TINY, set_running, write_run

NAME = "![x](y) $a$ :smile: <b>q **w** :red[z] `c`"
PARTS = ("![x", "](y", "$a$", ":smile:", "<b>", "**w", ":red[")


def markdown_of(app: AppTest) -> Iterator[str]:
    """Everything on the page that the browser reads as Markdown."""
    for element in app:
        proto = getattr(element, "proto", None)
        if hasattr(proto, "ListFields"):
            yield from texts_of(proto)


def texts_of(proto: Any) -> Iterator[str]:
    """The texts of a message that are Markdown, by the names of their fields."""
    kind = proto.DESCRIPTOR.name
    for field, value in proto.ListFields():
        if field.name in ("body", "label", "help", "caption", "text") or (
            kind in ("ButtonGroup", "Radio") and field.name in ("options", "content")
        ):
            for each in [value] if isinstance(value, str) else value:
                if isinstance(each, str) and kind not in ("Code", "Json"):
                    yield each
        if field.type == field.TYPE_MESSAGE:
            for each in value if field.is_repeated else [value]:
                if hasattr(each, "ListFields"):
                    yield from texts_of(each)


@pytest.fixture
def odd_run(runs_dir: Path) -> Path:
    """A run of that name, with it in its settings, messages, classes and checkpoints."""
    config = TINY.replace(data=f"folder:/{NAME}", preset=NAME)
    run = write_run(runs_dir, NAME, 20, config=config, state="failed", error=NAME, warning=NAME)
    (run / "weights" / "step-00000030.safetensors").write_bytes(b"no weights")
    write_run(runs_dir, "second", 20, created=1.0)
    result = run / "quality"
    result.mkdir()
    (result / f"{NAME}.json").write_text(json.dumps({"spec": NAME}))
    return run


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("training.py", {"run": NAME}),
        ("training.py", {"run": NAME, "compare": "second", "more": "Quality"}),
        ("training.py", {"run": "second", "preset": f"run {NAME}"}),
        ("training.py", {"run": f"no {NAME}"}),
        ("sampling.py", {"run": NAME}),
        ("sampling.py", {"run": NAME, "mode": "Edit"}),
        ("sampling.py", {"run": NAME, "mode": "Compare", "vs_run": [NAME, "second"]}),
        ("embedding.py", {"run": NAME, "view": "Time MLP"}),
        ("embedding.py", {"run": NAME, "view": "Blocks"}),
        ("unet.py", {"network": f"run {NAME}"}),
        ("unet.py", {"size": NAME, "network": NAME}),
        ("noising.py", {"data": f"folder:/{NAME}"}),
        ("schedule.py", {"kinds": NAME, "T": NAME}),
    ],
)
def test_it_is_nowhere_read_as_markdown(file: str, settings: dict[str, Any], odd_run: Path) -> None:
    assert_nowhere_markdown(file, settings)


@pytest.mark.parametrize("state", ["running", "queued", "finished"])
def test_the_run_on_home_is_nowhere_read_as_markdown(state: str, runs_dir: Path) -> None:
    run = write_run(runs_dir, NAME, state=state, step=90, device="cpu", queued_at=1.0)
    if state == "running":
        set_running(run)
    write_run(runs_dir, "second", 20, created=1.0)
    for file in ("home.py", "training.py", "sampling.py"):
        assert_nowhere_markdown(file, {})


def assert_nowhere_markdown(file: str, settings: dict[str, Any]) -> None:
    app = open_page(file, **settings)
    texts = list(markdown_of(app))
    assert any(PARTS[0] in text for text in texts) or file in ("sampling.py", "unet.py")
    for text in texts:
        left = outside_code(text)
        assert not [part for part in PARTS if part in left], text
