"""Sweeps: what is made, what is started when, and which half is paused. No process is started."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from diffusion_core.cli.main import main
from diffusion_core.data.errors import DataError
from diffusion_core.review.index import Index
from diffusion_core.review.query import parse_filter
from diffusion_core.runs import jobs, queue, sweep, sweep_rounds
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.history import Event, read_history
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.metrics import MetricsWriter
from diffusion_core.runs.run import Run, RunSnapshot, snapshots
from diffusion_core.runs.sweep_file import Plan, Round, State, Sweep, read_sweep, read_sweeps
from diffusion_core.runs.sweep_rounds import advance
from tests.tiny_runs import tiny, write_checkpoint, write_run

BASE = tiny(data="digits:64", steps=40)
RATES = "learning_rate=1e-4,2e-4,3e-4,4e-4,5e-4"
NAMES = [f"lr-0{number}" for number in range(1, 6)]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs whose trainer would have been started."""
    calls: list[str] = []

    def spawn(run: RunSnapshot) -> None:
        calls.append(run.name)
        write_status(run.path, state="starting", heartbeat=time.time())

    monkeypatch.setattr(queue, "_spawn", spawn)
    return calls


def write_status(path: Path, **changes: Any) -> None:
    before = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps(before | changes))


def end(runs_dir: Path, name: str, state: str, step: int, loss: float | None = None) -> None:
    """The trainer of a run ends so, and looks after the queue."""
    path = runs_dir / name
    if not (path / "weights").exists():  # it has begun, and can be resumed
        write_checkpoint(path, 1)
        (path / "state").mkdir()
        (path / "state" / "step-00000001.pt").touch()
    if loss is not None:
        with closing(MetricsWriter(path / "metrics.sqlite", keep_up_to_step=step)) as metrics:
            metrics.add([(step, "validation_loss", loss, time.time())])
    write_status(path, state=state, step=step)
    look(runs_dir)


def look(runs_dir: Path) -> None:
    advance(runs_dir)
    jobs.start_next(runs_dir)


def begin(runs_dir: Path, **plan: Any) -> Sweep:
    return sweep.start(runs_dir, "lr", BASE, Plan(**({"vary": [RATES]} | plan)), "cpu", "ann")


def end_round(runs_dir: Path, losses: dict[str, float], step: int) -> None:
    for name, loss in losses.items():
        assert Run(runs_dir / name).state == "starting"
        end(runs_dir, name, "paused", step, loss)


def test_the_runs_are_there_before_the_first_starts_and_name_their_sweep(
    runs_dir: Path, started: list[str]
) -> None:
    made = begin(runs_dir)
    assert list(made.runs) == NAMES
    assert [Run(runs_dir / name).state for name in NAMES] == ["starting"] + 4 * ["stopped"]
    rates = [Run(runs_dir / name).config.learning_rate for name in NAMES]
    assert rates == [1e-4, 2e-4, 3e-4, 4e-4, 5e-4]
    first = Run(runs_dir / "lr-01").config
    assert first == BASE.replace(sweep="lr", learning_rate=1e-4)
    # They can be found by it, and a run like one of them is none of them.
    write_run(runs_dir, "other")
    found = [row for row in Index(runs_dir).rows() if parse_filter(made.filter)(row.values)]
    assert {row.values["name"] for row in found} == set(NAMES)
    assert first.alone() == BASE.replace(learning_rate=1e-4)
    events = read_history(runs_dir / "lr-01").entries
    assert [(each.event, each.by) for each in events] == [
        (Event.CREATED, "ann"),
        (Event.STARTED, "sweep lr"),
    ]


def test_at_most_so_many_are_at_work_or_queued(runs_dir: Path, started: list[str]) -> None:
    begin(runs_dir, at_most=2)
    # One device: the second waits in the queue, the third for the sweep.
    assert [Run(runs_dir / name).state for name in NAMES[:3]] == ["starting", "queued", "stopped"]
    for name in NAMES:
        assert Run(runs_dir / name).state == "starting"
        end(runs_dir, name, "finished", 40)
    assert started == NAMES
    assert read_sweep(runs_dir, "lr").state == State.OVER
    with pytest.raises(JobError, match="The sweep lr is over; there is nothing to stop"):
        sweep.stop(runs_dir, "lr")


def test_the_weaker_half_stays_paused_at_each_rung(runs_dir: Path, started: list[str]) -> None:
    begin(runs_dir, halve_at=[10, 20])
    assert Run(runs_dir / "lr-01").config.pause_at == 10
    end_round(runs_dir, dict(zip(NAMES, [5.0, 4.0, 1.0, 2.0, 3.0], strict=True)), 10)
    made = read_sweep(runs_dir, "lr")
    assert made.rounds[-1].runs == ("lr-03", "lr-04", "lr-05")
    assert (made.rounds[-1].until, made.judge) == (20, "validation_loss")
    assert Run(runs_dir / "lr-03").config.pause_at == 20
    assert Run(runs_dir / "lr-01").status.message == (
        "The sweep lr left it paused at step 10: number 5 of 5 by validation loss (5)."
    )
    said = read_history(runs_dir / "lr-02").entries[-1]
    assert (said.event, said.by) == (Event.SET_ASIDE, "sweep lr")
    assert said.reason == Run(runs_dir / "lr-02").status.message
    # Two equal ones: the earlier run is better.
    end_round(runs_dir, {"lr-03": 1.5, "lr-04": 1.0, "lr-05": 1.5}, 20)
    assert read_sweep(runs_dir, "lr").rounds[-1].runs == ("lr-03", "lr-04")
    assert Run(runs_dir / "lr-03").config.pause_at == 0
    for name in ("lr-03", "lr-04"):
        end(runs_dir, name, "finished", 40)
    assert read_sweep(runs_dir, "lr").state == State.OVER
    states = [Run(runs_dir / name).state for name in NAMES]
    assert states == ["paused", "paused", "finished", "finished", "paused"]
    assert len(started) == 5 + 3 + 2


def test_runs_that_failed_never_go_on_and_those_without_a_value_come_last(
    runs_dir: Path, started: list[str]
) -> None:
    begin(runs_dir, halve_at=[10])
    end(runs_dir, "lr-01", "failed", 8, 0.1)
    end(runs_dir, "lr-02", "paused", 10)
    end(runs_dir, "lr-03", "paused", 10, 2.0)
    end(runs_dir, "lr-04", "stopped", 4, 0.1)
    end(runs_dir, "lr-05", "paused", 10, 3.0)
    # Three of five may go on, and there are three.
    assert read_sweep(runs_dir, "lr").rounds[-1].runs == ("lr-02", "lr-03", "lr-05")


def test_of_several_cards_each_run_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_rounds, "device_count", lambda device: 4)
    rounds = (Round(until=0, runs=("lr-01",)),)

    def device(at_most: int, *busy: str, of: str = "cuda") -> str:
        plan = Plan(vary=[RATES], at_most=at_most)
        made = Sweep(
            name="lr",
            plan=plan,
            judge="validation_loss",
            host="here",
            device=of,
            created=0.0,
            rounds=rounds,
        )
        return sweep_rounds._free_device(made, busy)

    assert device(1) == "cuda"  # all cards
    assert [device(3), device(3, "cuda:0"), device(3, "cuda:0", "cuda:1")] == [
        "cuda:0",
        "cuda:1",
        "cuda:2",
    ]
    assert device(3, "cuda:0", "cuda:2") == "cuda:1"
    assert device(2, of="cpu") == "cpu"


def test_a_sweep_whose_runs_all_failed_is_over(runs_dir: Path, started: list[str]) -> None:
    begin(runs_dir, halve_at=[10])
    for name in NAMES:
        end(runs_dir, name, "failed", 3)
    assert started == NAMES
    assert read_sweep(runs_dir, "lr").state == State.OVER
    assert sweep.in_words(read_sweep(runs_dir, "lr"), snapshots(runs_dir)) == "It is over."


def test_where_nothing_was_measured_nothing_is_halved(runs_dir: Path, started: list[str]) -> None:
    begin(runs_dir, halve_at=[10])
    for name in NAMES:
        end(runs_dir, name, "paused", 10)
    assert read_sweep(runs_dir, "lr").rounds[-1].runs == tuple(NAMES)
    assert not any(Run(runs_dir / name).status.message for name in NAMES)


def test_a_user_who_resumes_a_run_of_the_weaker_half_is_respected(
    runs_dir: Path, started: list[str]
) -> None:
    begin(runs_dir, halve_at=[10, 20])
    end_round(runs_dir, dict(zip(NAMES, [1.0, 2.0, 3.0, 4.0, 5.0], strict=True)), 10)
    weak = Run(runs_dir / "lr-05")
    jobs.resume(weak, "cpu")
    end(runs_dir, "lr-01", "paused", 20, 1.0)
    assert weak.state == "starting"  # its turn in the queue; the sweep's next run is behind it
    assert Run(runs_dir / "lr-02").state == "queued"
    write_status(weak.path, state="running", step=25, heartbeat=time.time())
    look(runs_dir)
    assert weak.state == "running" and not weak.status.message
    assert not (weak.path / "request.json").exists()
    end(runs_dir, "lr-05", "finished", 40)
    end_round(runs_dir, {"lr-02": 2.0, "lr-03": 3.0}, 20)
    assert read_sweep(runs_dir, "lr").rounds[-1].runs == ("lr-01", "lr-02")
    assert weak.state == "finished" and not weak.status.message


def test_a_run_that_a_user_pauses_is_waited_for(runs_dir: Path, started: list[str]) -> None:
    begin(runs_dir, halve_at=[10], vary=["batch_size=4,8"])
    end(runs_dir, "lr-01", "paused", 4)
    end(runs_dir, "lr-02", "paused", 10, 2.0)
    made = read_sweep(runs_dir, "lr")
    assert sweep.in_words(made, snapshots(runs_dir)) == (
        "Round 1 of 2, until step 10: 1 of 2 runs are there. It waits for paused runs: lr-01 "
        "(step 4)."
    )
    sweep.resume(runs_dir, "lr")
    assert Run(runs_dir / "lr-01").state == "starting"
    end(runs_dir, "lr-01", "paused", 10, 1.0)
    assert read_sweep(runs_dir, "lr").rounds[-1].runs == ("lr-01",)


def test_a_sweep_that_is_stopped_starts_nothing_until_it_is_resumed(
    runs_dir: Path, started: list[str]
) -> None:
    begin(runs_dir, at_most=2)
    assert sweep.stop(runs_dir, "lr", "ann").state == State.STOPPED
    assert json.loads((runs_dir / "lr-01/request.json").read_text())["action"] == "stop"
    assert Run(runs_dir / "lr-02").state == "stopped"  # it was queued
    with pytest.raises(JobError, match="lr-01 is still ending; try again in a moment"):
        sweep.resume(runs_dir, "lr")
    end(runs_dir, "lr-01", "stopped", 3)
    assert started == ["lr-01"]
    made = read_sweep(runs_dir, "lr")
    assert sweep.in_words(made, snapshots(runs_dir)) == "It is stopped. 0 of 5 runs are there."
    assert sweep.resume(runs_dir, "lr").state == State.RUNNING
    assert started == ["lr-01", "lr-01"]
    assert Run(runs_dir / "lr-02").state == "queued"


def test_a_deleted_run_is_out_and_one_that_takes_its_name_is_no_part(
    runs_dir: Path, started: list[str]
) -> None:
    begin(runs_dir, vary=["batch_size=4,8"])
    (runs_dir / "lr-02").rename(runs_dir / "elsewhere")
    write_run(runs_dir, "lr-02", state="stopped")
    end(runs_dir, "lr-01", "finished", 40)
    assert started == ["lr-01"]
    assert read_sweep(runs_dir, "lr").state == State.OVER


def test_a_run_that_cannot_be_started_has_failed_and_the_next_one_starts(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, started: list[str]
) -> None:
    spawn = queue._spawn

    def refuse(run: RunSnapshot) -> None:
        if run.name == "lr-01":
            raise JobError("No memory.")
        spawn(run)

    monkeypatch.setattr(queue, "_spawn", refuse)
    begin(runs_dir)
    assert Run(runs_dir / "lr-01").status.error == "No memory."
    assert Run(runs_dir / "lr-02").state == "starting"
    assert started == ["lr-02"]


# ---------------------------------------------------------------- several at once, and kills


def test_any_number_of_drivers_do_a_thing_once(runs_dir: Path, started: list[str]) -> None:
    begin(runs_dir, halve_at=[10])
    for name, loss in zip(NAMES, [5.0, 4.0, 3.0, 2.0, 1.0], strict=True):
        assert Run(runs_dir / name).state == "starting"
        write_checkpoint(runs_dir / name, 1)
        (runs_dir / name / "state").mkdir()
        (runs_dir / name / "state" / "step-00000001.pt").touch()
        with closing(MetricsWriter(runs_dir / name / "metrics.sqlite")) as metrics:
            metrics.add([(10, "validation_loss", loss, time.time())])
        write_status(runs_dir / name, state="paused", step=10)
        with ThreadPoolExecutor(4) as drivers:
            list(drivers.map(look, [runs_dir] * 4))
    assert started == [*NAMES, "lr-03"]
    events = [each.event for each in read_history(runs_dir / "lr-01").entries]
    assert events.count(Event.SET_ASIDE) == 1


class Killed(BaseException):
    """As kill -9, but the process goes on."""


@pytest.mark.parametrize("moment", range(6))
def test_a_driver_that_is_killed_between_two_things_is_replaced_by_the_next(
    moment: int, runs_dir: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was the last that it did: no run starts twice, and no other half is paused."""
    begin(runs_dir, halve_at=[10], at_most=5)
    for name in NAMES:
        if name != "lr-05":
            end(runs_dir, name, "paused", 10, float(name[-1]))
    left = moment

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                raise Killed
            return function(*given, **named)

        return call

    with monkeypatch.context() as patch, pytest.raises(Killed):
        for module, name in [
            (sweep_rounds, "write_sweep"),
            (sweep_rounds, "write_status"),
            (sweep_rounds, "record"),
            (jobs, "line_up"),
        ]:
            patch.setattr(module, name, dying(getattr(module, name)))
        end(runs_dir, "lr-05", "paused", 10, 5.0)
    look(runs_dir)
    made = read_sweep(runs_dir, "lr")
    assert made.rounds[-1].runs == made.rounds[-1].started == ("lr-01", "lr-02", "lr-03")
    states = [Run(runs_dir / name).state for name in NAMES]
    assert states == ["starting", "queued", "queued", "paused", "paused"]
    assert started == [*NAMES, "lr-01"]
    assert Run(runs_dir / "lr-04").status.message


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"vary": ["image_size=16,17"]}, "lr-02 (image_size=17): image_size is 17; it must be a"),
        ({"vary": ["batch_size=4,100"]}, "lr-02: digits:64 leaves 60 images for training, fewer"),
        (
            {"vary": ["network_args.patch=2,5"]},
            "lr-02: network_args, image_size: ",
        ),
        ({"halve_at": [10, 10]}, "The steps at which the runs are halved must rise."),
        ({"halve_at": [40]}, "The runs are halved at step 40, but there are only 40 steps; choose"),
        ({"halve_at": [0]}, "halve_at.0 is 0; it must be from 1 to 1,000,000,000."),
        ({"at_most": 0}, "at_most is 0; it must be from 1 to 256."),
        ({"vary": ["batch_size=4"], "halve_at": [10]}, "There is one run; halving takes two or"),
        (
            {"vary": ["schedule.kind=linear,cosine"], "halve_at": [10]},
            "Runs that differ in schedule.kind cannot be halved by validation loss: it measures",
        ),
        (
            {"vary": ["image_size=16,24"], "halve_at": [10]},
            "Runs that differ in image_size cannot be halved by validation loss: it measures "
            "something else in each. Do not halve.",
        ),
        (
            {"vary": ["validate_every=0,10"], "halve_at": [10]},
            "Halving by validation loss needs validate_every.",
        ),
        (
            {"halve_at": [10], "judge": "quality"},
            "Halving by quality needs evaluate_every.",
        ),
    ],
)
def test_one_that_cannot_be_is_one_sentence_and_leaves_nothing(
    plan: dict[str, Any], said: str, runs_dir: Path, started: list[str]
) -> None:
    with pytest.raises((ConfigError, DataError)) as refused:
        begin(runs_dir, **plan)
    assert str(refused.value).startswith(said)
    assert not list(runs_dir.iterdir())


def test_names_that_are_taken_leave_nothing(runs_dir: Path, started: list[str]) -> None:
    write_run(runs_dir, "lr-03")
    with pytest.raises(JobError, match="already a run called lr-03; choose another name"):
        begin(runs_dir)
    (runs_dir / "lr-03").rename(runs_dir / "other")
    begin(runs_dir)
    with pytest.raises(JobError, match="already a sweep called lr; choose another name"):
        begin(runs_dir)
    with pytest.raises(JobError, match="cannot be a run's name"):
        sweep.start(runs_dir, "a b", BASE, Plan(vary=[RATES]))
    with pytest.raises(ConfigError, match="at most 70 characters"):
        sweep.start(runs_dir, "x" * 71, BASE, Plan(vary=[RATES]))
    assert {path.name for path in runs_dir.glob("[a-z]*")} == {*NAMES, "other"}


def test_a_disk_that_is_full_in_the_middle_leaves_no_run(
    runs_dir: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create = jobs.create

    def full(runs_dir: Path, name: str, *rest: Any) -> Run:
        if name == "lr-04":
            raise JobError("No space left.")
        return create(runs_dir, name, *rest)

    monkeypatch.setattr(jobs, "create", full)
    with pytest.raises(JobError, match="No space left"):
        begin(runs_dir)
    assert not list(runs_dir.glob("[a-z]*"))
    assert read_sweeps(runs_dir) == []


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"name": "other"}', '{"name": "lr", "rounds": [{"runs": ["../x"]}]}'],
)
def test_a_file_that_cannot_be_used_starts_nothing(
    text: str, runs_dir: Path, started: list[str]
) -> None:
    begin(runs_dir)
    (runs_dir / ".sweeps" / "lr.json").write_text(text)
    look(runs_dir)
    end(runs_dir, "lr-01", "finished", 40)
    assert started == ["lr-01"]
    with pytest.raises(JobError, match="sweep lr"):
        read_sweep(runs_dir, "lr")


def test_runs_that_another_host_starts_are_left_to_it(runs_dir: Path, started: list[str]) -> None:
    begin(runs_dir)
    file = runs_dir / ".sweeps" / "lr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"host": "elsewhere"}))
    end(runs_dir, "lr-01", "finished", 40)
    assert started == ["lr-01"]


# ---------------------------------------------------------------- the command line


def test_the_command_prints_starts_shows_and_stops(
    runs_dir: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(runs_dir, "base", config=BASE)
    words = ["sweep", "lr", "--like", "base", "--vary", RATES, "random_flip=true,false"]
    assert main([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["run", "learning_rate", "random_flip"]
    assert printed[10].split() == ["lr-10", "0.0005", "false"]
    assert not (runs_dir / "lr-01").exists()
    assert main([*words, "--halve-at", "10,20"]) == 0
    assert main(["sweep", "lr"]) == 0
    shown = capsys.readouterr().out
    assert "Halved after step 10, 20 by validation loss." in shown
    assert "Round 1 of 3, until step 10: 0 of 10 runs are there." in shown
    assert "lr-10  stopped      0         0.0005  false" in shown
    assert main(["sweep", "lr", "--stop"]) == 0
    assert main(["sweep"]) == 0
    assert "lr: It is stopped. Round 1 of 3" in capsys.readouterr().out
    for wrong, code in [
        (["sweep", "none"], 1),
        (["sweep", "--stop"], 2),
        (["sweep", "--vary", "batch_size=4,8"], 2),
        (["sweep", "x", "--vary", "batch=4"], 2),
        (["sweep", "x", "--vary", "batch_size=4,8", "--stop"], 2),
        (["sweep", "x", "--dry-run"], 2),
    ]:
        assert main(wrong) == code
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_the_runs_train_on_follows_from_the_rungs() -> None:
    plan = Plan(vary=["batch_size=4,8"], halve_at=[10])
    images = sweep.images_of(sweep.plan_runs("lr", BASE, plan), plan)
    # All make 10 steps, and one of two the other 30.
    assert images == {"lr-01": 4 * (10 + 15), "lr-02": 8 * (10 + 15)}


def test_quality_judges_where_it_is_measured(runs_dir: Path) -> None:
    """By the first of its curves that all runs have, at the rung and not later."""
    plan = Plan(vary=[RATES], halve_at=[10])
    measured = BASE.replace(evaluate_every=5)
    assert sweep.judge_of(BASE, plan) == "validation_loss"
    assert sweep.judge_of(measured, plan) == "quality"
    assert sweep.judge_of(measured, Plan(vary=[RATES], judge="validation_loss")) == (
        "validation_loss"
    )
    runs = [Run(write_run(runs_dir, name)) for name in ("a", "b")]
    made = Sweep(
        name="lr",
        plan=plan,
        judge="quality",
        host="here",
        device="cpu",
        created=0.0,
        rounds=(Round(until=10, runs=("a", "b")),),
    )

    def measure(run: Run, name: str, values: dict[int, float]) -> None:
        with closing(MetricsWriter(run.path / "metrics.sqlite", keep_up_to_step=99)) as metrics:
            metrics.add((step, f"evaluation.{name}", each, 0.0) for step, each in values.items())

    assert sweep_rounds.judged(made, runs, 10) == ("", {})
    measure(runs[0], "frechet_distance", {5: 9.0, 10: 8.0, 15: 7.0})
    assert sweep_rounds.judged(made, runs, 10) == ("Fréchet distance", {"a": 8.0, "b": None})
    for run, value in zip(runs, (0.2, 0.1), strict=True):
        measure(run, "sliced_wasserstein", {10: value})
    # Else "b" would be the weaker one because of what is missing.
    assert sweep_rounds.judged(made, runs, 10) == (
        "sliced Wasserstein distance",
        {"a": 0.2, "b": 0.1},
    )
