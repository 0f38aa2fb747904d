"""Sign-in at a real server, by cookies of our own making: who is an operator, and for how long."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import itsdangerous
import pytest

from diffusion_core.runs.history import read_history
from tests.browser.server import Server, start_server
from tests.faults.visitors import Visitor, in_a_thread
from tests.sign_in import claims, connection, secrets_toml
from tests.tiny_runs import set_running, write_run

OPERATORS = ["ann@LAB.org"]
MONTH = 32 * 86_400


def write_secrets(folder: Path, operators: list[str]) -> None:
    """At once: a server that looked at half a file would keep it until it looks again."""
    new = folder / "new-secrets.toml"
    new.write_text(secrets_toml(operators))
    new.replace(folder / "secrets.toml")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sign-in")
    write_secrets(folder, OPERATORS)
    with start_server(folder, script="tests/faults/app_with_secrets.py") as running:
        yield running


@pytest.fixture(autouse=True)
def secrets_as_before(server: Server) -> Iterator[None]:
    yield
    write_secrets(server.runs_dir.parent, OPERATORS)


def visit(server: Server, said: dict[str, Any], query: str = "form_open=true", **how: Any):
    return Visitor(server.url, "training", query, *connection(server.url, said, **how))


def labels(visitor: Visitor) -> list[str]:
    return [button.label for button in visitor.elements("button")]


def role(visitor: Visitor) -> str:
    said = [text.body for text in visitor.elements("markdown") if "Role: " in text.body]
    [sentence] = said
    found = sentence.partition("Role: ")[2].partition(".")[0]
    assert ("Start" in labels(visitor)) == (found == "operator")
    return found


@pytest.mark.parametrize(
    ("person", "operators", "expected"),
    [
        ("Ann", ["ann@LAB.org"], "operator"),  # Ann@lab.org
        ("Ann", ["bob@lab.org", "@lab.org"], "operator"),
        ("Ann", [], "viewer"),
        ("Eve", ["ann@lab.org", "@lab.org"], "viewer"),  # of lab.org.example
        ("Bob", ["bob@lab.org", "@lab.org"], "viewer"),  # the provider has not verified it
    ],
)
def test_who_is_signed_in_and_listed_is_an_operator(
    person: str, operators: list[str], expected: str, server: Server
) -> None:
    write_secrets(server.runs_dir.parent, operators)

    async def look() -> None:
        async with visit(server, claims(person)) as visitor:
            assert role(visitor) == expected
            assert "Sign out" in labels(visitor) and "Sign in" not in labels(visitor)

    in_a_thread(look())


def test_a_visitor_from_this_machine_is_a_viewer_until_signed_in(server: Server) -> None:
    async def look() -> None:
        async with Visitor(server.url, "training", "form_open=true") as visitor:
            assert role(visitor) == "viewer"
            assert "Sign in" in labels(visitor) and "Sign out" not in labels(visitor)

    in_a_thread(look())


@pytest.mark.parametrize("fault", ["forged", "expired", "signed in long ago", "of another app"])
def test_a_cookie_that_does_not_count_is_that_of_a_viewer(
    fault: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, how = claims("Ann"), {}
    if fault == "forged":
        how = {"secret": "what somebody has guessed"}
    elif fault == "expired":
        then = int(time.time()) - MONTH
        monkeypatch.setattr(itsdangerous.TimestampSigner, "get_timestamp", lambda self: then)
    elif fault == "signed in long ago":
        said["iat"] -= MONTH
    else:
        how = {"origin": "https://another.example"}

    async def look() -> None:
        async with visit(server, said, **how) as visitor:
            assert role(visitor) == "viewer"
            assert "Sign in" in labels(visitor)

    in_a_thread(look())


def test_a_list_that_was_changed_counts_when_the_button_is_pressed(server: Server) -> None:
    path = write_run(server.runs_dir, "rests", state="stopped")

    async def press() -> None:
        async with visit(server, claims("Ann"), "run=rests") as visitor:
            write_secrets(server.runs_dir.parent, ["eve@lab.org"])
            await visitor.run(pressed="Resume")
            [toast] = visitor.elements("toast")
            assert toast.body == (
                "Only the operator can resume a run; your role is viewer. Your address is not "
                "among DIFFUSION_LAB_OPERATORS."
            )

    in_a_thread(press())
    assert json.loads((path / "status.json").read_text())["state"] == "stopped"
    assert read_history(path).entries == ()


def test_who_signs_out_is_signed_out_in_all_tabs(server: Server) -> None:
    said = claims("Ann")

    async def leave() -> None:
        async with visit(server, said) as one, visit(server, said) as other:
            assert role(one) == role(other) == "operator"
            await one.run(pressed="Sign out")
            [sent] = [m for m in one.shown if m.WhichOneof("type") == "auth_redirect"]
            assert sent.auth_redirect.url == "/auth/logout"
            assert role(one) == "viewer"
            await other.run()
            assert role(other) == "viewer"
        async with visit(server, said) as copied, visit(server, claims("Ann")) as again:
            assert (role(copied), role(again)) == ("viewer", "operator")

    in_a_thread(leave())


def test_a_deed_has_the_name_of_who_did_it(server: Server) -> None:
    path = write_run(server.runs_dir, "busy")
    set_running(path)

    async def pause() -> None:
        async with visit(server, claims("Ann"), "run=busy") as visitor:
            await visitor.run(pressed="Pause")

    in_a_thread(pause())
    [entry] = read_history(path).entries
    assert (entry.event, entry.by) == ("pause", "Ann@lab.org")
    [log] = (server.runs_dir / ".logs").glob("*.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    [line] = [each for each in lines if each["event"] == "request to a run"]
    assert (line["run"], line["user"]) == ("busy", "Ann@lab.org")
