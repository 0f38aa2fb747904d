"""Roles at a real server, by connections of our own making."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from diffusion_core.runs.run import Run
from tests.browser.server import Server, start_server
from tests.faults.visitors import Visitor
from tests.tiny_runs import write_run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without a role, as it is installed; a test may write one to secrets.toml beside its runs."""
    folder = tmp_path_factory.mktemp("roles")
    with start_server(folder, script="tests/faults/app_with_secrets.py") as running:
        yield running


def do(work: Coroutine[Any, Any, None]) -> None:
    """In a thread: a browser test before this one may have left an event loop in the main one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def test_a_button_shown_to_an_operator_is_refused_once_the_role_is_viewer(server: Server) -> None:
    path = write_run(server.runs_dir, "rests", state="stopped")
    secrets = server.runs_dir.parent / "secrets.toml"

    async def press() -> None:
        async with Visitor(server.url, "training", "run=rests") as visitor:
            drawn = visitor.shown
            for label in ("Resume", "Start"):
                visitor.shown = drawn
                secrets.write_text('DIFFUSION_LAB_ROLE = "viewer"')
                await visitor.run(pressed=label)
                if label == "Resume":
                    [toast] = visitor.elements("toast")
                    assert toast.body == "Only the operator can resume a run; your role is viewer."
                labels = [button.label for button in visitor.elements("button")]
                assert "Resume" not in labels and "Start" not in labels

    do(press())
    secrets.unlink()
    assert Run(path).state == "stopped"
    assert [each.name for each in server.runs_dir.iterdir() if each.name[0] != "."] == ["rests"]


@pytest.mark.parametrize(
    ("header", "may_start"), [("Accept-Language", True), ("X-Forwarded-For", False)]
)
def test_without_a_role_a_visitor_through_a_proxy_is_a_viewer_who_reads_how_to_change_it(
    server: Server, header: str, may_start: bool
) -> None:
    async def visit() -> None:
        async with Visitor(
            server.url, "training", "form_open=true", {header: "127.0.0.1"}
        ) as visitor:
            labels = [button.label for button in visitor.elements("button")]
            assert ("Start" in labels) == may_start
            said = " ".join(text.body for text in visitor.elements("markdown"))
            assert ("set DIFFUSION_LAB_ROLE=operator on the server." in said) != may_start

    do(visit())
