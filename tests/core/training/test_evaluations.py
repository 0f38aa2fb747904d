"""Quality measured beside the training: what is kept, what ends a run, what never changes it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffusion_core.cli.evaluate import advice
from diffusion_core.evaluation.beside import spec_beside
from diffusion_core.evaluation.evaluate import evaluate
from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.results import Result, read_results, write_result
from diffusion_core.runs import checkpoint
from diffusion_core.runs.checkpoint import load_model
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.jobs import request
from diffusion_core.runs.run import Run, load_run
from diffusion_core.training import evaluations
from diffusion_core.training.evaluations import Evaluations, NotMeasured
from diffusion_core.training.trainer import train
from tests.tiny_runs import DEVICE, same, tiny

FRECHET = "evaluation.frechet_distance"
MEASURED = {"evaluate_every": 4, "evaluate_images": 16, "evaluate_steps": 2, "evaluate_share": 1}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evaluations, "_measure_apart", Evaluations._measure_here)


def found(monkeypatch: pytest.MonkeyPatch, values: Iterator[float]) -> None:
    """Every evaluation finds the next of these Fréchet distances, give or take 1."""

    def measure(self: Evaluations, step: int) -> float:
        value = next(values)
        made = self.run.checkpoint(step)
        result = Result(
            spec=spec_beside(self.run.name, made),
            metrics={"frechet": Estimate(value, value - 1, value + 1, 16, 16)},
            floor={},
            ceiling={},
            evaluations=2,
            seconds=0.0,
            device="",
            data="",
            fingerprint="",
            checkpoint_time=made.time,
            neighbours=(),
            near=0.0,
            notes=(),
            written=0.0,
        )
        write_result(self.run.path, result)
        return 0.0

    monkeypatch.setattr(Evaluations, "_measure_apart", measure)


def evaluations_of(path: Path, config: RunConfig) -> Evaluations:
    """Those of a run that nobody trains."""
    context: Any = SimpleNamespace(config=config, device=torch.device("cpu"))
    status: Any = SimpleNamespace(path=path)
    return Evaluations(context, status, 0)


def tensors(run: Path, step: int) -> list[torch.Tensor]:
    """Averaged and raw weights and the optimizer's moments."""
    state = checkpoint.load_state(run, step)
    averaged = checkpoint.load_weights(load_run(run).checkpoint(step))
    moments = [each for kept in state["optimizer"]["state"].values() for each in kept.values()]
    return [*averaged.values(), *state["model"].values(), *moments]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("network", [pytest.param("unet", marks=pytest.mark.long), "lecture"])
def test_a_run_that_is_measured_is_the_same_to_the_last_bit(tmp_path: Path, network: str) -> None:
    lecture = {"network": "lecture", "network_args": {"widths": [4, 8, 8, 8, 8]}}
    config = tiny(steps=6, **(lecture if network == "lecture" else {}))
    train(tmp_path / "plain", config, device=DEVICE)
    train(tmp_path / "measured", config.replace(**MEASURED), device=DEVICE)
    pairs = zip(tensors(tmp_path / "plain", 6), tensors(tmp_path / "measured", 6), strict=True)
    assert all(same(*pair) for pair in pairs)
    run = load_run(tmp_path / "measured")
    assert run.curve(FRECHET)["step"].tolist() == [4, 6]  # and the last step


@pytest.mark.usefixtures("in_this_process")
def test_the_curves_are_those_of_the_results_which_evaluate_finds_too(tmp_path: Path) -> None:
    # 16 held-out images are the fewest for near copies.
    config = tiny(steps=4, data="digits", channels=1, validation_count=16, **MEASURED)
    train(tmp_path / "run", config, device=DEVICE)
    run = load_run(tmp_path / "run")
    [result], broken = read_results(run.path)
    assert broken == [] and result.spec.step == 4 and result.spec.n == 16
    for name, curve in (("frechet", FRECHET), ("copies", "evaluation.copies")):
        estimate = result.metrics[name]
        for end, value in (("", estimate.value), (".low", estimate.low), (".high", estimate.high)):
            assert run.curve(curve + end)["value"].tolist() == [value]

    made = run.checkpoint(4)
    work = evaluate(run, made, spec_beside(run.name, made), load_model(made))
    with pytest.raises(StopIteration) as known:
        next(work)  # nothing is computed
    assert known.value.value == result

    assert advice(run, [result]) == []
    copied = result.metrics | {"copies": Estimate(0.9, 0.8, 1.0, 16, 16)}
    [alarm] = advice(run, [result.model_copy(update={"metrics": copied})])
    assert alarm.startswith("Memorisation: 90.0 % (80.0 to 100.0 %) of the samples of step 4 are")


def test_the_best_checkpoint_stays_and_the_run_ends_when_none_is_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 29.5 is not below the lower end of 30, and neither is anything after it.
    found(monkeypatch, itertools.chain([40, 30, 29.5], itertools.count(31)))
    config = tiny(steps=1000, checkpoint_every=0, keep_checkpoints=1, validate_every=0)
    config = config.replace(**(MEASURED | {"evaluate_every": 2, "stop_when_no_better": 3}))
    run = Run(tmp_path / "run")
    assert train(run.path, config, device=DEVICE) == "stopped"
    assert run.status.message == (
        "Fréchet distance has not become better for 3 evaluations (best: 29.5 at step 6)."
    )
    assert run.best_step(FRECHET) == 6
    kept = [step for step, _ in run.weights()]
    assert kept == [6, run.status.step]

    # Resumed, it knows what was measured, and ends with the next evaluation.
    measured = len(run.curve(FRECHET)["step"])
    assert train(run.path, resume=True, device=DEVICE) == "stopped"
    said = f"Fréchet distance has not become better for {measured + 1 - 2} evaluations (best: 29.5"
    assert run.status.message.startswith(said)


@pytest.mark.long
def test_what_a_killed_run_has_measured_is_in_its_curves_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(monkeypatch, iter([30, 20]))
    run = Run(tmp_path / "run")
    train(run.path, tiny(**MEASURED), device=DEVICE)
    (run.path / "metrics.sqlite").unlink()
    checkpoint.weights_path(run.path, 8).unlink()
    found(monkeypatch, iter([10]))
    train(run.path, resume=True, device=DEVICE)
    assert run.curve(FRECHET)["step"].tolist() == [4, 8]
    assert run.curve(FRECHET)["value"].tolist() == [30, 10]


@pytest.mark.long
def test_the_step_at_which_a_run_pauses_to_be_compared_is_measured_whatever_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(monkeypatch, iter([30, 20]))
    run = Run(tmp_path / "run")
    config = tiny(**(MEASURED | {"evaluate_every": 100, "evaluate_share": 0.0, "pause_at": 3}))
    assert train(run.path, config, device=DEVICE) == "paused"
    assert run.curve(FRECHET)["step"].tolist() == [3]
    assert train(run.path, resume=True, device=DEVICE) == "finished"
    assert run.curve(FRECHET)["step"].tolist() == [3]  # a share of nothing allows no other


def test_an_evaluation_that_fails_costs_the_training_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Evaluations, step: int) -> float:
        raise NotMeasured("Its process ended with the code -9.")

    monkeypatch.setattr(Evaluations, "_measure_apart", fail)
    run = Run(tmp_path / "run")
    assert train(run.path, tiny(**MEASURED), device=DEVICE) == "finished"
    assert run.status.warning.startswith("The quality of step 8 was not measured. ")
    assert run.status.warning.endswith("Its process ended with the code -9.")


@pytest.mark.long
def test_a_request_ends_the_last_evaluation_and_the_run_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")

    def forever(self: Evaluations, step: int) -> float:
        request(run, "stop")
        assert self.over.wait(60)
        raise evaluations.Cancelled

    monkeypatch.setattr(Evaluations, "_measure_apart", forever)
    config = tiny(**(MEASURED | {"evaluate_every": 8}))
    assert train(run.path, config, device=DEVICE) == "finished"
    assert not read_results(run.path)[0] and not run.status.warning


def test_an_evaluation_has_to_fit_the_time_that_it_may_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(evaluations, "time", SimpleNamespace(monotonic=lambda: clock))
    # At 100 images per second 300 evaluations of the network take as long as 100 images: a second.
    config = tiny(evaluate_every=1, evaluate_images=30, evaluate_steps=10, evaluate_share=0.05)
    made = evaluations_of(tmp_path, config)
    clock = 19.0
    assert not made.fit(100.0, last=False)
    clock = 21.0
    assert made.fit(100.0, last=False)
    assert not made.fit(None, last=False)  # before the first steps have been timed
    made.spent = made.newest = 2.0  # it took longer than expected
    clock = 79.0
    assert not made.fit(100.0, last=False)
    clock = 81.0
    assert made.fit(100.0, last=False)
    made.steps.add(3)
    assert not made.fit(100.0, last=False)  # one at a time
    assert made.fit(100.0, last=True)  # but the last step is not left out for it
    made.close()


def test_an_evaluation_that_the_end_of_the_run_overtakes_holds_no_checkpoint(
    tmp_path: Path,
) -> None:
    made = evaluations_of(tmp_path, tiny())
    made.cancel()
    made.start(4)
    made.thread.wait()
    assert made.under_way() == set()
    made.close()


def test_a_run_cannot_wait_for_evaluations_that_it_does_not_make() -> None:
    with pytest.raises(ConfigError, match="stop_when_no_better needs evaluations"):
        tiny(stop_when_no_better=3)
