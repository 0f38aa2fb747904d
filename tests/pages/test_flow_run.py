"""A run that learned a flow opens on every page that shows runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages.app import open_page, seen
from tests.tiny_runs import tiny, write_run

FLOW = tiny(prediction_type="flow_prediction", schedule={"timesteps": 20})


@pytest.mark.parametrize(
    ("file", "settings", "sentence"),
    [
        ("unet.py", {"network": "run mine"}, "trained to predict the direction"),
        ("embedding.py", {"run": "mine", "view": "Time MLP"}, "preset small, T = 20."),
        ("embedding.py", {"run": "mine", "view": "Blocks"}, "preset small, T = 20."),
        ("training.py", {"run": "mine"}, "mine has finished."),
        ("sampling.py", {"run": "mine"}, ""),
    ],
)
def test_a_flow_run_opens(
    file: str, settings: dict[str, str], sentence: str, runs_dir: Path
) -> None:
    write_run(runs_dir, "mine", 4, config=FLOW)
    app = open_page(file, **settings)
    assert not app.exception
    assert not app.error
    shown = [*app.caption, *app.markdown]
    assert any(sentence in seen(element.value) for element in shown)
