"""Measuring a run's images: what is drawn and compared, what is written, the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion_core.cli.main import main
from diffusion_core.data.sources import cars
from diffusion_core.data.store import DataError, build_store
from diffusion_core.evaluation import evaluate as evaluating
from diffusion_core.evaluation import evaluator, metrics, sliced
from diffusion_core.evaluation.evaluate import evaluate, make_spec
from diffusion_core.evaluation.evaluator import FEWEST, cost, held_out_images, split_of
from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.metrics import METRICS, Comparison, Metric
from diffusion_core.evaluation.results import (
    Result,
    read_result,
    read_results,
    result_path,
    same_sampling,
    sheet_path,
    write_result,
)
from diffusion_core.media.images import to_uint8
from diffusion_core.records import RecordError
from diffusion_core.runs import jobs
from diffusion_core.runs.checkpoint import load_model
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.config_file import write_config_file
from diffusion_core.runs.run import Run, load_run
from diffusion_core.sampling.spec import SamplingSpec
from diffusion_core.training.context import make_context
from tests.tiny_runs import tiny, write_checkpoint, write_run

CARS = tiny(data="cars:300")
WITHOUT = "FID and KID were not measured: a reason."
N = 32


@pytest.fixture(scope="module", autouse=True)
def images_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(sliced, "DESCRIPTORS", 2**10)  # patches; a sixteenth of the work
        patch.setattr(evaluator, "load_inception", lambda *_: (None, WITHOUT))
        yield


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Result]:
    """A run of two checkpoints, of which the second was measured. Not to be changed."""
    run = load_run(write_run(tmp_path_factory.mktemp("runs"), "tiny", 20, 40, config=CARS))
    return run, measure(run, 40)[0]


def measure(run: Run, step: int, **settings: Any) -> tuple[Result, list[int]]:
    """The result of a measuring, and what it yielded."""
    checkpoint = run.checkpoint(step)
    spec = make_spec(run.name, checkpoint, **({"n": N, "steps": 4} | settings))
    return finished(evaluate(run, checkpoint, spec, load_model(checkpoint), workers=0))


def finished(work: Generator[Any, None, Any]) -> tuple[Any, list[int]]:
    """What a generator returns, and what it yielded."""
    yielded = []
    while True:
        try:
            yielded.append(next(work))
        except StopIteration as end:
            return end.value, yielded


def test_a_result_has_every_metric_of_the_images_with_its_interval_and_counts(
    measured: tuple[Run, Result],
) -> None:
    run, result = measured
    without = {"accuracy", "fid", "kid", "fd_dinov2", "bits_per_dim"}  # the run has no classes
    assert set(result.metrics) == set(METRICS) - without
    for name, estimate in result.metrics.items():
        assert estimate.low <= estimate.value <= estimate.high, name
        assert estimate.n_fake == N, name
    assert result.evaluations == 4
    assert result.data == "cars:300"
    assert set(result.ceiling) == set(result.floor) - {"accuracy"} == set(result.metrics)
    assert result.ceiling["copies"].value == 0
    assert result.checkpoint_time == run.checkpoint(40).time
    assert result.notes == (WITHOUT,)


def test_untrained_images_lie_between_the_floor_and_far_from_it(
    measured: tuple[Run, Result],
) -> None:
    _, result = measured
    for name in ("frechet", "frechet_general", "sliced_general", "sliced_wasserstein"):
        assert result.floor[name].high < result.metrics[name].low, name
        assert result.floor[name].high < result.ceiling[name].low, name
    assert result.floor["coverage"].value > 0.5 > result.metrics["coverage"].value


def test_a_result_comes_back_from_its_file_as_it_was(measured: tuple[Run, Result]) -> None:
    run, result = measured
    assert read_result(result_path(run.path, result.spec)) == result
    assert read_results(run.path) == ([result], [])


def test_what_was_measured_is_not_measured_again_unless_asked_to(
    measured: tuple[Run, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, result = measured

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it draws")

    monkeypatch.setattr(SamplingSpec, "make", refuse)
    assert measure(run, 40) == (result, [])
    with pytest.raises(AssertionError, match="it draws"):
        checkpoint = run.checkpoint(40)
        list(evaluate(run, checkpoint, result.spec, load_model(checkpoint), again=True))


def test_floor_and_ceiling_are_measured_once_for_the_same_images(
    measured: tuple[Run, Result], tmp_path: Path
) -> None:
    _, first = measured
    copy = load_run(write_run(tmp_path, "copy", 20, config=CARS))
    marked = first.floor | {"frechet": Estimate(1.0, 0.5, 1.5, 7, 7)}
    write_result(copy.path, first.model_copy(update={"floor": marked}))
    second, yielded = measure(copy, 20)
    assert second.floor == marked
    assert second.ceiling == first.ceiling
    assert yielded == sorted(yielded)
    assert yielded[-1] == cost(second.spec, load_model(copy.checkpoint(20))[1], bits=False)


def test_a_floor_and_a_ceiling_that_lack_a_metric_are_measured_anew(
    measured: tuple[Run, Result], tmp_path: Path
) -> None:
    _, first = measured
    copy = load_run(write_run(tmp_path, "copy", 20, config=CARS))
    lacking = {"frechet": Estimate(1.0, 0.5, 1.5, 7, 7)}
    write_result(copy.path, first.model_copy(update={"floor": lacking, "ceiling": lacking}))
    second, _ = measure(copy, 20)
    assert (second.floor, second.ceiling) == (first.floor, first.ceiling)


@pytest.mark.parametrize(
    "change", [{"checkpoint_time": 1.0}, {"fingerprint": "of other cars", "content": "others"}]
)
def test_what_was_measured_of_another_checkpoint_or_of_other_images_is_measured_anew(
    change: dict, measured: tuple[Run, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, result = measured
    run = load_run(write_run(tmp_path, run.name, 40, config=CARS))
    checkpoint = run.checkpoint(40)
    loaded = load_model(checkpoint)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it measures")

    monkeypatch.setattr(SamplingSpec, "make", refuse)
    monkeypatch.setattr(evaluating, "measure_bits", refuse)
    bits = {"bits_per_dim": Estimate(9.0, 8.0, 10.0, 7, 0)}
    plain = result.model_copy(update={"checkpoint_time": checkpoint.time})
    both = plain.model_copy(update={"metrics": plain.metrics | bits})

    def known(bits: bool) -> Result:
        return finished(evaluate(run, checkpoint, result.spec, loaded, bits=bits))[0]

    write_result(run.path, both)
    assert known(bits=True) == both
    write_result(run.path, both.model_copy(update=change))
    with pytest.raises(AssertionError, match="it measures"):
        known(bits=False)
    write_result(run.path, plain)
    write_result(run.path, both.model_copy(update={"spec": again(both), **change}))
    assert known(bits=False) == plain
    with pytest.raises(AssertionError, match="it measures"):
        known(bits=True)


def test_results_follow_images_that_were_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for k, pixels in enumerate(
        np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), np.uint8)
    ):
        (tmp_path / "a" / "noise").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "a" / "noise" / f"{k}.png")
    (tmp_path / "a" / "noise" / "bad.png").write_bytes(b"no image")
    config = tiny(data=f"folder:{tmp_path / 'a'}", validation_count=20)
    run = load_run(write_run(tmp_path, "moved", 20, config=config))
    before, _ = measure(run, 20, n=FEWEST)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)  # no times
    shutil.rmtree(tmp_path / "a")
    details = {"data_fingerprint": before.fingerprint, "data_content": before.content}
    write_config_file(run.path, config, details)
    jobs.change(run, {"data": f"folder:{tmp_path / 'b'}"})

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it draws")

    with monkeypatch.context() as patch:
        patch.setattr(SamplingSpec, "make", refuse)
        assert run_command(run, "--n", "16", "--steps", "4") == 0
    said = capsys.readouterr()
    assert said.err.count("60 images in 1 class (noise). 1 of 61 files cannot be read: ") == 1
    assert f"folder:{tmp_path / 'b'}: 60 images" in said.err
    [after], broken = read_results(run.path)
    assert not broken and after.metrics == before.metrics
    assert after.data == f"folder:{tmp_path / 'b'}" and after.fingerprint != before.fingerprint
    bright = np.full((16, 16, 3), 255, np.uint8)
    Image.fromarray(bright).save(tmp_path / "b" / "noise" / "0.png")
    monkeypatch.setattr(SamplingSpec, "make", refuse)
    with pytest.raises(AssertionError, match="it draws"):
        measure(run, 20, n=FEWEST)


def test_a_network_that_repeats_its_training_images_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(write_run(tmp_path, "parrot", 20, config=CARS))
    store = build_store(CARS.data, CARS.image_size)
    training, _ = split_of(CARS, store)

    def repeat(_: SamplingSpec, loaded: Any, on_step: Any, first: int, n: int, **more: Any):
        images = torch.from_numpy(store.read(training[first : first + n]).copy())
        return images.flip(-1).float() / 127.5 - 1  # as a training with random flips may see it

    monkeypatch.setattr(SamplingSpec, "make", repeat)
    result, _ = measure(run, 20)
    assert result.metrics["copies"].value == 1.0
    assert [neighbour.distance for neighbour in result.neighbours] == [0.0] * 8
    assert {n.training for n in result.neighbours} <= set(training[:N].tolist())
    assert result.metrics["frechet"].value < result.ceiling["frechet"].value / 3
    with Image.open(sheet_path(result_path(run.path, result.spec))) as image:
        sheet = np.asarray(image)
    assert sheet.shape == (2 * 16, 8 * 16, 3)
    assert (sheet[:16] == sheet[16:]).all()  # the training images are turned as the samples are


def test_the_training_images_are_those_that_the_trainer_takes() -> None:
    store = build_store(CARS.data, CARS.image_size)
    setting = make_context(CARS.replace(micro_batch=4), store, torch.device("cpu"))
    training, held_out = split_of(CARS, store)
    assert (setting.train_index == training).all()
    assert (setting.validation_index == held_out).all()


def test_held_out_cars_are_cars_that_no_store_row_shows() -> None:
    store = build_store(CARS.data, CARS.image_size)
    held_out, _ = finished(held_out_images(CARS, store, N, 0))
    assert held_out.pixels.shape == (N, 16, 16, 3)
    known = {image.transpose(1, 2, 0).tobytes() for image in store.images}
    assert not any(image.tobytes() in known for image in held_out.pixels)
    assert (held_out.labels == np.arange(300, 300 + N) % 8).all()
    grey, _ = finished(held_out_images(CARS.replace(channels=1), store, 2, 0))
    assert grey.pixels.shape == (2, 16, 16, 1)


def test_other_data_is_measured_in_the_general_features_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "pictures" / "noise").mkdir(parents=True)
    for k, pixels in enumerate(
        np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), np.uint8)
    ):
        Image.fromarray(pixels).save(tmp_path / "pictures" / "noise" / f"{k}.png")
    config = tiny(data=f"folder:{tmp_path / 'pictures'}", validation_count=4)
    run = load_run(write_run(tmp_path, "folder", 20, config=config))
    result, _ = measure(run, 20, n=FEWEST)
    general = {"frechet_general", "sliced_general", "precision", "recall", "density", "coverage"}
    assert set(result.metrics) == general | {"sliced_wasserstein"}
    assert set(result.ceiling) == set(result.metrics) and result.floor == {}
    words = " ".join(result.notes)
    assert "No classifier for folder:" in words
    assert "not measured: Fréchet distance, Class accuracy, Class balance." in words
    assert "In the features of the general network: Precision, Recall, Density, Coverage." in words
    assert "held out too few images" in words


def test_data_that_is_gone_gets_a_sentence_and_writes_nothing(tmp_path: Path) -> None:
    config = tiny(data=f"folder:{tmp_path / 'gone'}")
    run = load_run(write_run(tmp_path, "gone-data", 20, config=config))
    with pytest.raises(DataError):
        measure(run, 20)
    assert not (run.path / "quality").exists()


def test_bits_per_dimension_are_added_to_a_result_and_shared_by_its_checkpoint(
    measured: tuple[Run, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(write_run(tmp_path, "bits", 20, config=CARS))
    checkpoint = run.checkpoint(20)
    loaded = load_model(checkpoint)
    spec = make_spec(run.name, checkpoint, n=N, steps=4)
    monkeypatch.setattr(evaluator, "BITS_IMAGES", 40)
    list(evaluate(run, checkpoint, spec, loaded))
    list(evaluate(run, checkpoint, spec, loaded, bits=True))
    (result,), _ = read_results(run.path)
    bits = result.metrics["bits_per_dim"]
    assert 0 < bits.low < bits.value < bits.high
    assert (bits.n_real, bits.n_fake) == (40, 0)
    other = spec.replace(n=16, seed=3)
    (anew, yielded) = finished(evaluate(run, checkpoint, other, loaded, bits=True, again=True))
    assert anew.metrics["bits_per_dim"] == bits  # they are not the order's
    assert yielded == sorted(yielded)
    assert yielded[-1] == cost(other, loaded[1], bits=True)
    monkeypatch.setattr(evaluating, "measure_bits", None)  # not asked again
    list(evaluate(run, checkpoint, spec.replace(steps=5), loaded, bits=True))
    results, _ = read_results(run.path)
    assert [found.metrics["bits_per_dim"] for found in results] == [bits, bits, bits]


def test_each_class_is_drawn_as_often_as_it_was_trained_and_a_neighbour_tells_its_own(
    tmp_path: Path,
) -> None:
    network = CARS.network_args | {"num_classes": 8}
    run = load_run(write_run(tmp_path, "classes", config=CARS.replace(network_args=network)))
    write_checkpoint(run.path, 20, CARS.replace(network_args=network), classes=cars.CLASSES)
    checkpoint = run.checkpoint(20)
    loaded = load_model(checkpoint)
    spec = make_spec(run.name, checkpoint, n=16, steps=4)
    result, _ = finished(evaluate(run, checkpoint, spec, loaded))
    assert "each" not in result.way()
    asked = [cars.CLASSES.index(neighbour.label) for neighbour in result.neighbours]
    assert asked != [neighbour.sample % 8 for neighbour in result.neighbours]
    assert read_result(result_path(run.path, spec)).neighbours == result.neighbours
    with Image.open(sheet_path(result_path(run.path, spec))) as image:
        sheet = np.asarray(image).astype(int)
    for place, (neighbour, label) in enumerate(zip(result.neighbours, asked, strict=True)):
        images = spec.make(loaded, None, neighbour.sample, 1, labels=torch.tensor([label]))
        apart = np.abs(to_uint8(images)[0] - sheet[:16, place * 16 : place * 16 + 16])
        assert apart.mean() < 2


def test_where_memory_is_short_half_as_many_are_drawn_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(write_run(tmp_path, "short", 20, config=CARS))
    plain, asked = SamplingSpec.make, []

    def make(spec: SamplingSpec, loaded: Any, on_step: Any, first: int, n: int, **more: Any):
        asked.append((first, n))
        if n > 8:
            raise RuntimeError("CUDA out of memory.")
        return plain(spec, loaded, on_step, first, n, **more)

    monkeypatch.setattr(SamplingSpec, "make", make)
    result, yielded = measure(run, 20, n=20)
    assert asked == [(0, 20), (0, 10), (0, 5), (5, 5), (10, 5), (15, 5)]
    assert yielded == sorted(yielded) and result.metrics["frechet"].n_fake == 20


def measure_brightness(sets: Comparison) -> dict[str, Estimate]:
    means = sets.fake["pixels"].mean(axis=(1, 2, 3))
    return {"brightness": Estimate(float(means.mean()), 0.0, 255.0, 0, len(means))}


def test_a_new_metric_is_one_function_and_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = Metric("brightness", "Brightness", "floor", "Mean grey level.", measure_brightness)
    monkeypatch.setitem(METRICS, "brightness", metric)
    run = load_run(write_run(tmp_path, "bright", 20, config=CARS))
    assert run_command(run, "--n", "16", "--steps", "2") == 0
    (result,), broken = read_results(run.path)
    assert not broken
    for found in (result.metrics, result.floor, result.ceiling):
        assert 0 < found["brightness"].value < 255
    value = metric.format(result.metrics["brightness"].value)
    printed = capsys.readouterr().out
    assert "Brightness" in printed and f"{value} (0.00 to 255)" in printed
    monkeypatch.delitem(METRICS, "brightness")  # as an older version reads it
    (result,), broken = read_results(run.path)
    assert not broken and "brightness" not in result.metrics and "frechet" in result.metrics


# ------------------------------------------------------------------------------ files


def test_orders_that_differ_in_any_setting_never_share_a_file() -> None:
    """Also where that setting has what is usual, now or in another version."""
    usual = SamplingSpec(run="a", step=250)
    specs = [
        usual,
        usual.replace(sampler="ddim", steps=50),
        usual.replace(sampler="ddim"),
        usual.replace(steps=50),
        usual.replace(variance="large"),
    ]
    assert len({result_path(Path("r"), spec) for spec in specs}) == len(specs)


class WithOtherDefaults(SamplingSpec):
    sampler: str = "ddim"
    steps: int = 50


def test_a_name_does_not_depend_on_what_is_usual() -> None:
    spec = SamplingSpec(run="a", step=250, sampler="ddim", steps=50)
    before = result_path(Path("r"), spec)
    assert result_path(Path("r"), WithOtherDefaults(run="a", step=250)) == before
    usual = WithOtherDefaults(run="a", step=250, sampler="dpmpp_2m", steps=20)
    assert result_path(Path("r"), usual) != before


def test_a_result_is_found_by_its_settings_whatever_its_file_is_called(
    measured: tuple[Run, Result], tmp_path: Path
) -> None:
    _, result = measured
    other = result.model_copy(update={"spec": again(result), "seconds": 9.0})
    path, wrong = write_result(tmp_path, result, b"a sheet"), write_result(tmp_path, other)
    path.rename(old := path.with_name("step-00000040-1a2b3c4d.json"))
    wrong.rename(path)  # the name that the settings give, with other settings in it
    assert result_path(tmp_path, result.spec) == old
    assert result_path(tmp_path, other.spec) == path
    # An older file lacks what newer versions added, and has then what was the only way.
    values = json.loads(old.read_text())
    del values["order"]["variance"], values["checkpoint_time"], values["neighbours"][0]["label"]
    old.write_text(json.dumps(values))
    assert result_path(tmp_path, result.spec) == old
    assert read_result(old).checkpoint_time == 0
    assert write_result(tmp_path, result) == old
    assert len(read_results(tmp_path)[0]) == 2


def test_the_results_of_the_shipped_run_are_those_of_its_checkpoint() -> None:
    run = load_run(Path(__file__).parents[3] / "checkpoints" / "demo-cars")
    results, broken = read_results(run.path)
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None and not broken
    ways = {(result.spec.sampler, result.spec.steps) for result in results}
    assert ways >= {("dpmpp_2m", 5), ("dpmpp_2m", 10), ("dpmpp_2m", 20)}
    for result in results:
        spec = result.spec
        how: dict[str, Any] = {"steps": spec.steps, "spacing": spec.spacing}
        asked = make_spec(run.name, checkpoint, n=1024, sampler=spec.sampler, **how)
        assert same_sampling(asked, spec)
        assert result.checkpoint_time == checkpoint.time
        assert sheet_path(result_path(run.path, asked)).is_file()
        assert set(result.metrics) == set(result.floor) == set(result.ceiling)
        assert all(neighbour.label in cars.CLASSES for neighbour in result.neighbours)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("{", "is not readable JSON"),
        ({"version": 0}, "another version"),
        ({"metrics": {"frechet": {"value": "near"}}}, "metrics.frechet.value is 'near'"),
        ({"order": {"run": "a"}}, "The settings: step is missing"),
        ({"seconds": None}, "seconds is null; it must be a number"),
        ({"seconds": float("nan")}, "seconds is nan; it must be a finite number"),
        ({"evaluations": -1}, "evaluations is -1; it must be at least 0"),
        ({"neighbours": 3}, "neighbours is 3; it must be a list"),
    ],
)
def test_a_file_that_is_not_sound_is_named_and_skipped(
    change: str | dict, sentence: str, measured: tuple[Run, Result], tmp_path: Path
) -> None:
    _, result = measured
    path = write_result(tmp_path, result)
    other = write_result(
        tmp_path, result.model_copy(update={"seconds": 9.0, "spec": again(result)})
    )
    values = change if isinstance(change, str) else json.loads(path.read_text()) | change
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    with pytest.raises(RecordError, match=sentence):
        read_result(path)
    results, broken = read_results(tmp_path)
    assert [found.seconds for found in results] == [9.0]
    assert [path.name in words for words in broken] == [True]
    assert other != path


def again(result: Result) -> SamplingSpec:
    return result.spec.replace(seed=1)


def test_a_file_is_named_by_the_settings_and_not_by_the_run() -> None:
    spec = SamplingSpec(run="a", step=250, n=64, classes=("x", "y"), label="x")
    assert result_path(Path("r"), spec) == result_path(
        Path("r"), spec.replace(run="b", classes=("x", "y", "z"))
    )
    others: list[dict[str, Any]]
    others = [{"seed": 1}, {"n": 65}, {"steps": 9}, {"guidance_scale": 2.0}, {"average": "short"}]
    paths = {result_path(Path("r"), spec.replace(**other)) for other in others}
    assert len(paths | {result_path(Path("r"), spec)}) == len(others) + 1


def test_files_keep_the_names_that_the_first_version_gave_them() -> None:
    quality = Path(__file__).parents[2] / "fixtures/runs/conditional/quality"
    results = [read_result(path) for path in sorted(quality.glob("*.json"))]
    named = {result_path(Path("r"), result.spec).name for result in results if result}
    assert named and named == {path.name for path in quality.glob("*.json")}


def test_values_are_written_as_people_read_them() -> None:
    frechet, recall = METRICS["frechet"].format_estimate, METRICS["recall"].format_estimate
    assert frechet(Estimate(12.345, 11.8, 1234.5, 9, 9)) == "12.3 (11.8 to 1,234)"
    assert recall(Estimate(0.871, 0.85, 0.9, 9, 9)) == "87.1 % (85.0 to 90.0 %)"


# ------------------------------------------------------------------------------ the command


def run_command(run: Run, *words: str) -> int:
    return main(["evaluate", "--run", str(run.path), "--device", "cpu", *words])


def test_the_command_measures_each_number_of_steps_and_prints_them_between_floor_and_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    run = load_run(write_run(tmp_path, "tiny", 20, 40, config=CARS))
    assert run_command(run, "--n", "16", "--steps", "2", "3", "--sampler", "ddim") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 90
    first = [line.split("  ")[0] for line in lines[1:5]]
    assert first == [
        "held-out images",
        "step 40, ddim, 2 steps",
        "step 40, ddim, 3 steps",
        "noise",
    ]
    assert len(read_results(run.path)[0]) == 2
    assert run_command(run, "--n", "16", "--steps", "2", "--sampler", "ddim", "--all-steps") == 0
    assert [r.spec.step for r in read_results(run.path)[0]] == [20, 40, 40]


def test_autoguided_images_are_measured_and_again_once_the_guide_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(write_run(tmp_path, "tiny", 20, 40, config=CARS))
    words = ["--n", "16", "--steps", "2", "--guidance-scale", "2", "--guide", "tiny@20"]
    assert run_command(run, *words, "--guidance-interval", "0", "9") == 0
    assert "autoguidance 2 by step 20 where 0 ≤ t ≤ 9" in capsys.readouterr().out
    assert run_command(run, *words) == 0
    results, _ = read_results(run.path)
    assert [result.evaluations for result in results] == [3, 4]
    guide = run.checkpoint(20)
    assert [result.guide_time for result in results] == [guide.time] * 2
    assert results[0].metrics["frechet"] != results[1].metrics["frechet"]
    assert run_command(run, *words) == 0
    assert read_results(run.path)[0][1].written == results[1].written  # as it was
    write_checkpoint(run.path, 20, CARS, mean=0.1)
    assert run_command(run, *words) == 0
    again = read_results(run.path)[0]
    assert len(again) == 2 and again[1].written > results[1].written
    assert again[1].guide_time == run.checkpoint(20).time


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--guide", "none@3", "--guidance-scale", "2"], 1, "There is no run"),
        (["--guide-average", "main", "--guidance-scale", "2"], 2, "cannot guide itself"),
        (["--n", "3"], 2, "n is 3; it must be from 16 to 4,096."),
        (["--n", "5000"], 2, "n is 5000; it must be from 16 to 4,096."),
        (["--n", "16", "--sampler", "magic"], 2, "magic"),
        (["--n", "16", "--steps", "0"], 2, "steps is 0; it must be from 1 to"),
        (["--n", "16", "--guidance-scale", "2"], 2, "without classes"),
        (["--seed", "-1"], 2, "seed is -1; it must be from 0 to"),
        (["--step", "7"], 1, "no checkpoint of step 7"),
        (["--average", "short"], 2, "no averaged weights called 'short'"),
    ],
)
def test_the_command_refuses_with_one_line(
    words: list[str],
    code: int,
    sentence: str,
    measured: tuple[Run, Result],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(measured[0], *words) == code
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert "\n" not in said


def test_guidance_is_refused_where_the_network_never_learned_any_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = CARS.network_args | {"num_classes": 3}
    config = CARS.replace(network_args=network, label_dropout=0.0)
    run = load_run(write_run(tmp_path, "always", 20, config=config))
    assert run_command(run, "--n", "16", "--steps", "2", "--guidance-scale", "2") == 2
    assert capsys.readouterr().err.splitlines() == [
        "always at step 20 was trained with the class always given, so it cannot be guided away "
        "from any class; set the guidance scale to 1 or choose a negative class."
    ]
    assert not (run.path / "quality").exists()
    assert make_spec(run.name, run.checkpoint(20), n=16).guidance_scale == 1


def test_each_sampler_is_measured_with_its_usual_spacing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(write_run(tmp_path, "tiny", 20, config=CARS))
    assert make_spec(run.name, run.checkpoint(20), n=16).spacing == "trailing"
    words = ["--n", "16", "--sampler", "heun", "--steps"]
    assert run_command(run, *words, "12") == 0
    assert "Warning" not in capsys.readouterr().err
    assert run_command(run, *words, "4", "--spacing", "trailing") == 0
    assert "Warning: heun diverges" in capsys.readouterr().err
    assert {each.spec.spacing for each in read_results(run.path)[0]} == {"karras", "trailing"}


def test_what_an_interrupted_command_had_measured_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(write_run(tmp_path, "tiny", 20, config=CARS))
    plain = SamplingSpec.make

    def interrupted(spec: SamplingSpec, *words: Any, **more: Any) -> Tensor:
        if spec.steps == 3:
            raise KeyboardInterrupt
        return plain(spec, *words, **more)

    monkeypatch.setattr(SamplingSpec, "make", interrupted)
    assert run_command(run, "--n", "16", "--steps", "2", "3") == 130
    assert [result.spec.steps for result in read_results(run.path)[0]] == [2]


def test_a_flow_is_drawn_from_by_its_own_samplers(tmp_path: Path) -> None:
    config: RunConfig = tiny(prediction_type="flow_prediction")
    run = load_run(write_run(tmp_path, "flow", 20, config=config))
    spec = make_spec(run.name, run.checkpoint(20), n=16)
    assert (spec.sampler, spec.flow) == ("euler", True)
    with pytest.raises(ConfigError, match="no sampler 'ddim'; choose one of euler, heun"):
        make_spec(run.name, run.checkpoint(20), n=16, sampler="ddim")
    checkpoint = run.checkpoint(20)
    with pytest.raises(ConfigError, match="a flow has none"):
        list(evaluate(run, checkpoint, spec, load_model(checkpoint), bits=True))


def test_a_distilled_run_is_measured_in_few_steps(tmp_path: Path) -> None:
    settings = {"objective": "consistency", "init_from": "x", "min_snr_gamma": 0.0}
    run = load_run(write_run(tmp_path, "fast", 20, config=CARS.replace(**settings)))
    assert run_command(run, "--n", "16") == 0
    assert [(r.spec.sampler, r.spec.steps) for r in read_results(run.path)[0]] == [
        ("consistency", 1),
        ("consistency", 2),
    ]
    assert run_command(run, "--n", "16", "--bits-per-dim") == 2  # it has no meaning


def test_fid_and_kid_are_kept_where_they_can_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Means:
        def features(self, images: np.ndarray) -> np.ndarray:
            return images.mean((1, 2))

    def estimates(real: np.ndarray, fake: np.ndarray, seed: int) -> dict[str, Estimate]:
        gap = float(np.abs(real.mean() - fake.mean()))
        return dict.fromkeys(("fid", "kid"), Estimate(gap, 0.0, 2 * gap, len(real), len(fake)))

    monkeypatch.setattr(evaluator, "load_inception", lambda *_: (Means(), ""))
    monkeypatch.setattr(metrics, "fidelity_estimates", estimates)
    run = load_run(write_run(tmp_path, "fid", 20, config=CARS))
    result, _ = measure(run, 20, n=16)
    assert result.notes == ()
    for name in ("fid", "kid"):
        for found in (result.metrics, result.floor, result.ceiling):
            assert (found[name].n_real, found[name].n_fake) == (16, 16)
        assert result.floor[name].value < result.ceiling[name].value


def test_dinov2_is_measured_with_the_file_that_the_setting_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Means:
        name = "weights.pth"

        def features(self, images: np.ndarray) -> np.ndarray:
            return images.mean((1, 2))

    monkeypatch.setattr(evaluator, "load_dinov2", lambda *_: (Means(), ""))
    run = load_run(write_run(tmp_path, "large", 20, config=CARS))
    result, _ = measure(run, 20, n=16)
    assert result.notes[1:] == (
        "FD-DINOv2: weights weights.pth, images resized to 224 × 224 pixels.",
    )
    assert result.floor["fd_dinov2"].value < result.ceiling["fd_dinov2"].value
    monkeypatch.setattr(evaluator, "load_dinov2", lambda *_: (None, "No such file."))
    other, _ = measure(run, 20, n=17)
    assert other.notes[1:] == ("No such file.",) and "fd_dinov2" not in other.metrics


def test_a_network_of_nan_ends_the_command_with_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(write_run(tmp_path, "broken", config=CARS))
    write_checkpoint(run.path, 20, CARS, mean=float("nan"))
    assert run_command(run, "--n", "16", "--steps", "2") == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == (
        "The network of broken at step 20 answers with NaN or infinity; choose another checkpoint."
    )
    assert not (run.path / "quality").exists()
    checkpoint = run.checkpoint(20)
    spec = make_spec(run.name, checkpoint, n=16)
    store = build_store(CARS.data, CARS.image_size)
    with pytest.raises(ValueError, match="no finite bits per dimension"):
        list(evaluator.measure_bits(checkpoint, spec, load_model(checkpoint), store, 0))
