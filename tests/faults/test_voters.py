"""Twenty reviewers vote at once at a real server that is killed meanwhile: no vote is lost."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.exceptions import ConnectionClosed

from diffusion_core.review import polls
from diffusion_core.review.polls import Entry, Kind, Poll
from tests.browser.server import start_server
from tests.faults.processes import wait_until
from tests.faults.visitors import Visitor, in_a_thread
from tests.tiny_runs import write_run

VOTERS, QUESTIONS = 20, 12
KILLED_AFTER = 60  # votes


def make_poll(runs_dir: Path) -> Poll:
    names = ["run-a", "run-b", "run-c"]
    entries = [Entry(name=f"{name}, step 40", run=name, step=40) for name in names]
    for name in names:
        write_run(runs_dir, name)
    images = {
        entry.name: [np.full((4, 4, 3), 9 * k, np.uint8)] * QUESTIONS
        for k, entry in enumerate(entries)
    }
    texts = [f"image {k + 1}" for k in range(QUESTIONS)]
    return polls.make(runs_dir, "wheels", Kind.ALL, entries, images, texts, "Ann")


class Voter(Visitor):
    """One reviewer, whose browser remembers a name."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(url, "review", "view=Vote&vote=wheels")
        self.kept = json.dumps([f"Voter {number}", f"{number:032x}"])

    def component(self, name: str) -> tuple[str, dict]:
        [found] = [each for each in self.elements("bidi_component") if each.component_name == name]
        return found.id, json.loads(found.json)

    async def tell(self, component: str, event: str, value: object) -> None:
        text = json.dumps([{"event": event, "value": value}])
        id = f"$$STREAMLIT_INTERNAL_KEY_{component}__events"
        state = WidgetState(id=component, json_value="{}")  # which a browser sends too
        await self.send(self.message([state, WidgetState(id=id, json_trigger_value=text)]))

    async def vote(self, cast: list[str]) -> None:
        """On all questions that are left; `cast` gets a line for each vote that was taken."""
        await self.tell(self.component("memory")[0], "kept", self.kept)
        while not any(each.label == "Show the results" for each in self.elements("button")):
            id, shown = self.component("ballot")
            before = shown["question"]
            await self.tell(id, "answer", {"question": before, "place": 1})
            cast.append(f"{self.kept} {shown['at']}")


async def vote_until_the_end(url: str, cast: list[str]) -> None:
    everybody = asyncio.Barrier(VOTERS)

    async def visit(number: int) -> None:
        try:
            async with Voter(url, number) as voter:
                await everybody.wait()
                await voter.vote(cast)
        except (ConnectionClosed, OSError):  # the server was killed
            assert len(cast) >= KILLED_AFTER

    async with asyncio.TaskGroup() as group:
        for number in range(VOTERS):
            group.create_task(visit(number))


@pytest.mark.long
def test_no_vote_that_was_taken_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    cast: list[str] = []
    with start_server(tmp_path) as server:
        poll = make_poll(server.runs_dir)

        async def vote_and_kill() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(vote_until_the_end(server.url, cast))
                while len(cast) < KILLED_AFTER:
                    await asyncio.sleep(0.01)
                server.process.kill()

        in_a_thread(vote_and_kill())
        server.process.wait()
    taken = len(cast)
    kept = polls.votes(poll)
    assert not kept.problem
    assert KILLED_AFTER <= taken <= len(kept.entries) < VOTERS * QUESTIONS
    with start_server(tmp_path) as server:
        in_a_thread(vote_until_the_end(server.url, cast))
        wait_until(lambda: len(polls.votes(poll).entries) == VOTERS * QUESTIONS, "all have voted")
    after = polls.votes(poll).entries
    assert {vote.id for vote in kept.entries} <= {vote.id for vote in after}
    assert len({vote.by for vote in after}) == VOTERS
    assert len({vote.id for vote in after}) == VOTERS * QUESTIONS
