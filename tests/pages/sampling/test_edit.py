"""Sampling from an image and between two: what is generated, what is said, what the files carry."""

from __future__ import annotations

import base64
import json
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
from dashboard.services import cached
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


def test_only_samplers_that_can_do_the_edit_are_offered_and_that_shown_is_used(run: Path) -> None:
    app = open_mode("Edit", edit="Repaint", area="centre", sampler="unipc")
    assert "Sampler is 'unipc'; it must be one of ddim, ddpm, euler, euler_ancestral." in words(app)
    box = app.selectbox(key="sampler")
    assert box.options == ["ddim", "ddpm", "euler", "euler_ancestral"]
    assert generate(app, "Repaint", "edit").spec.sampler == box.value == "ddim"
    app.segmented_control(key="edit").set_value("Vary").run()
    assert "unipc" in app.selectbox(key="sampler").options
    app.selectbox(key="sampler").set_value("unipc").run()
    app.segmented_control(key="edit").set_value("Invert").run()
    box = app.selectbox(key="sampler")
    assert (box.options, box.value) == (["ddim"], "ddim")
    assert "x_s" in app.latex[0].value  # of DDIM


def test_the_class_is_that_of_the_image_unless_another_is_chosen(run: Path) -> None:
    app = open_mode("Edit", variants=2, example=3)
    assert app.selectbox(key="label").value == "as the image"
    assert "label" not in app.query_params
    name = cached.image("cars:48", 3, 16)[1]
    assert f"Class of the image: {name}." in words(app)
    assert generate(app, "Vary", "edit").spec.label == name
    app.number_input(key="example").set_value(7).run()
    other = cached.image("cars:48", 7, 16)[1]
    assert other != name
    assert generate(app, "Vary", "edit").spec.label == other
    app.selectbox(key="label").set_value("bus").run()
    assert "Class of the image" not in words(app)
    assert generate(app, "Vary", "edit").spec.label == "bus"


def test_a_generated_image_keeps_its_class_and_an_upload_gets_any_class(run: Path) -> None:
    app = open_page("sampling.py", steps=2, n=3)
    generate(app)
    app.segmented_control(key="mode").set_value("Edit").run()
    assert app.selectbox(key="label").value == "as the image"
    app.selectbox(key="from").set_value("generated").run()
    app.number_input(key="drawn").set_value(3).run()
    assert f"Class of the image: {CLASSES[2]}." in words(app)
    app.selectbox(key="from").set_value("upload").run()
    app.slider(key="guidance").set_value(2.0).run()
    [field] = [f for f in app.file_uploader if f.key == "upload"]
    field.set_value(("red.png", png(np.full((30, 50, 3), 80, np.uint8)), "image/png")).run()
    said = "The class of this image is not known. Using any class, without guidance."
    assert said in words(app)
    spec = generate(app, "Vary", "edit").spec
    assert (spec.label, spec.guidance_scale) == (ANY_CLASS, 1.0)
    app.segmented_control(key="mode").set_value("Generate").run()
    assert app.selectbox(key="label").value == EACH_IN_TURN


def test_an_upload_has_the_first_class_where_the_network_knows_no_other(runs_dir: Path) -> None:
    config = tiny(network_args=TINY.network_args, label_dropout=0.0)
    checkpoint = checkpoint_of(write_run(runs_dir, "nodrop", 40, config=config))
    can = Capabilities.of(checkpoint)
    spec = SamplingSpec(run="nodrop", step=40, classes=CLASSES, label=edit_controls.AS_IMAGE)
    used = edit_controls.with_class(spec, given_of(config), can)
    assert used.label == CLASSES[0]
    text = edit_controls.class_text(spec, used, given_of(config))
    assert text == f"The class of this image is not known. Using the class `{CLASSES[0]}`."


def test_a_variation_that_skips_the_step_that_diverges_is_not_warned_of(run: Path) -> None:
    settings = {"sampler": "heun", "spacing": "trailing"}
    assert "heun diverges" in words(open_mode("Edit", strength=1.0, **settings))
    assert "heun diverges" not in words(open_mode("Edit", strength=0.5, **settings))


def test_an_inversion_shows_noise_image_errors_and_numbers(run: Path) -> None:
    app = open_mode("Edit", edit="Invert")
    assert "DDIM without noise or guidance, 4 steps to the noise and 4 back for " in words(app)
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


def test_a_distilled_run_says_why_it_cannot_be_inverted(runs_dir: Path) -> None:
    settings = {"objective": "consistency", "init_from": "x", "min_snr_gamma": 0.0}
    write_run(runs_dir, "fast", 40, config=TINY.replace(**settings))
    app = open_mode("Edit", edit="Invert")
    assert "Invert with the run that it was distilled from." in words(app)
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


@pytest.mark.parametrize(("dropout", "usual"), [(0.1, ANY_CLASS), (0.0, CLASSES[0])])
def test_a_film_has_the_one_class_that_is_shown(runs_dir: Path, dropout: float, usual: str) -> None:
    config = tiny(network_args=TINY.network_args, label_dropout=dropout)
    write_run(runs_dir, "tiny", 40, config=config)
    app = open_page("sampling.py", steps=4)
    app.segmented_control(key="mode").set_value("Interpolate").run()
    box = app.selectbox(key="label")
    assert box.value == usual and EACH_IN_TURN not in box.options
    app.slider(key="frames").set_value(2).run()
    assert generate(app, "Generate film", "interpolate").spec.label == usual


def test_a_film_plays_by_itself_above_a_strip_of_its_frames(run: Path) -> None:
    app = open_mode("Interpolate", frames=20)
    generate(app, "Generate film", "interpolate")
    [book] = [c for c in app.get("bidi_component") if c.proto.component_name == "flipbook"]
    assert json.loads(book.proto.json)["plays"] is True
    assert names(app) == [f"Frame {k}" for k in (1, 4, 6, 9, 12, 15, 17, 20)]


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
    assert "your image, resized from 50×30, cropped to a square" in job.task.text
    assert job.result.given.image.shape == (16, 16, 3)
