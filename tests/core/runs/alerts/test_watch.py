"""What is news of a folder of runs, and that it is sent once, whoever looks and however often."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffusion_core.runs.alerts import ledger, send, watch
from diffusion_core.runs.alerts.ledger import Deed
from diffusion_core.runs.alerts.settings import AlertSettings, read_alerts
from diffusion_core.runs.alerts.watch import Watch
from diffusion_core.runs.status import StatusRecord, read_status, write_status
from diffusion_core.runs.sweep_file import FOLDER, Plan, Round, State, Sweep, write_sweep
from tests.message_servers import SECRET, Answer, WebhookServer, webhook_server
from tests.tiny_runs import write_run

GONE = 2**22 + 1  # a process that there is not


@pytest.fixture
def server() -> Iterator[WebhookServer]:
    with webhook_server() as running:
        yield running


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds by which all clocks are ahead."""
    ahead, now, monotonic = [0.0], time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: now() + ahead[0])
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + ahead[0])
    return ahead


def settings(server: WebhookServer, **more: str) -> AlertSettings:
    given = {"DIFFUSION_LAB_ALERT_WEBHOOK": server.url}
    return read_alerts(given | {f"DIFFUSION_LAB_ALERT_{name}": text for name, text in more.items()})


def set_state(run: Path, state: str, **fields: object) -> None:
    write_status(run, read_status(run).replace(state=state, heartbeat=time.time(), **fields))


def at_work(runs_dir: Path, name: str, **fields: Any) -> Path:
    """A run that this process, which is alive, trains."""
    given: dict[str, Any] = {"state": "running", "step": 10, "started": time.time()}
    given |= {"pid": os.getpid(), "host": socket.gethostname(), "heartbeat": time.time()}
    return write_run(runs_dir, name, **(given | fields))


def events(server: WebhookServer) -> list[tuple[str, str | None]]:
    return [(body["event"], body.get("run")) for body in server.bodies]


ONE = "finished,stopped,failed,lost,stalled"  # without the queue


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_run_that_ends_is_told_of_once_and_again_when_it_has_been_resumed(
    state: str, runs_dir: Path, server: WebhookServer
) -> None:
    run, chosen = at_work(runs_dir, "run"), settings(server, EVENTS=ONE)
    looks = Watch(runs_dir)
    looks.look(chosen)
    set_state(run, state, error="No room.")
    for other in (looks, looks, Watch(runs_dir)):
        assert other.look(chosen) is None
    assert events(server) == [(state, "run")]
    assert server.bodies[0]["error"] == ("No room." if state == "failed" else "")
    set_state(run, "queued", queued_at=time.time(), pid=None)
    looks.look(chosen)
    set_state(run, "running", started=time.time(), pid=os.getpid())
    looks.look(chosen)
    set_state(run, state, step=40)
    Watch(runs_dir).look(chosen)
    looks.look(chosen)
    assert events(server) == [(state, "run")] * 2
    assert server.bodies[1]["step"] == 40


def test_a_run_whose_process_is_gone_is_lost(runs_dir: Path, server: WebhookServer) -> None:
    run, chosen = at_work(runs_dir, "run"), settings(server)
    looks = Watch(runs_dir)
    looks.look(chosen)
    write_status(run, read_status(run).replace(pid=GONE, heartbeat=time.time() - 100))
    looks.look(chosen)
    looks.look(chosen)
    assert events(server) == [("lost", "run")]


def test_a_run_that_ends_between_the_looks_at_its_status_and_process_is_not_lost(
    runs_dir: Path, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, chosen = at_work(runs_dir, "run"), settings(server)
    looks = Watch(runs_dir)
    looks.look(chosen)
    read = watch.read_status
    before = read(run).replace(pid=GONE, heartbeat=time.time() - 100)
    set_state(run, "finished")
    monkeypatch.setattr(
        watch, "read_status", lambda path, first=[before]: first.pop() if first else read(path)
    )
    looks.look(chosen)
    assert events(server) == [("finished", "run")]


def test_what_ended_before_alerts_were_set_is_no_news(
    runs_dir: Path, server: WebhookServer
) -> None:
    old: dict[str, Any] = {"started": 1000.0, "heartbeat": 2000.0, "pid": GONE}
    for state in ("finished", "failed", "stopped", "running"):
        write_run(runs_dir, f"old-{state}", state=state, **old)
    chosen = settings(server)
    Watch(runs_dir).look(chosen)
    # Nor is what ended while none were set: only this run was watched once, long ago.
    run = write_run(runs_dir, "again", state="finished", started=time.time(), pid=GONE)
    line = ledger.Entry(time=1500.0, deed=Deed.WATCHED).model_dump_json()
    (run / "alerts.jsonl").write_text(f"{line}\n")
    Watch(runs_dir).look(chosen)
    assert server.got == []


@pytest.mark.parametrize(("state", "pid"), [("stopped", None), ("paused", GONE)])
def test_a_run_that_is_cancelled_in_the_queue_or_paused_has_not_ended(
    state: str, pid: int | None, runs_dir: Path, server: WebhookServer
) -> None:
    run, chosen = at_work(runs_dir, "run", state="queued", pid=None), settings(server)
    looks = Watch(runs_dir)
    looks.look(chosen)
    set_state(run, state, pid=pid)
    looks.look(chosen)
    assert server.got == []
    assert (runs_dir / "run" / "alerts.jsonl").exists()


def test_only_the_events_that_are_chosen_are_told_of(runs_dir: Path, server: WebhookServer) -> None:
    one, two = at_work(runs_dir, "one"), at_work(runs_dir, "two")
    chosen, looks = settings(server, EVENTS="failed"), Watch(runs_dir)
    looks.look(chosen)
    set_state(one, "finished")
    set_state(two, "failed")
    looks.look(chosen)
    assert events(server) == [("failed", "two")]


def test_another_choice_of_events_or_targets_tells_of_nothing_that_is_past(
    runs_dir: Path, server: WebhookServer, clock: list[float]
) -> None:
    one, two = at_work(runs_dir, "one"), at_work(runs_dir, "two")
    chosen = settings(server, EVENTS="failed")
    Watch(runs_dir).look(chosen)
    set_state(one, "failed")
    set_state(two, "finished")
    Watch(runs_dir).look(chosen)
    assert events(server) == [("failed", "one")]
    clock[0] += watch.NEWS_SECONDS + 10
    Watch(runs_dir).look(settings(server))
    with webhook_server() as other:
        both = f"{server.url} slack+{other.url}"
        more = read_alerts({"DIFFUSION_LAB_ALERT_WEBHOOK": both})
        Watch(runs_dir).look(more)
        clock[0] = 0.0
        Watch(runs_dir).look(more.model_copy(update={"alert_events": chosen.alert_events}))
        assert other.got == []
    assert events(server) == [("failed", "one")]


# ---------------------------------------------------------------- the queue


def test_the_end_of_the_queue_is_one_message(runs_dir: Path, server: WebhookServer) -> None:
    chosen, looks = settings(server, EVENTS="queue_empty"), Watch(runs_dir)
    write_run(runs_dir, "old", state="finished", started=1000.0, heartbeat=2000.0, pid=GONE)
    one = at_work(runs_dir, "one")
    two = at_work(runs_dir, "two", state="queued", pid=None, queued_at=time.time())
    looks.look(chosen)
    set_state(one, "failed")
    looks.look(chosen)
    assert server.got == []
    set_state(two, "finished", pid=GONE, started=time.time())
    for other in (looks, Watch(runs_dir), looks):
        other.look(chosen)
    assert events(server) == [("queue_empty", None)]
    assert (server.bodies[0]["ended"], server.bodies[0]["runs"]) == (
        "1 finished, 1 failed",
        "one, two",
    )
    # The next queue is another; deleting a run does not make one.
    shutil.rmtree(two)
    looks.look(chosen)
    three = at_work(runs_dir, "three")
    looks.look(chosen)
    set_state(three, "finished")
    looks.look(chosen)
    assert [body["runs"] for body in server.bodies] == ["one, two", "three"]


def test_one_run_alone_is_told_of_once_and_not_as_a_queue_too(
    runs_dir: Path, server: WebhookServer
) -> None:
    chosen, looks = settings(server), Watch(runs_dir)
    run = at_work(runs_dir, "run")
    looks.look(chosen)
    set_state(run, "finished")
    looks.look(chosen)
    looks.look(chosen)
    assert events(server) == [("finished", "run")]


def test_a_queue_that_is_only_paused_has_not_ended(runs_dir: Path, server: WebhookServer) -> None:
    chosen, looks = settings(server), Watch(runs_dir)
    run = at_work(runs_dir, "run")
    looks.look(chosen)
    set_state(run, "paused")
    looks.look(chosen)
    looks.look(chosen)
    assert server.got == []


def test_a_sweep_is_over_when_its_last_run_has_ended(runs_dir: Path, server: WebhookServer) -> None:
    chosen, looks = settings(server, EVENTS="queue_empty"), Watch(runs_dir)
    sweep = Sweep(
        name="lr",
        plan=Plan(vary=("learning_rate=0.1,0.2",)),
        judge="validation_loss",
        host="here",
        device="cpu",
        created=time.time(),
        rounds=(Round(until=0, runs=("lr-01", "lr-02")),),
    )
    (runs_dir / FOLDER).mkdir()
    write_sweep(runs_dir, sweep)
    one = at_work(runs_dir, "lr-01")
    looks.look(chosen)
    set_state(one, "finished")
    looks.look(chosen)  # before the next run is started
    assert server.got == []
    two = at_work(runs_dir, "lr-02")
    looks.look(chosen)
    set_state(two, "paused")
    write_sweep(runs_dir, sweep.replace(state=State.OVER))
    looks.look(chosen)
    assert [body["runs"] for body in server.bodies] == ["lr-01"]


# ---------------------------------------------------------------- stalls


def test_a_run_that_makes_no_step_for_long_is_stalled_once(
    runs_dir: Path, server: WebhookServer, clock: list[float]
) -> None:
    chosen, looks = settings(server), Watch(runs_dir)
    run = at_work(runs_dir, "run")
    looks.look(chosen)
    clock[0] += 290
    looks.look(chosen)
    assert server.got == []
    clock[0] += 20
    for _ in range(3):
        looks.look(chosen)
    assert events(server) == [("stalled", "run")]
    assert (server.bodies[0]["step"], server.bodies[0]["idle"] > 300) == (10, True)
    # It goes on: the next pause has to be twice as long.
    set_state(run, "running", step=11)
    looks.look(chosen)
    clock[0] += 590
    looks.look(chosen)
    assert len(server.got) == 1
    clock[0] += 20
    looks.look(chosen)
    assert events(server) == [("stalled", "run")] * 2


def test_slow_steps_are_no_stall(runs_dir: Path, server: WebhookServer, clock: list[float]) -> None:
    chosen, looks = settings(server), Watch(runs_dir)
    at_work(runs_dir, "run", images_per_second=1.0)  # a batch of 32: 20 steps are 640 seconds
    looks.look(chosen)
    clock[0] += 630
    looks.look(chosen)
    assert server.got == []
    clock[0] += 20
    looks.look(chosen)
    assert events(server) == [("stalled", "run")]


def test_preparing_and_waiting_are_no_stall_while_the_heart_beats(
    runs_dir: Path, server: WebhookServer, clock: list[float]
) -> None:
    chosen, looks = settings(server), Watch(runs_dir)
    starting = at_work(runs_dir, "starting", state="starting", step=0)
    at_work(runs_dir, "queued", state="queued")
    measuring = at_work(runs_dir, "measuring", message="Measuring the quality of step 10.")
    looks.look(chosen)
    clock[0] += 400
    set_state(starting, "starting")
    set_state(measuring, "running")
    looks.look(chosen)
    assert server.got == []
    set_state(measuring, "paused")
    clock[0] += 400
    looks.look(chosen)
    assert events(server) == [("stalled", "starting")]


# ---------------------------------------------------------------- once, and again


def test_a_message_that_was_refused_for_now_is_sent_later_by_whoever_looks(
    runs_dir: Path, clock: list[float]
) -> None:
    answers = Answer(503), Answer(429, {"Retry-After": "100"})
    with webhook_server(*answers) as server:
        chosen, looks = settings(server), Watch(runs_dir)
        run = at_work(runs_dir, "run")
        looks.look(chosen)
        set_state(run, "finished")
        wait = looks.look(chosen)
        assert wait is not None
        assert 1 < wait <= ledger.WAITS[0]
        looks.look(chosen)
        assert len(server.got) == 1
        clock[0] += 3
        wait = Watch(runs_dir).look(chosen)
        assert wait is not None
        assert 99 < wait <= 100  # as the service says, more than the next of WAITS
        clock[0] += 60
        looks.look(chosen)
        assert len(server.got) == 2
        clock[0] += 60
        assert looks.look(chosen) is None
        clock[0] += 9000
        Watch(runs_dir).look(chosen)
        assert events(server) == [("finished", "run")] * 3
        assert len({body["id"] for body in server.bodies}) == 1


def test_it_is_given_up_after_some_attempts(runs_dir: Path, clock: list[float]) -> None:
    with webhook_server(*[Answer(500)] * 50) as server:
        chosen, looks = settings(server), Watch(runs_dir)
        run = at_work(runs_dir, "run")
        looks.look(chosen)
        set_state(run, "finished")
        for _ in range(20):
            looks.look(chosen)
            clock[0] += 3700
        assert len(server.got) == 1 + len(ledger.WAITS)
    assert ledger.read(run / "alerts.jsonl")[-1].deed == Deed.NOT_SENT


def test_a_state_that_no_longer_holds_is_not_told_of(runs_dir: Path, clock: list[float]) -> None:
    with webhook_server(Answer(500)) as server:
        chosen, looks = settings(server), Watch(runs_dir)
        run = at_work(runs_dir, "run")
        looks.look(chosen)
        set_state(run, "failed")
        looks.look(chosen)
        set_state(run, "running", started=time.time())
        clock[0] += 60
        looks.look(chosen)
        assert len(server.got) == 1


def test_each_target_has_attempts_of_its_own(runs_dir: Path, clock: list[float]) -> None:
    with webhook_server(Answer(500)) as one, webhook_server() as two:
        chosen = read_alerts({"DIFFUSION_LAB_ALERT_WEBHOOK": f"{one.url} slack+{two.url}"})
        looks = Watch(runs_dir)
        run = at_work(runs_dir, "run")
        looks.look(chosen)
        set_state(run, "finished")
        looks.look(chosen)
        clock[0] += 10
        looks.look(chosen)
        assert (len(one.got), len(two.got)) == (2, 1)


def test_of_many_that_look_at_once_one_sends(
    runs_dir: Path, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(server)
    run = at_work(runs_dir, "run")
    Watch(runs_dir).look(chosen)
    set_state(run, "finished")
    together, read = threading.Barrier(4), ledger.read

    def slow(file: Path) -> tuple[ledger.Entry, ...]:
        found = read(file)
        time.sleep(0.02)  # for another to come between
        return found

    monkeypatch.setattr(ledger, "read", slow)

    def look() -> None:
        looks = Watch(runs_dir)
        together.wait()
        looks.look(chosen)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.got) == 1


def test_what_a_killed_process_may_have_sent_is_not_sent_again(
    runs_dir: Path, server: WebhookServer
) -> None:
    chosen = settings(server)
    run = at_work(runs_dir, "run")
    Watch(runs_dir).look(chosen)
    set_state(run, "finished")
    status = read_status(run)
    subject = ledger.Subject(watch.Event.FINISHED, watch.since_of(status))
    assert ledger.take(run / "alerts.jsonl", subject, ["json"]).targets == ["json"]
    Watch(runs_dir).look(chosen)
    assert server.got == []


def test_without_a_place_to_note_it_nothing_is_sent(
    runs_dir: Path, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, looks = settings(server), Watch(runs_dir)
    one, two = at_work(runs_dir, "one"), at_work(runs_dir, "two")
    looks.look(chosen)
    set_state(one, "finished")
    set_state(two, "finished")
    write = ledger.add_line

    def full(file: Path, record: ledger.Entry) -> None:
        if file.parent == one:
            raise OSError(28, "No space left on device", str(file))
        write(file, record)

    monkeypatch.setattr(ledger, "add_line", full)
    with pytest.raises(OSError, match="No space left"):
        looks.look(chosen)
    assert ("finished", "two") in events(server)
    assert ("finished", "one") not in events(server)


def test_runs_that_cannot_be_read_keep_no_other_from_being_told_of(
    runs_dir: Path, server: WebhookServer
) -> None:
    chosen, looks = settings(server, EVENTS=ONE), Watch(runs_dir)
    (link := at_work(runs_dir, "link") / "status.json").unlink()
    link.symlink_to("status.json")
    (at_work(runs_dir, "damaged") / "status.json").write_text("{")
    (folder := at_work(runs_dir, "folder") / "alerts.jsonl").mkdir()
    run = at_work(runs_dir, "run")
    with pytest.raises(OSError, match="is not a file"):
        looks.look(chosen)
    folder.rmdir()
    set_state(run, "finished")
    looks.look(chosen)
    assert events(server) == [("finished", "run")]


# ---------------------------------------------------------------- a trainer


def test_a_trainer_at_its_end_sends_what_it_can_in_its_time(
    runs_dir: Path, server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ALERT_WEBHOOK", server.url)
    run = at_work(runs_dir, "run")
    watch.begin(run, read_status(run))
    set_state(run, "finished")
    watch.end(runs_dir)
    assert events(server) == [("finished", "run")]


def test_a_trainer_leaves_the_rest_to_others(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    with webhook_server(Answer(hangs=True)) as server:
        monkeypatch.setenv("DIFFUSION_LAB_ALERT_WEBHOOK", server.url)
        run = at_work(runs_dir, "run")
        watch.begin(run, read_status(run))
        set_state(run, "finished")
        watch.end(runs_dir, 1.3)
        assert len(server.got) == 1
        clock[0] += 10
        Watch(runs_dir).look(settings(server))
        assert events(server) == [("finished", "run")] * 2


def test_a_trainer_whose_alerts_cannot_be_used_says_so_and_goes_on(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ALERT_WEBHOOK", f"http://example.org/{SECRET}")
    watch.begin(runs_dir / "run", StatusRecord())
    watch.end(runs_dir)
    said = capsys.readouterr().err
    assert said.startswith("No alerts will be sent: DIFFUSION_LAB_ALERT_WEBHOOK must begin with")
    assert SECRET not in said


def test_no_file_has_a_secret(
    runs_dir: Path, server: WebhookServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers += [Answer(404), Answer(500), Answer(302, {"Location": server.url})]
    chosen, looks = settings(server), Watch(runs_dir)
    with caplog.at_level("DEBUG"):
        for name in ("a", "b", "c", "d"):
            run = at_work(runs_dir, name)
            looks.look(chosen)
            set_state(run, "failed")
            looks.look(chosen)
    assert len(server.got) >= 4
    files = [path for path in runs_dir.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    said = caplog.text + json.dumps([vars(record) for record in caplog.records], default=str)
    assert "was not sent to json: it answered 404." in said
    assert SECRET not in said
    assert send.SECONDS <= watch.END_SECONDS
