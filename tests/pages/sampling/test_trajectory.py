"""Below generated images: what the flipbook is told, the films, and where the image was decided."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.components.flipbook import flipbook
from dashboard.components.flipbook.flipbook import Book, Histogram, pack
from dashboard.sampling.decided import stochastic
from dashboard.sampling.trajectory import BOTH, X_0, X_T, film_of
from diffusion_core.sampling.branching import Parting
from diffusion_core.sampling.spec import SamplingSpec
from tests.pages.app import component_data, figures, generate, open_page, press, words
from tests.tiny_runs import TINY, write_run


def book_data(app: AppTest) -> dict[str, Any]:
    return component_data(app, "flipbook")


def pixels(address: str) -> np.ndarray:
    data = base64.b64decode(address.removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def book(frames: int, images: int, side: int) -> Book:
    shape = (frames, images, side, side, 3)
    return Book(
        {"above": noise(*shape), "below": 255 - noise(*shape)},
        [f"frame {k}" for k in range(frames)],
        [str(k + 1) for k in range(images)],
        {"size": np.arange(frames * images, dtype=float).reshape(frames, images)},
        Histogram(
            "values",
            np.linspace(-4, 4, 9),
            np.arange(8 * frames * images).reshape(frames, images, 8),
        ),
    )


# ---------------------------------------------------------------- what the browser is told


def test_the_browser_gets_every_pixel_of_every_frame_in_one_sheet_a_row() -> None:
    made = book(5, 2, 4)
    sent = pack(made)
    assert (sent.first, sent.images, sent.frames) == (0, 2, 5)
    for k in range(2):
        for row, frames in enumerate(made.rows.values()):
            whole = pixels(sent.data["sheets"][k][row])
            assert whole.shape == (2 * 4, 3 * 4, 3)
            for n in range(5):
                y, x = 4 * (n // 3), 4 * (n % 3)
                assert np.array_equal(whole[y : y + 4, x : x + 4], frames[n, k])
    assert sent.data["numbers"] == {"size": [[2.0 * n, 2.0 * n + 1] for n in range(5)]}
    density = np.array(sent.data["histogram"]["density"])
    assert density.shape == (5, 2, 8)
    assert density.sum(axis=-1) == pytest.approx(1.0, rel=1e-3)  # bars are 1 wide
    unknown = replace(made, numbers={"size": np.full((5, 2), np.nan)}, histogram=None)
    assert json.loads(json.dumps(pack(unknown).data))["numbers"]["size"][0] == [None, None]


def test_no_more_is_sent_than_the_bound_and_the_chosen_image_is_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = book(10, 8, 16)
    one = 2 * 10 * 16 * 16 * 3
    monkeypatch.setattr(flipbook, "MOST_BYTES", 3 * one)
    whole = [pack(made, image) for image in range(8)]
    assert [(sent.first, sent.images) for sent in whole] == [(0, 3)] * 3 + [(3, 3)] * 3 + [
        (6, 2)
    ] * 2
    assert whole[4].data["names"] == ["4", "5", "6"]
    # What cannot be made smaller grows by a few bytes of headers at the most.
    assert all(sent.bytes < 1.05 * 3 * one for sent in whole)
    monkeypatch.setattr(flipbook, "MOST_BYTES", one // 2)
    large = pack(made, 7)
    assert (large.first, large.images, large.frames) == (7, 1, 5)
    assert large.data["captions"] == [f"frame {k}" for k in (0, 2, 4, 7, 9)]


def test_the_way_of_an_image_is_shown_from_its_noise_to_its_image(runs_dir: Path) -> None:
    write_run(runs_dir, "tiny", 20)
    app = open_page("sampling.py", n=3, steps=5, picture=2)
    job = generate(app, "Generate", "generate")
    data = book_data(app)
    assert data["rows"] == [X_T, X_0] and data["image"] == 2
    assert data["names"] == ["1, van", "2, bus", "3, coupé"]
    assert data["captions"][0] == "step 1 of 5, t = 19"
    walk = job.result.trajectory
    assert np.array_equal(pixels(data["sheets"][1][0])[16:32, 16:32], walk.x_t[4, 1])
    assert np.array_equal(walk.x_t[4, 1], job.result.images[1])
    assert data["numbers"]["change of the predicted x_0"][0] == [None] * 3
    assert film_of(walk, 0, X_T, None).shape == (5, 16, 16, 3)
    assert film_of(walk, 0, BOTH, None).shape == (5, 16, 32, 3)
    assert np.array_equal(film_of(walk, None, X_0, 3)[:, :, 16:32], walk.x_0[:, 1])
    app.number_input(key="picture").set_value(3).run()
    assert book_data(app)["image"] == 3
    assert not figures(app)  # the figures are made when they are looked at
    app.session_state["numbers"] = True
    app.run()
    assert [
        json.loads(figure["figure"])["layout"]["yaxis"]["title"]["text"] for figure in figures(app)
    ] == ["change in a step", "root mean square of ε"]


def test_of_an_image_whose_way_is_not_kept_that_is_said(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusion_core.sampling.trajectory.MOST_IMAGES", 2)
    write_run(runs_dir, "tiny", 20)
    app = open_page("sampling.py", n=3, steps=2, picture=3)
    generate(app, "Generate", "generate")
    assert "The steps are kept for the first 2 images only; choose one" in words(app)
    assert [each.proto.component_name for each in app.get("bidi_component")] == ["gallery"]
    app.number_input(key="picture").set_value(2).run()
    assert "Images 1 to 2 of 3, every step" in words(app)


# ---------------------------------------------------------------- where the image is decided


def test_a_sampler_without_noise_is_asked_by_ddim_and_a_flow_not_at_all() -> None:
    plain = SamplingSpec(run="tiny", step=20, sampler="unipc")
    assert stochastic(plain) == plain.replace(sampler="ddim", eta=1.0)
    for sampler in ("ddpm", "euler_ancestral", "dpmpp_2m_sde"):
        noisy = plain.replace(sampler=sampler)
        assert stochastic(noisy) is noisy
    assert stochastic(plain.replace(sampler="heun", flow=True)) is None


def test_where_an_image_is_decided_is_found_out_and_shown(runs_dir: Path) -> None:
    write_run(runs_dir, "tiny", 20)
    app = open_page("sampling.py", n=2, steps=4, picture=2)
    generate(app, "Generate", "generate")
    assert "DPM-Solver++ 2M adds no noise in its steps: the start $x_T$ decides" in words(app)
    job = generate(app, "Find out with DDIM, η = 1", "decided")
    found: list[Parting] = job.result
    assert [one.shared for one in found] == [0, 1, 2, 3]
    assert job.task.steps == 4 * 4 and job.task.evaluations == 4 * 4 * 8
    assert found[0].variance > found[2].variance > 0
    shown = words(app)
    assert "tiny at step 20: image 2 in 8 branches from each of 4 timesteps, ddim" in shown
    assert "η 1, bus" in shown
    assert "With $x_T$ alone shared, " in shown
    captions = [image.caption for element in app.get("image") for image in element.proto.imgs]
    assert captions[-4:] == ["no shared noise", "t 19", "t 14", "t 9"]
    app.number_input(key="picture").set_value(1).run()
    assert "image 2 in 8 branches" not in words(app)  # of another image than the one above


def test_branches_that_do_not_differ_at_all_are_said(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs_dir, "tiny", 20)
    app = open_page("sampling.py", n=1, steps=3)
    generate(app, "Generate", "generate")
    black = np.zeros((8, 16, 16, 3), np.uint8)
    same = [
        Parting(k, 19.0 if k else None, 0.0, black[0], np.zeros((16, 16)), black) for k in (0, 1)
    ]
    monkeypatch.setattr("dashboard.sampling.decided.branch", lambda *_: same)
    generate(app, "Find out with DDIM, η = 1", "decided")
    assert "All branches are the same image" in "".join(info.value for info in app.info)


def test_a_checkpoint_that_is_gone_is_said_instead(runs_dir: Path) -> None:
    run = write_run(runs_dir, "tiny", 20, 40)
    app = open_page("sampling.py", n=1, steps=2, step=20, sampler="ddpm")
    generate(app, "Generate", "generate")
    (run / "weights" / "step-00000020.safetensors").unlink()
    press(app, "Find out")
    assert "The checkpoint of tiny at step 20 no longer exists." in words(app)


def test_a_flow_says_that_its_start_decides(runs_dir: Path) -> None:
    write_run(runs_dir, "flow", 20, config=TINY.replace(prediction_type="flow_prediction"))
    app = open_page("sampling.py", n=1, steps=2)
    generate(app, "Generate", "generate")
    assert "No sampler for flows adds any." in words(app)
    assert not [b for b in app.button if b.label.startswith("Find out")]
