"""One record adds a sampler everywhere; links of earlier versions open what they meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest

from dashboard.sampling.sharing import link
from diffusion_core.sampling import registry
from diffusion_core.sampling.registry import sampler_of
from tests.pages.app import button, buttons, generate, open_page, words
from tests.pages.sampling.test_restore import drop, image_of
from tests.tiny_runs import TINY, tiny, write_run


def test_a_sampler_that_is_added_is_chosen_linked_and_restored(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs_dir, "cars", 20)
    mine = replace(
        sampler_of("ddim"), name="mine", title="My own", formula=r"x_s = \mathrm{mine}(x_t)"
    )
    monkeypatch.setattr(registry, "REGISTRY", [*registry.REGISTRY, mine])
    app = open_page("sampling.py", n=2, steps=3)
    assert app.selectbox(key="sampler").options[-1] == "mine"
    app.selectbox(key="sampler").set_value("mine").run()
    [formula] = [each.value for each in app.latex]
    assert r"x_s = \mathrm{mine}(x_t)" in formula
    assert "Formula: My own" in [each.label for each in app.expander]
    app.slider(key="eta").set_value(0.5).run()  # an option that its record has
    job = generate(app, "Generate", "generate")
    assert (job.spec.sampler, job.spec.eta) == ("mine", 0.5)
    assert "cars at step 20: 2 images, mine, 3 steps" in words(app)
    parameters = parse_qs(link(job.spec).partition("?")[2])
    again = open_page("sampling.py", **parameters)
    assert generate(again, "Generate", "generate").spec == job.spec
    restored = drop(open_page("sampling.py"), image_of(job.spec))
    found = generate(restored, "Generate", "generate")
    assert found.spec == job.spec
    assert np.array_equal(found.result.images, job.result.images)


OLD_MODES = [
    ({"mode": "Draw", "way": "correct"}, "Generate", "Generate"),
    ({"mode": "From a picture", "edit": "Invert and back"}, "Edit", "Invert and reconstruct"),
    ({"mode": "From a picture", "from": "drawn before"}, "Edit", "Vary"),
    ({"mode": "Between two"}, "Interpolate", "Generate film"),
    ({"mode": "Side by side", "vs_seed": ["1", "2"]}, "Compare", "Generate 2 rows"),
    ({"mode": "Many"}, "Batch", "Generate in background"),
]


@pytest.mark.parametrize(("settings", "mode", "label"), OLD_MODES)
def test_a_link_of_an_earlier_version_opens_its_mode(
    runs_dir: Path, settings: dict[str, object], mode: str, label: str
) -> None:
    write_run(runs_dir, "cars", 20, config=tiny(network_args=TINY.network_args))
    app = open_page("sampling.py", **settings)
    assert app.session_state["mode"] == mode
    assert label in buttons(app)
    if "from" in settings:
        assert app.session_state["from"] == "generated"
    # The visitor can leave it: the address does not bring the old mode back.
    other = "Generate" if mode != "Generate" else "Edit"
    app.segmented_control(key="mode").set_value(other).run()
    assert not app.exception
    assert app.session_state["mode"] == other


def test_a_request_that_the_checkpoint_cannot_do_is_refused_with_the_sentence_of_the_core(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "cars", 20)
    write_run(runs_dir, "nodrop", 30, config=TINY.replace(label_dropout=0.0))
    app = open_page(
        "sampling.py",
        mode="Compare",
        run="cars",
        label="bus",
        vs_run=["cars", "nodrop"],
        vs_guidance="4.0",
    )
    assert "was trained with the class always given" in words(app)
    assert button(app, "Generate comparison").disabled
