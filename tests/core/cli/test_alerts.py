"""`alerts` and what `doctor` says of them."""

from __future__ import annotations

import json

import pytest

from diffusion_core.cli import doctor
from diffusion_core.cli.main import main
from tests.message_servers import SECRET, Answer, webhook_server

HOOK = "DIFFUSION_LAB_ALERT_WEBHOOK"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_without_alerts_there_is_nothing_to_test(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alerts"]) == 0
    assert main(["alerts", "test"]) == 1
    assert capsys.readouterr().out == "No alerts are set; see docs/alerts.md.\n" * 2


def test_a_test_says_what_became_of_each_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with webhook_server() as one, webhook_server(Answer(404)) as two:
        monkeypatch.setenv(HOOK, f"{one.url} slack+{two.url}")
        assert main(["alerts", "test"]) == 1
        assert capsys.readouterr().out == "json: sent.\nslack: not sent: it answered 404.\n"
        assert main(["alerts", "test"]) == 0
        assert capsys.readouterr().out == "json: sent.\nslack: sent.\n"
    assert [body["event"] for body in one.bodies] == ["test", "test"]
    assert main(["alerts"]) == 0
    assert capsys.readouterr().out.startswith("Alerts go to: json, slack. Events: finished, sto")


def test_a_setting_that_cannot_be_used_is_said_without_the_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(HOOK, f"https://ann:{SECRET}@example.org/{SECRET}")
    monkeypatch.setattr(doctor, "seconds_per_image", lambda *given: 0.001)
    assert main(["alerts", "test"]) == 1
    assert main(["doctor", "--json"]) == 1
    out, err = capsys.readouterr()
    why = f"{HOOK} has a user or password before the host; leave them out."
    assert err == f"{why}\n"
    assert json.loads(out)["problems"] == [why]
    assert SECRET not in out + err


def test_doctor_names_who_gets_alerts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "seconds_per_image", lambda *given: 0.001)
    monkeypatch.setenv(HOOK, f"https://hooks.slack.com/{SECRET}")
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "alerts       slack\n" in said
    assert SECRET not in said
