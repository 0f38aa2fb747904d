"""`diffusion-lab sample`: images, their settings, and what cannot be sampled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_core.cli.main import main
from diffusion_core.runs.checkpoint import weights_path
from diffusion_core.sampling import spec
from diffusion_core.sampling.metadata import Kind, Made, read
from tests import tiny_runs
from tests.core.cli.commands import TINY, draw, image, one_line


def test_samples_are_written_as_a_grid_and_are_the_same_every_time(
    finished: Path, tmp_path: Path, capsys
) -> None:
    assert draw(finished, tmp_path / "a.png", "--n", "3", "--seed", "5") == 0
    printed = capsys.readouterr()
    assert one_line(printed.out) == f"3 images of tiny, step 4: {tmp_path / 'a.png'}"
    assert "3/3" in printed.err  # the progress bar
    grid = image(tmp_path / "a.png")
    assert grid.shape == (16, 48, 3)
    assert draw(finished, tmp_path / "b.png", "--n", "3", "--seed", "5") == 0
    assert draw(finished, tmp_path / "c.png", "--n", "3", "--seed", "6") == 0
    assert np.array_equal(image(tmp_path / "b.png"), grid)
    assert not np.array_equal(image(tmp_path / "c.png"), grid)


@pytest.mark.parametrize(
    "words",
    [
        ["--sampler", "ddpm"],
        ["--label", "bus", "--seed", str(2**63 - 1)],
        ["--label", "2", "--guidance-scale", "3"],
        ["--exact"],
    ],
)
def test_every_way_to_sample_works(finished: Path, tmp_path: Path, words: list[str]) -> None:
    assert draw(finished, tmp_path / "grid.png", "--n", "2", *words) == 0
    assert image(tmp_path / "grid.png").shape == (16, 32, 3)


def test_the_lectures_network_is_sampled_as_the_lecture_does(tmp_path: Path) -> None:
    run = tiny_runs.write_run(tmp_path, "lecture", 20, config=tiny_runs.LECTURE)
    assert draw(run, tmp_path / "grid.png", "--n", "2", "--lecture") == 0
    assert read((tmp_path / "grid.png").read_bytes()).spec.as_lecture


def test_guidance_is_refused_where_the_class_was_always_given(tmp_path: Path, capsys) -> None:
    run = tiny_runs.write_run(
        tmp_path, "given", 20, config=tiny_runs.TINY.replace(label_dropout=0.0)
    )
    out = tmp_path / "grid.png"
    assert draw(run, out, "--guidance-scale", "3") == 2
    assert "it cannot be guided away from any class" in one_line(capsys.readouterr().err)
    assert not out.exists()
    assert draw(run, out, "--guidance-scale", "3", "--negative", "van", "--label", "bus") == 0


def test_steps_are_spaced_as_usual_for_the_sampler_and_what_diverges_is_warned_of(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid.png"
    words = ["sample", "--run", str(finished), "--device", "cpu", "--out", str(out), "--n", "1"]
    for sampler, spacing in (("heun", "karras"), ("euler", "trailing")):
        assert main([*words, "--sampler", sampler]) == 0
        assert read(out.read_bytes()).spec.spacing == spacing
        assert "Warning" not in capsys.readouterr().err
    assert main([*words, "--sampler", "heun", "--spacing", "trailing", "--steps", "4"]) == 0
    assert read(out.read_bytes()).spec.spacing == "trailing"
    assert "Warning: heun diverges on this schedule with trailing spacing and 4 steps" in (
        capsys.readouterr().err
    )


def test_an_earlier_step_can_be_sampled(finished: Path, tmp_path: Path, capsys) -> None:
    assert draw(finished, tmp_path / "2.png", "--n", "1", "--step", "2") == 0
    assert "of tiny, step 2:" in capsys.readouterr().out
    assert draw(finished, tmp_path / "4.png", "--n", "1") == 0
    assert not np.array_equal(image(tmp_path / "2.png"), image(tmp_path / "4.png"))


def test_a_step_without_a_checkpoint_and_a_run_without_any_get_one_line(
    finished: Path, tmp_path: Path, capsys
) -> None:
    assert draw(finished, tmp_path / "x.png", "--step", "3") == 1
    assert one_line(capsys.readouterr().err) == "tiny has no checkpoint of step 3."
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "status.json").write_text("{}")
    assert draw(tmp_path / "empty", tmp_path / "x.png") == 1
    assert one_line(capsys.readouterr().err) == "empty has no usable checkpoint yet."
    assert draw(tmp_path / "nowhere", tmp_path / "x.png") == 1
    assert one_line(capsys.readouterr().err) == f"There is no run {tmp_path / 'nowhere'}."
    assert draw(tmp_path, tmp_path / "x.png") == 1
    assert "is not a run folder" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--label", "boat"], "There is no class 'boat'; choose one of sedan, hatchback"),
        (["--label", "8"], "There is no class '8'"),
        (["--n", "5000"], "n is 5000; it must be from 1 to 4,096."),
        (["--eta", "2"], "eta is 2.0; it must be from 0 to 1."),
        (["--eta", "0.5", "--sampler", "ddpm"], "eta has no effect with ddpm; use ddim."),
        (["--variance", "large"], "variance has no effect with dpmpp_2m; use ddpm."),
        (["--lecture", "--sampler", "heun"], "as the lecture does needs the sampler ddpm."),
        (["--lecture", "--spacing", "karras"], "needs the spacing trailing."),
        (["--lecture"], "cannot be sampled as the lecture does: that needs the lecture's network"),
        (["--negative", "van"], "have no effect without guidance; set a guidance scale"),
        (["--guidance-scale", "99"], "guidance_scale is 99.0; it must be from 0 to 20"),
        (["--n", "0"], "n is 0; it must be from 1 to 4,096."),
        (["--seed", "-1"], "seed is -1; it must be from 0 to 9,223,372,036,854,775,807."),
        (["--seed", str(2**63)], "it must be from 0 to 9,223,372,036,854,775,807."),
        (["--steps", "0"], "steps is 0; it must be from 1 to"),
        (["--steps", "21"], "takes 1 to 20 steps, not 21."),
    ],
)
def test_samples_that_cannot_be_drawn_end_with_2_and_one_line(
    finished: Path, tmp_path: Path, capsys, words: list[str], sentence: str
) -> None:
    assert draw(finished, f"{tmp_path}/many/", *words) == 2
    assert sentence in one_line(capsys.readouterr().err)
    assert draw(finished, f"{tmp_path}/many/", "--average", "long") == 2
    assert "has no averaged weights called 'long'; it has main" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "many").exists()


def test_a_grid_and_a_folder_of_images_hold_the_same_and_say_what_made_them(
    finished: Path, tmp_path: Path, capsys
) -> None:
    words = ["--n", "9", "--sampler", "ddim", "--steps", "3", "--eta", "0.5", "--label", "bus"]
    words += ["--spacing", "linspace"]
    words += ["--guidance-scale", "3", "--negative", "van", "--guidance-interval", "5", "19"]
    assert draw(finished, tmp_path / "grid.png", *words) == 0
    assert draw(finished, f"{tmp_path}/many/", *words) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"9 images of tiny, step 4: {tmp_path / 'many'}"
    assert "9/9" in printed.err
    made = read((tmp_path / "grid.png").read_bytes())
    assert made.spec.negative == "van" and made.spec.guidance_interval == (5, 19)
    assert made.spec.describe().endswith("η 0.5, bus, guidance 3 away from van where 5 ≤ t ≤ 19")
    file = tmp_path / "many" / "pictures" / "000004.png"
    assert read(file.read_bytes()) == Made(made.spec, 4, Kind.IMAGE)
    assert np.array_equal(image(file), image(tmp_path / "grid.png")[16:32, 16:32])


def test_a_folder_of_images_is_gone_on_with_by_its_own_settings(
    finished: Path, tmp_path: Path, capsys
) -> None:
    out = f"{tmp_path}/many/"
    words = ["--n", "3", "--steps", "2"]
    assert draw(finished, out, "--resume") == 2
    assert "There are no images in" in one_line(capsys.readouterr().err)
    assert draw(finished, out, *words) == 0
    gone = tmp_path / "many" / "pictures" / "000001.png"
    before = gone.read_bytes()
    gone.unlink()
    capsys.readouterr()
    assert draw(finished, out, *words) == 2
    said = one_line(capsys.readouterr().err)
    assert "holds tiny at step 4: 3 images, dpmpp_2m, 2 steps" in said and "--resume" in said
    assert draw(finished, out, "--seed", "4", "--resume") == 2
    assert "leave other settings out" in one_line(capsys.readouterr().err)
    assert draw(finished, out, *words, "--resume") == 0
    assert gone.read_bytes() == before
    assert draw(finished, tmp_path / "x.png", "--resume") == 2
    assert "--resume continues a folder" in capsys.readouterr().err.splitlines()[-1]


def test_a_place_to_write_to_is_checked_before_anything_is_drawn(
    finished: Path, tmp_path: Path, capsys
) -> None:
    assert draw(finished, tmp_path / "nowhere" / "x.png") == 2
    assert "There is no folder" in one_line(capsys.readouterr().err)


def test_control_c_ends_a_sampling_with_130(
    finished: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(spec, "sample", interrupted)
    assert draw(finished, tmp_path / "x.png") == 130
    assert capsys.readouterr().err.endswith("Stopped.\n")
    assert not (tmp_path / "x.png").exists()


def test_a_truncated_newest_checkpoint_is_skipped_and_named(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["train", "--run", str(run), "--steps", "4", *TINY]) == 0
    newest = weights_path(run, 4)
    newest.write_bytes(newest.read_bytes()[:-100])
    capsys.readouterr()
    assert draw(run, tmp_path / "x.png", "--n", "1") == 0
    printed = capsys.readouterr()
    assert "step 2:" in printed.out
    assert newest.name in printed.err
    assert json.loads((run / "status.json").read_text())["state"] == "finished"


@pytest.mark.parametrize(
    "name", ["grid.jpg", "grid.JPEG", "grid.webp", "grid.avif", "grid.tif", "grid.bmp", "grid.png"]
)
def test_an_image_is_written_in_the_format_of_its_name(
    name: str, finished: Path, tmp_path: Path
) -> None:
    assert draw(finished, tmp_path / name, "--n", "4") == 0
    found = Image.open(tmp_path / name)
    formats = {".jpg": "JPEG", ".tif": "TIFF"}
    suffix = Path(name).suffix.lower()
    assert found.format == formats.get(suffix, suffix[1:].upper())
    assert found.size == (32, 32)


@pytest.mark.parametrize("name", ["grid", "grid.gif", "grid.svg", "grid.png.txt", "x.npy", ".png"])
def test_an_image_file_of_no_known_format_is_refused_with_the_list(
    name: str, finished: Path, runs_dir: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs_dir)
    assert draw(finished, name) == 2
    assert one_line(capsys.readouterr().err) == (
        f"--out is '{name}'; its name must end with one of .png, .jpg, .jpeg, .webp, .avif, .tif, "
        ".tiff, .bmp, or with / for a folder of images."
    )
    assert not list(runs_dir.iterdir())


def test_an_image_is_guided_by_an_earlier_step_another_run_or_another_average(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tiny_runs.write_run(tmp_path, "cars", 10, 20), tmp_path / "grid.png"
    tiny_runs.write_run(tmp_path, "small", 5, 15)
    guided = ["--n", "2", "--steps", "2", "--guidance-scale", "2"]
    for words, wanted in (
        (["--guide", "cars@10", "--guidance-interval", "0", "9"], ("", 10, "main")),
        (["--guide", "small@5"], ("small", 5, "main")),
        (["--guide", str(tmp_path / "small"), "--guide-average", "main"], ("small", 15, "main")),
        (["--step", "10", "--guide", "cars"], ("", 20, "main")),
    ):
        assert draw(run, out, *guided, *words) == 0
        spec = read(out.read_bytes()).spec
        assert (spec.guide_run, spec.guide_step, spec.guide_average) == wanted
    assert draw(run, f"{tmp_path}/many/", *guided, "--guide", "cars@10") == 0
    assert draw(run, out, *guided, "--guide", "cars@10") == 0
    first = image(tmp_path / "many" / "pictures" / "000000.png")
    assert np.array_equal(first, image(out)[:, :16])
    assert draw(run, out, *guided) == 0
    assert not np.array_equal(first, image(out)[:, :16])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--guide", "cars@7"], "The guide is missing. cars has no checkpoint of step 7."),
        (["--guide", "none"], "There is no run"),
        (["--guide", "cars@x"], "--guide is 'cars@x'; use RUN or RUN@STEP, STEP a whole number."),
        (["--guide", "cars@20"], "cars at step 20 cannot guide itself"),
        (["--guide", "elsewhere/far@5"], "it must be a run beside cars."),
        (["--guide-average", "short"], "The guide has no averaged weights called 'short'"),
        (["--guide", "flow@5"], "flow at step 5 cannot guide cars: it was trained with another"),
        (["--guide", "cars@10", "--guidance-scale", "1"], "no effect with a guidance scale of 1"),
        (["--guide", "cars@10", "--negative", "van"], "leave out the negative class"),
    ],
)
def test_what_cannot_guide_ends_with_one_line(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tiny_runs.write_run(tmp_path, "cars", 10, 20)
    (tmp_path / "elsewhere").mkdir()
    tiny_runs.write_run(tmp_path / "elsewhere", "far", 5)
    flow = tiny_runs.TINY.replace(prediction_type="flow_prediction")
    tiny_runs.write_run(tmp_path, "flow", 5, config=flow)
    assert draw(run, tmp_path / "grid.png", "--guidance-scale", "2", *words) in (1, 2)
    assert sentence in one_line(capsys.readouterr().err)
    assert not (tmp_path / "grid.png").exists()


def test_any_class_can_be_asked_for(tmp_path: Path) -> None:
    run = tiny_runs.write_run(tmp_path, "cars", 20)
    assert draw(run, tmp_path / "any.png", "--label", "any class", "--n", "2") == 0
    assert draw(run, tmp_path / "van.png", "--label", "van", "--n", "2") == 0
    away = ("--label", "van", "--guidance-scale", "2", "--negative", "any class", "--n", "2")
    assert draw(run, tmp_path / "away.png", *away) == 0
    assert read((tmp_path / "any.png").read_bytes()).spec.label == "any class"
    assert read((tmp_path / "away.png").read_bytes()).spec.negative == ""
    assert not np.array_equal(image(tmp_path / "any.png"), image(tmp_path / "van.png"))
