"""Sampling from an image and between two: what is generated, what is said, what the files carry."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.components.mask import mask
from dashboard.sampling import edit_controls
from dashboard.sampling.edit import Edited, edit_task, inversion_spec
from dashboard.sampling.edit_controls import Edit, Given, area_of, fit
from dashboard.sampling.interpolate import End, Interpolation, film_task, sample_frames
from diffusion_core.media.images import png, to_uint8
from diffusion_core.process.noising import image_to_x_0
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel, load_model
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.runs.run import Run
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.edits import image_errors
from diffusion_core.sampling.metadata import Kind, entries, read
from diffusion_core.sampling.spec import ANY_CLASS, EACH_IN_TURN, SamplingSpec
from tests import image_files
from tests.pages.app import button, component_data, generate, open_page, words
from tests.tiny_runs import CLASSES, TINY, tiny, write_run

FLOW = tiny(
    network_args={"widths": [8], "blocks": 1, "attention_levels": [0]},
    prediction_type="flow_prediction",
    schedule={"timesteps": 20},
)


@pytest.fixture
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "tiny", 40, config=tiny(network_args=TINY.network_args))


def checkpoint_of(run: Path) -> Checkpoint:
    checkpoint = Run(run).latest_checkpoint()
    assert checkpoint is not None
    return checkpoint


def load_exact(
    checkpoint: Checkpoint, average: str = MAIN_AVERAGE, exact: bool = True
) -> LoadedModel:
    return load_model(checkpoint, "cpu", average, exact=True)


def loaded_of(run: Path) -> LoadedModel:
    return load_exact(checkpoint_of(run))


def given_of(config: RunConfig) -> Given:
    side = np.linspace(0, 255, config.image_size).astype(np.uint8)
    image = np.stack([np.add.outer(side // 2, side // 2)] * config.channels, axis=-1)
    return Given(image.astype(np.uint8), "a slope", {})


def open_mode(mode: str, **settings: object) -> AppTest:
    return open_page("sampling.py", mode=mode, steps=4, **settings)


def names(app: AppTest) -> list[str]:
    """Of the images of the result."""
    return [tile["name"] for tile in component_data(app, "gallery")["rows"][0]["tiles"]]


def test_variants_stand_beside_the_image_of_the_runs_own_data(run: Path) -> None:
    app = open_mode("Edit", label="van", variants=3, strength=0.5, example=7)
    assert "Takes the last 2 of 4 steps, from t = 9," in words(app)
    job = generate(app, "Vary", "edit")
    assert "image 7 of cars:48, variations of strength 0.5" in job.task.text
    assert job.task.evaluations == 3 * 2 and job.task.steps == 2
    assert names(app) == ["Original", *(f"Variant {k}, van" for k in (1, 2, 3))]
    assert job.result.images.shape == (3, 16, 16, 3)


def test_an_interval_that_guides_none_of_the_last_steps_is_refused(run: Path) -> None:
    asked = {"label": "van", "guidance": 2, "guided": ["12", "16"]}
    app = open_mode("Edit", strength=0.5, **asked)
    assert "where none of the last 2 steps is: their timesteps are 9, 4." in words(app)
    assert button(app, "Vary").disabled
    app = open_mode("Edit", strength=0.75, **asked)
    assert generate(app, "Vary", "edit").task.evaluations == 4 * (3 + 1)


def test_repainting_leaves_what_it_keeps_to_the_last_bit(run: Path) -> None:
    app = open_mode("Edit", edit="Repaint", area="left half", resample=2, variants=2)
    made: Edited = generate(app, "Repaint", "edit").result
    anew = area_of("left half", 16)
    kept = np.broadcast_to(made.given.image, made.images.shape)
    assert np.array_equal(made.images[:, ~anew], kept[:, ~anew])
    assert not np.array_equal(made.images[:, anew], kept[:, anew])


def test_without_a_mask_there_is_nothing_to_repaint(run: Path) -> None:
    app = open_mode("Edit", edit="Repaint")
    assert "Paint the area to repaint on the image" in words(app)
    assert button(app, "Repaint").disabled


def test_instead_of_a_method_that_remembers_another_repaints(run: Path) -> None:
    app = open_mode("Edit", edit="Repaint", area="centre", sampler="unipc")
    assert "UniPC cannot repaint, because its steps build on each other. DDIM is used instead." in (
        words(app)
    )
    assert generate(app, "Repaint", "edit").spec.sampler == "ddim"


def test_an_inversion_shows_noise_image_errors_and_numbers(run: Path) -> None:
    app = open_mode("Edit", edit="Invert")
    assert "DDIM without noise and guidance, 4 steps up and as many back for " in words(app)
    job = generate(app, "Invert and reconstruct", "edit")
    made: Edited = job.result
    assert job.task.steps == job.task.evaluations == 8
    assert names(app)[0] == "Original" and names(app)[2] == "Reconstruction"
    back, wanted = (image_to_x_0(p) for p in (made.images[0], made.given.image))
    assert made.rmse == pytest.approx(float(image_errors(back, wanted)[0]), abs=0.5)
    assert f"error is {made.rmse:.2f} of 255" in words(app)


def test_a_run_that_ends_in_pure_noise_says_why_it_cannot_be_inverted(runs_dir: Path) -> None:
    schedule = {"kind": "cosine", "timesteps": 20, "rescale_zero_terminal_snr": True}
    write_run(runs_dir, "pure", 40, config=tiny(schedule=schedule))
    app = open_mode("Edit", edit="Invert")
    assert "ends in pure noise (zero terminal SNR)" in words(app)
    assert button(app, "Invert and reconstruct").disabled


def test_before_anything_is_generated_the_page_asks_for_it(run: Path) -> None:
    app = open_mode("Edit", **{"from": "generated"})
    assert "Generate images first, in the mode Generate." in words(app)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (image_files.TEXT, "This is not a readable image"),
        (image_files.huge_png(10_000, 20_000), "far more than 50 megapixels"),
    ],
)
def test_a_file_that_is_no_usable_image_gets_one_sentence(
    run: Path, content: bytes, sentence: str
) -> None:
    app = open_mode("Edit", **{"from": "upload"})
    [field] = [f for f in app.file_uploader if f.key == "upload"]
    field.set_value(("image.png", content, "image/png")).run()
    assert sentence in words(app)
    assert button(app, "Vary").disabled


def test_data_that_is_not_here_gets_a_sentence(runs_dir: Path) -> None:
    write_run(runs_dir, "far", 40, config=tiny(data="folder:/nowhere/at/all"))
    app = open_mode("Edit")
    [error] = app.error
    assert "/nowhere/at/all" in error.value


@pytest.mark.parametrize("shape", [(16, 16, 3), (40, 24, 3), (16, 16, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_image_is_fitted_to_the_runs_size_and_channels(
    shape: tuple[int, int, int], channels: int
) -> None:
    fitted = fit(np.full(shape, 99, np.uint8), tiny(channels=channels))
    assert fitted.shape == (16, 16, channels)
    assert np.abs(fitted.astype(int) - 99).max() <= 1


def test_flows_are_varied_repainted_and_inverted_too(runs_dir: Path) -> None:
    checkpoint = checkpoint_of(write_run(runs_dir, "flow", 40, config=FLOW))
    can = Capabilities.of(checkpoint)
    spec = SamplingSpec(run="flow", step=40, n=2, sampler="euler", steps=10, flow=True)
    given, anew = given_of(FLOW), area_of("centre", 16)
    for edit in (
        Edit(edit_controls.VARY, strength=0.5),
        Edit(edit_controls.REPAINT, resample=2, area="centre", mask=anew),
        Edit(edit_controls.INVERT),
    ):
        own = inversion_spec(spec, can) if edit.kind == edit_controls.INVERT else spec
        task = edit_task(own, checkpoint, given, edit)
        seen: list[object] = []
        made: Any = task.work(load_exact, seen.append)
        assert made.images.dtype == np.uint8 and len(seen) == task.steps
    x_0 = image_to_x_0(given.image)
    far = np.abs(to_uint8(x_0)[0].astype(int) - made.images[0]).mean()
    assert far < 40  # an untrained network, and ten steps


@pytest.mark.parametrize("text", [None, 7, "?", base64.b64encode(b"abc").decode()])
def test_what_is_no_mask_of_this_size_is_an_empty_one(text: object) -> None:
    assert not mask.decode(text, 16).any()


def test_a_mask_comes_from_the_browser_bit_by_bit() -> None:
    wanted = np.random.default_rng(0).random((16, 16)) < 0.3
    text = base64.b64encode(np.packbits(wanted).tobytes()).decode()
    assert np.array_equal(mask.decode(text, 16), wanted)


def test_a_file_says_that_its_settings_alone_do_not_make_it() -> None:
    spec = SamplingSpec(run="tiny", step=40, n=1)
    page = {"mode": "Edit"} | Edit(edit_controls.VARY, strength=0.3).settings()
    file = png(np.zeros((4, 4, 3), np.uint8), text=entries(spec, kind=Kind.OTHER, page=page))
    made = read(file)
    assert (made.spec, made.mode) == (spec, "Edit")
    assert read(png(np.zeros((4, 4, 3), np.uint8), text=entries(spec))).mode == ""


# ---------------------------------------------------------------- between two


def test_a_film_is_of_one_class_and_begins_and_ends_with_what_generate_gives(run: Path) -> None:
    app = open_mode("Interpolate", frames=5, to_picture=3, label="van")
    made: Interpolation = generate(app, "Generate film", "interpolate").result
    assert made.frames.shape == (5, 16, 16, 3)
    loaded = loaded_of(run)
    spec = SamplingSpec(run="tiny", step=40, n=3, steps=4, classes=CLASSES, label="van")
    single = to_uint8(spec.make(loaded)).astype(int)
    # The page samples in bfloat16 where the hardware has it.
    assert np.abs(made.frames[0] - single[0]).max() <= 12
    assert np.abs(made.frames[-1] - single[2]).max() <= 12
    assert not np.array_equal(made.frames[0], made.frames[-1])


def test_each_class_in_turn_becomes_one_for_the_whole_film(run: Path) -> None:
    app = open_mode("Interpolate", frames=2)
    label = generate(app, "Generate film", "interpolate").spec.label
    config = tiny(network_args=TINY.network_args)
    assert label == (ANY_CLASS if config.label_dropout > 0 else CLASSES[0])
    assert label != EACH_IN_TURN


def test_the_same_image_at_both_ends_is_no_film(run: Path) -> None:
    app = open_mode("Interpolate", to_picture=1)
    assert "Both ends are the same image" in words(app)
    assert button(app, "Generate film").disabled


def test_methods_with_noise_give_all_frames_the_same(run: Path) -> None:
    app = open_mode("Interpolate", sampler="ddpm")
    assert "DDPM adds noise in its steps. All frames use the noise" in words(app)
    spec = SamplingSpec(
        run="tiny", step=40, n=3, sampler="ddpm", steps=4, classes=CLASSES, label="bus"
    )
    ends = (End(2, 5), End(2, 5))  # three frames from one start: only other noise could differ
    frames = sample_frames(spec, loaded_of(run), ends, lambda view: None)
    assert np.abs(to_uint8(frames[:1]).astype(int) - to_uint8(frames)).max() <= 1


def test_a_long_film_is_sampled_in_batches_with_the_same_frames(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = checkpoint_of(run)
    spec = SamplingSpec(
        run="tiny", step=40, n=5, sampler="ddpm", steps=4, classes=CLASSES, label="bus"
    )
    ends = (End(0, 1), End(1, 2))
    whole: Any = film_task(spec, checkpoint, ends).work(load_exact, lambda view: None)
    monkeypatch.setattr("dashboard.sampling.interpolate.max_images", lambda size: 2)
    task = film_task(spec, checkpoint, ends)
    seen: list[Any] = []
    parts: Any = task.work(load_exact, seen.append)
    assert len(seen) == task.steps == 3 * 4
    assert np.abs(whole.frames.astype(int) - parts.frames).max() <= 1


def test_an_uploaded_image_is_varied_in_the_runs_size(run: Path) -> None:
    app = open_mode("Edit", variants=1, **{"from": "upload"})
    [field] = [f for f in app.file_uploader if f.key == "upload"]
    field.set_value(("red.png", png(np.full((30, 50, 3), 80, np.uint8)), "image/png")).run()
    job = generate(app, "Vary", "edit")
    assert "your image, resized from 50×30, stretched to a square" in job.task.text
    assert job.result.given.image.shape == (16, 16, 3)
