"""Alerts of real processes: who sends what, also when they are killed, and always once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusion_core.runs.alerts.watch import Watch
from diffusion_core.runs.run import Run
from tests.browser.server import start_server
from tests.faults.processes import (
    FOREVER,
    Forks,
    tiny,
    wait_for_progress,
    wait_for_state,
    wait_until,
)
from tests.message_servers import SECRET, Answer, WebhookServer, webhook_server


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    """Set for all processes of the test."""
    with webhook_server() as server:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("DIFFUSION_LAB_ALERT_WEBHOOK", server.url)
        yield server


def events(server: WebhookServer) -> list[str]:
    return [body["event"] for body in server.bodies]


def look(runs_dir: Path) -> None:
    from os import environ

    from diffusion_core.runs.alerts.settings import read_alerts

    Watch(runs_dir).look(read_alerts(environ))


def test_a_trainer_alone_tells_of_its_end(
    runs_dir: Path, forks: Forks, webhook: WebhookServer
) -> None:
    run = Run(runs_dir / "run")
    command = forks.train(run, tiny(steps=4))
    assert command.exit_code() == 0
    assert [(body["event"], body["step"]) for body in webhook.bodies] == [("finished", 4)]
    assert SECRET not in command.said()


@pytest.mark.long
def test_a_trainer_that_fails_or_is_stopped_tells_of_it(
    runs_dir: Path, forks: Forks, webhook: WebhookServer
) -> None:
    failing = Run(runs_dir / "failing")
    command = forks.train(failing, tiny(data="folder:/nowhere"))
    assert command.exit_code() == 1
    stopped = Run(runs_dir / "stopped")
    command = forks.train(stopped, tiny(steps=FOREVER))
    wait_for_progress(stopped)
    command.send(15)
    assert command.exit_code() == 130
    assert events(webhook) == ["failed", "stopped"]
    assert "/nowhere" in webhook.bodies[0]["error"]


@pytest.mark.long
def test_a_trainer_that_is_killed_is_told_of_by_whoever_looks_next(
    runs_dir: Path, forks: Forks, webhook: WebhookServer
) -> None:
    run = Run(runs_dir / "run")
    command = forks.train(run, tiny(steps=FOREVER))
    wait_for_progress(run)
    command.kill()
    wait_for_state(run, "lost")
    look(runs_dir)
    look(runs_dir)
    assert events(webhook) == ["lost"]


@pytest.mark.long
def test_a_trainer_that_is_killed_while_it_sends_sends_once(
    runs_dir: Path, forks: Forks, webhook: WebhookServer
) -> None:
    webhook.answers.append(Answer(hangs=True))
    run = Run(runs_dir / "run")
    command = forks.train(run, tiny(steps=4))
    wait_until(lambda: webhook.got, "the message has come")
    command.kill()
    look(runs_dir)
    assert events(webhook) == ["finished"]
    assert run.state == "finished"


@pytest.mark.long
def test_several_that_watch_and_the_trainer_send_one_message(
    runs_dir: Path, forks: Forks, webhook: WebhookServer
) -> None:
    watching = [forks.command("alerts", "watch") for _ in range(3)]
    wait_until(lambda: all("Alerts go to: json." in each.said() for each in watching), "watched")
    first, second = Run(runs_dir / "first"), Run(runs_dir / "second")
    commands = [forks.train(run, tiny(steps=20)) for run in (first, second)]
    for command in commands:
        assert command.exit_code() == 0
    wait_until(lambda: "queue_empty" in events(webhook), "the end of the queue is told of")
    look(runs_dir)
    assert sorted(events(webhook)) == ["finished", "finished", "queue_empty"]
    assert not any(SECRET in each.said() for each in [*watching, *commands])


@pytest.mark.long
def test_a_server_tells_of_a_run_whose_trainer_knows_of_no_alerts(
    tmp_path: Path, forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with webhook_server() as webhook:
        secrets = tmp_path / "secrets.toml"
        secrets.write_text(f'DIFFUSION_LAB_ALERT_WEBHOOK = ["slack+{webhook.url}"]\n')
        with start_server(tmp_path, ROLE="viewer") as server:
            run = Run(server.runs_dir / "run")
            command = forks.train(run, tiny(steps=FOREVER))
            wait_until((run.path / "alerts.jsonl").exists, "the server has seen the run")
            command.kill()
            wait_until(lambda: webhook.got, "the message has come")
            said = webhook.bodies[0]["text"]
            assert said.startswith("run is lost at step")
            logs = [*server.runs_dir.rglob("*.jsonl"), server.log]
            wait_until(
                lambda: any('"alert": "lost"' in each.read_text() for each in logs), "it is logged"
            )
            assert not any(SECRET in each.read_text() for each in logs)
    assert len(webhook.got) == 1
