"""The Sampling page: its checkpoint, its controls, what it shows and says."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
import streamlit as st
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.sampling.choose import sharing_sentence
from dashboard.sampling.controls import max_images
from dashboard.sampling.sharing import link
from dashboard.services import model_cache
from dashboard.services.sampling_queue import QueueFull, SamplingQueue
from dashboard.ui.progress import precise
from diffusion_core.media.images import png, to_uint8
from diffusion_core.runs.checkpoint import load_model, save_weights, weights_path
from diffusion_core.runs.presets import build_network
from diffusion_core.runs.run import Run
from diffusion_core.sampling.registry import REGISTRY, Sampler
from diffusion_core.sampling.spec import SamplingSpec
from tests.pages.app import (
    button,
    buttons,
    component_data,
    generate,
    open_page,
    press,
    seen,
    words,
)
from tests.tiny_runs import (
    CLASSES,
    LECTURE,
    TINY,
    set_running,
    write_checkpoint,
    write_run,
    write_snapshot,
)

SOON = 60.0


def open_sampling(**settings: str) -> AppTest:
    return open_page("sampling.py", **settings)


def downloads(app: AppTest) -> list[str]:
    return [element.proto.label for element in app.get("download_button")]


def test_without_a_checkpoint_the_page_says_how_the_first_comes_about(runs_dir: Path) -> None:
    write_run(runs_dir, "young")
    app = open_sampling()
    assert "No run has a checkpoint yet. Start one on the Training page" in words(app)
    assert not [b for b in app.button if b.label == "Generate"]


def test_a_run_in_training_is_named_until_its_first_checkpoint_is_there(runs_dir: Path) -> None:
    run = write_run(runs_dir, "young")
    set_running(run)
    app = open_sampling()
    assert "young is running. Its first checkpoint appears here as soon as" in words(app)
    write_checkpoint(run, 20)
    app.run()
    assert "Step 20 of 40" in words(app)


def test_a_viewer_without_checkpoints_is_referred_to_the_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    assert "The app's operator starts one" in words(open_sampling())


def test_a_viewer_samples_and_gets_images_downloads_and_the_way_out_of_the_noise(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    write_run(runs_dir, "cars", 20)
    app = open_sampling(steps="4", n="2")
    assert "Press Generate" in words(app)
    job = generate(app)
    assert job.snapshot().state == "done"
    shown = words(app)
    assert "cars at step 20: 2 images, dpmpp_2m, 4 steps, seed 0, each class in turn" in shown
    assert "8 network evaluations (2 images × 4 steps)" in shown
    assert downloads(app) == [
        "Grid as PNG",
        "This image as PNG",
        "This strip as PNG",
        "Film as WebP",
    ]
    assert "In turn, row by row: van, bus." in shown  # of three classes
    [row] = component_data(app, "gallery")["rows"]
    assert [tile["name"] for tile in row["tiles"]] == ["Image 1, van", "Image 2, bus"]
    assert "All 2 images, every step, 0.0 MB." in shown
    assert "from t = 4, 9, 14, 19." in app.get("image")[0].proto.imgs[0].caption
    assert re.search(r"(Less than 1|About [\d.]+) s, estimated from earlier requests\.", shown)


def test_a_viewer_reads_the_budget_before_pressing_and_the_limit_after(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    monkeypatch.setenv("DIFFUSION_LAB_HOURLY_EVALUATIONS", "10")
    monkeypatch.setattr(type(st.context), "ip_address", "10.0.0.2")  # behind a proxy
    write_run(runs_dir, "cars", 20)
    app = open_sampling(steps="4", n="2")
    assert "at most 40,000 per request, 10 of 10 left this hour." in words(app)
    assert generate(app).snapshot().state == "done"
    assert "2 of 10 left this hour." in words(app)
    [warning] = app.warning  # before the button is pressed
    assert warning.value.startswith("This needs 8 network evaluations; 2 of 10 per hour are left")
    press(app, "Generate")
    [error] = app.error
    assert "2 of 10 per hour are left. The limit resets in 60 min." in seen(error.value)


def test_the_newest_checkpoint_of_all_runs_is_the_default(runs_dir: Path) -> None:
    write_run(runs_dir, "b-newer", 20)
    write_run(runs_dir, "a-older", 40)
    write_checkpoint(runs_dir / "b-newer", 30)
    app = open_sampling()
    assert app.selectbox(key="run").value == "b-newer"
    assert "Step 30 of 40" in words(app)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [("finished", "The run has finished."), ("failed", "The run has failed.")],
)
def test_the_state_of_the_run_is_said_beside_its_checkpoint(
    state: str, sentence: str, runs_dir: Path
) -> None:
    write_run(runs_dir, "mine", 40, state=state)
    app = open_sampling()
    assert any(caption.value.endswith(sentence) for caption in app.caption)


def test_an_earlier_step_is_sampled_where_it_is_asked_for(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20, 40)
    app = open_sampling(step="20", steps="2", n="1")
    assert "Step 20 of 40" in words(app)
    assert generate(app).spec.step == 20


def test_a_newer_checkpoint_is_offered_and_taken_only_on_request(runs_dir: Path) -> None:
    run = write_run(runs_dir, "cars", 20)
    set_running(run)
    app = open_sampling()
    assert buttons(app) == ["Generate", "Random"]
    write_checkpoint(run, 40)
    app.run()
    assert "Step 20 of 40" in words(app)
    button(app, "Use newer checkpoint (step 40)").click().run()
    assert "Step 40 of 40" in words(app)
    assert buttons(app) == ["Generate", "Random"]


def test_a_broken_checkpoint_is_skipped_and_named(runs_dir: Path) -> None:
    run = write_run(runs_dir, "cars", 20, 40)
    newest = weights_path(run, 40)
    newest.write_bytes(newest.read_bytes()[:200])
    app = open_sampling()
    assert "Step 20 of 40" in words(app)
    assert "Skipped: step-00000040.safetensors is damaged or cut short" in words(app)


def test_a_run_with_nothing_but_broken_checkpoints_is_named(runs_dir: Path) -> None:
    run = write_run(runs_dir, "cars", 20)
    weights_path(run, 20).write_bytes(b"")
    app = open_sampling()
    assert "cars has no usable checkpoint." in words(app)
    assert "No run has a checkpoint yet." in words(app)


def test_a_checkpoint_that_goes_before_it_is_loaded_gets_a_sentence(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(runs_dir, "cars", 20, 40)
    app = open_sampling(step="20")
    load = model_cache.load_model

    def too_late(*arguments, **options):
        weights_path(run, 20).unlink()
        return load(*arguments, **options)

    monkeypatch.setattr(model_cache, "load_model", too_late)
    job = generate(app)
    assert job.snapshot().state == "failed"
    [error] = app.error
    assert "step-00000020.safetensors can no longer be read" in error.value


def test_a_flow_in_grey_is_sampled_by_its_own_samplers_with_the_average_that_is_chosen(
    runs_dir: Path,
) -> None:
    args = {"widths": [8], "blocks": 1, "attention_levels": [], "channels": 1}
    config = TINY.replace(
        prediction_type="flow_prediction",
        channels=1,
        network_args=args,
        ema_decays={"short": 0.9},
    )
    run = write_run(runs_dir, "flow", config=config)
    torch.manual_seed(0)
    tensors = [build_network("unet", args).state_dict() for _ in range(2)]
    for each in tensors:
        each["output.weight"].normal_(std=0.1)  # it starts at zero
    save_weights(run, 20, tensors[0], config, (), {"short": tensors[1]})
    app = open_sampling(n="2", steps="4")
    groups: Sequence[Any] = app.get("button_group")
    picked = {control.label: control for control in groups}
    assert app.selectbox(key="flow_sampler").options == ["euler", "heun"]
    assert picked["Averaged weights"].options == ["main", "short"]
    assert "main (0.9995), short (0.9)" in picked["Averaged weights"].help
    by_main = generate(app).snapshot()
    assert by_main.state == "done"
    assert by_main.now.x_t.shape == (2, 16, 16, 1)
    app.session_state["flow_sampler"] = "heun"
    app.session_state["average"] = "short"
    app.run()
    job = generate(app)
    assert job.task.evaluations == 2 * (2 * 4 - 1)
    assert "heun, 4 steps" in job.spec.describe() and "short average" in job.spec.describe()
    assert not np.array_equal(job.snapshot().now.x_t, by_main.now.x_t)
    found = {name: value for name, [value] in parse_qs(link(job.spec).partition("?")[2]).items()}
    assert found["flow_sampler"] == "heun" and found["average"] == "short"
    assert generate(open_sampling(**found)).spec == job.spec


def test_a_run_with_snapshots_is_sampled_with_averages_of_any_length(runs_dir: Path) -> None:
    config = TINY.replace(average_snapshots=20)
    run = write_run(runs_dir, "long", config=config)
    write_snapshot(run, 20, config)
    write_checkpoint(run, 20, config)
    app = open_sampling(n="2", steps="2", average="post-hoc 0.075")
    picked = app.selectbox(key="average")
    assert picked.options[:3] == ["main", "post-hoc 0.05", "post-hoc 0.075"]
    assert picked.value == "post-hoc 0.075"
    job = generate(app)
    assert job.snapshot().state == "done" and job.spec.average == "post-hoc 0.075"
    found = {name: value for name, [value] in parse_qs(link(job.spec).partition("?")[2]).items()}
    assert found["average"] == "post-hoc 0.075"


def test_the_url_holds_every_setting_and_a_link_gives_them_again(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    write_run(runs_dir, "other", 20)
    settings = {
        "run": "cars",
        "step": "20",
        "sampler": "ddim",
        "spacing": "karras",
        "steps": "3",
        "n": "2",
        "seed": "5",
        "eta": "0.5",
        "label": "coupé",
        "guidance": "2.5",
    }
    job = generate(open_sampling(**settings))
    assert job.spec == SamplingSpec(
        run="cars",
        step=20,
        n=2,
        sampler="ddim",
        steps=3,
        seed=5,
        eta=0.5,
        classes=CLASSES,
        label="coupé",
        guidance_scale=2.5,
        spacing="karras",
    )
    again = {name: value for name, [value] in parse_qs(link(job.spec).partition("?")[2]).items()}
    assert again == settings
    assert generate(open_sampling(**again)).spec == job.spec


def test_settings_in_the_url_that_make_no_sense_are_left_out(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_sampling(
        run="none", step="7", sampler="magic", steps="0", n="-3", seed="x", eta="9", label="horse"
    )
    assert app.selectbox(key="run").value == "cars"
    assert app.selectbox(key="step").value == "latest"
    assert app.number_input(key="n").value == 16
    assert app.number_input(key="steps").value == 20


def test_steps_are_20_for_dpm_solver_and_all_for_ddpm_until_they_are_set(runs_dir: Path) -> None:
    long = TINY.replace(schedule={"kind": "cosine", "timesteps": 60})
    write_run(runs_dir, "cars", 20, config=long)
    app = open_sampling(n="1")
    steps = app.number_input(key="steps")
    assert (steps.value, steps.placeholder) == (20, "")
    assert generate(app).spec.steps == 20
    app.selectbox(key="sampler").select("ddpm").run()
    assert app.number_input(key="steps").value == 60
    assert not [s for s in app.slider if s.key == "eta"]
    assert generate(app).spec.steps == 60
    app.number_input(key="steps").set_value(20).run()
    assert generate(app).spec.steps == 20
    press(app, "Reset to default")
    assert generate(app).spec.steps == 60


def test_what_is_seldom_set_is_under_advanced_which_a_link_that_sets_some_opens(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "cars", 20)

    def advanced(app: AppTest) -> Any:
        [found] = [each for each in app.expander if each.label == "Advanced"]
        return found

    app = open_sampling(n="2", steps="5", seed="3", label="bus")
    assert not advanced(app).proto.expanded
    below: set[str | None] = {
        each.key
        for each in (*advanced(app).selectbox, *advanced(app).slider, *advanced(app).toggle)
    }
    assert below == {"step", "sampler", "spacing", "guidance", "exact"}
    assert advanced(open_sampling(sampler="ddim")).proto.expanded


def test_the_dice_chooses_another_seed(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_sampling(n="1", steps="2", seed="3")
    seeds = {press(app, "Random").number_input(key="seed").value for _ in range(3)}
    assert len(seeds) > 1
    assert generate(app).spec.seed == app.number_input(key="seed").value


@pytest.mark.parametrize(
    "sampler", [each for each in REGISTRY if not each.flow], ids=lambda each: each.name
)
@pytest.mark.parametrize("zero_snr", [False, True])
def test_every_sampler_samples_and_explains_itself(
    sampler: Sampler, zero_snr: bool, runs_dir: Path
) -> None:
    config = TINY
    if zero_snr:
        ends_in_noise = {"kind": "cosine", "timesteps": 20, "rescale_zero_terminal_snr": True}
        config = config.replace(schedule=ends_in_noise)
    if sampler.distilled:
        config = config.replace(objective="consistency", init_from="teacher", min_snr_gamma=0.0)
    write_run(runs_dir, "cars", 20, config=config)
    app = open_sampling(n="1", steps="3", sampler=sampler.name)
    chosen = app.selectbox(key="sampler")
    if zero_snr and not sampler.from_pure_noise:
        assert sampler.name not in chosen.options
        assert "karras" not in app.selectbox(key="spacing").options
        return
    assert chosen.value == sampler.name
    job = generate(app)
    assert job.snapshot().state == "done"
    assert job.task.evaluations == (5 if sampler.name == "heun" else 3)
    assert [each.value for each in app.latex if "x_s" in each.value or "x_{t-1}" in each.value]


def test_results_stay_with_their_settings_while_the_controls_move(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_sampling(steps="2", n="1")
    generate(app)
    assert "The settings have changed since" not in words(app)
    app.number_input(key="seed").set_value(9).run()
    assert "2 steps, seed 0" in words(app)
    assert "The settings have changed since. Press Generate to use them." in words(app)


def test_any_class_and_guidance_are_offered_only_where_the_network_learned_them(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "cars", 20, config=TINY.replace(label_dropout=0.0))
    app = open_sampling()
    assert app.selectbox(key="label").options == ["each in turn", *CLASSES]
    assert not [s for s in app.slider if s.key == "guidance"]
    shutil.rmtree(runs_dir / "cars")  # which could be the guide of another
    write_run(runs_dir, "cars2", 20)
    app = open_sampling(run="cars2", label="any class")
    assert app.selectbox(key="label").value == "any class"
    assert not [s for s in app.slider if s.key == "guidance"]


def test_a_network_of_the_lecture_can_be_sampled_as_the_lecture_does(runs_dir: Path) -> None:
    write_run(runs_dir, "lecture", 25, config=LECTURE)
    app = open_sampling(n="1", way="lecture")
    assert "leaves the network in training mode" in words(app)
    assert generate(app).spec == SamplingSpec(
        run="lecture", step=25, n=1, sampler="ddpm", steps=6, as_lecture=True
    )
    assert "lecture at step 25: 1 image, as the lecture does, 6 steps, seed 0" in words(app)
    assert not [s for s in app.selectbox if s.key == "label"]
    assert generate(open_sampling(n="1")).spec.as_lecture is False


def test_an_active_job_shows_its_place_and_can_be_cancelled(
    runs_dir: Path, still: SamplingQueue
) -> None:
    write_run(runs_dir, "cars", 20)
    first, second = open_sampling(), open_sampling()
    for app in (first, second):
        button(app, "Generate").click().run()
        assert not app.exception
        assert button(app, "Generate").disabled
    assert first.session_state["jobs"]["generate"].snapshot().before == 0
    assert second.session_state["jobs"]["generate"].snapshot().before == 1
    # In another mode it is seen as well, for that mode's button waits for it.
    second.segmented_control(key="mode").set_value("Interpolate").run()
    assert not second.exception
    assert button(second, "Generate film").disabled
    [progress] = second.get("progress")
    assert progress.proto.text.startswith("Waiting for 1 other job on this device")
    button(second, "Cancel").click().run()
    assert second.session_state["jobs"]["generate"].snapshot().state == "cancelled"
    second.segmented_control(key="mode").set_value("Generate").run()
    assert "Cancelled." in words(second)
    assert not button(second, "Generate").disabled
    assert downloads(second) == []


def test_a_full_queue_is_said(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(runs_dir, "cars", 20)

    def full(self, task, visitor):
        raise QueueFull("16 jobs are already waiting for this device. Try again later.")

    monkeypatch.setattr(SamplingQueue, "submit", full)
    app = open_sampling()
    button(app, "Generate").click().run()
    assert [e.value for e in app.error] == [
        "16 jobs are already waiting for this device. Try again later."
    ]


def test_a_training_on_the_same_device_is_named(runs_dir: Path) -> None:
    run = write_run(runs_dir, "cars", 20)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert sharing_sentence(cpu, [Run(run)]) == ""
    set_running(run)
    assert "`cars` is training on this device" in sharing_sentence(cpu, [Run(run)])
    assert sharing_sentence(cuda, [Run(run)]) == ""
    assert "cars is training on this device" in words(open_sampling())


def test_images_are_fewer_where_they_are_large() -> None:
    assert [max_images(size) for size in (16, 64, 128, 256)] == [64, 64, 64, 16]


def test_short_times_keep_their_digits() -> None:
    assert [precise(s) for s in (0.123, 4.26, 75.0)] == ["0.12 s", "4.3 s", "1 min 15 s"]


def test_a_downloaded_image_says_what_made_it_and_keeps_its_pixels() -> None:
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    words = SamplingSpec(run="cars", step=5, classes=CLASSES, label="coupé").describe()
    with Image.open(io.BytesIO(png(pixels, text={"Description": words}))) as image:
        assert np.array_equal(np.asarray(image), pixels)
        assert image.info["Description"].endswith("seed 0, coupé")


def test_exact_images_are_those_of_the_plain_network_in_any_batch(runs_dir: Path) -> None:
    run = write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", run="cars", n=2, steps=3, exact="true")
    job = generate(app)
    assert job.spec.exact and "exact" in job.spec.describe()
    checkpoint = Run(run).checkpoint(20)
    wanted = job.spec.make(load_model(checkpoint, "cpu", exact=True))
    assert np.array_equal(job.result.images, to_uint8(wanted))
    alone = job.spec.replace(n=1).make(load_model(checkpoint, "cpu", exact=True))
    assert np.array_equal(to_uint8(alone)[0], job.result.images[0])


def test_an_interval_that_guides_nowhere_is_refused_where_it_is_asked_for(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", steps="2", label="van", guidance="2", guided=["3", "4"])
    button(app, "Generate").click().run()
    [error] = app.error
    assert "The guidance interval is 3 to 4, where none of the steps is" in error.value
    assert "jobs" not in app.session_state or not app.session_state["jobs"]
