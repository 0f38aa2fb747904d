"""The control of several runs in a real browser: queue, order, cancel, clone, delete, undo."""

from __future__ import annotations

import pytest
import torch
from playwright.sync_api import Locator, expect

from diffusion_core.runs.queue import read_queue
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.training.trainer import train
from tests.browser.conftest import OpenPage
from tests.browser.server import Server
from tests.tiny_runs import set_running, tiny, write_run

SMALLEST = "data=digits&digits=40&size=16&batch=2&every=1000&steps=100000"


def open_with(button: Locator, shown: Locator) -> None:
    """Click; again where the page was just drawing the button anew and the click was lost."""
    button.click()
    try:
        expect(shown).to_be_visible(timeout=5000)
    except AssertionError:
        button.click()
        expect(shown).to_be_visible()


def queue_of(server: Server) -> list[str]:
    return [run.name for run in read_queue(server.runs_dir)]


@pytest.mark.long
def test_runs_are_queued_moved_cancelled_deleted_and_brought_back(
    open_page: OpenPage, server: Server
) -> None:
    main = None
    set_running(write_run(server.runs_dir, "first", config=tiny(), total=800))
    for name, sentence in (
        ("second", "second is waiting for the device. first is using it. It is next."),
        ("third", "third is waiting for the device. first is using it. 1 run before it."),
    ):
        page = open_page(f"/training?{SMALLEST}&name={name}")
        main = page.get_by_test_id("stMain")
        main.get_by_role("button", name="Start", exact=True).click()
        expect(main.get_by_text(sentence)).to_be_visible()
    assert main is not None
    assert queue_of(server) == ["second", "third"]
    page.evaluate("window.notReloaded = true")

    main.get_by_role("button", name="Up", exact=True).nth(1).click()
    expect(
        main.get_by_text("third is waiting for the device. first is using it. It is next.")
    ).to_be_visible()
    assert queue_of(server) == ["third", "second"]

    main.get_by_role("button", name="Cancel", exact=True).first.click()
    expect(main.get_by_text("third has not been started.")).to_be_visible()
    assert queue_of(server) == ["second"]

    dialog = page.get_by_role("dialog")
    open_with(main.get_by_role("button", name="Delete", exact=True), dialog)
    expect(dialog.get_by_text("third and all its files will be deleted")).to_be_visible()
    dialog.get_by_role("button", name="Delete run").click()
    expect(main.get_by_text("third was deleted.")).to_be_visible()
    expect(dialog).to_have_count(0)
    assert "third" not in {run.name for run in list_runs(server.runs_dir)}

    main.get_by_role("button", name="Undo").click()
    expect(main.get_by_text("third has not been started.")).to_be_visible()
    assert Run(server.runs_dir / "third").state == "stopped"
    assert page.evaluate("window.notReloaded")


@pytest.mark.long
def test_settings_are_changed_while_it_trains_and_a_finished_run_goes_on(
    open_page: OpenPage, server: Server
) -> None:
    config = tiny(data="digits:40", steps=3, checkpoint_every=10**6)
    train(server.runs_dir / "short", config, device=torch.device("cpu"))
    page = open_page("/training?run=short")
    main = page.get_by_test_id("stMain")
    expect(main.get_by_text("short has finished.")).to_be_visible()

    steps = page.get_by_role("spinbutton", name="Total steps")
    open_with(main.get_by_role("button", name="Continue with more steps"), steps)
    steps.fill("100000")
    page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Continue").click()
    expect(main.get_by_text("short is training.")).to_be_visible()
    run = Run(server.runs_dir / "short")
    assert run.status.resumed_from == 3

    rate = page.get_by_test_id("stPopoverBody").get_by_role("spinbutton", name="Learning rate")
    open_with(main.get_by_role("button", name="Edit settings"), rate)
    rate.fill("0.0002")
    page.wait_for_timeout(1500)  # what is typed outlives the next update
    expect(rate).to_have_value("0.0002")
    page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Apply").click()
    expect(main.get_by_text("learning rate 0.0002")).to_be_visible()
    assert run.config is not None
    assert run.config.learning_rate == 2e-4
    main.get_by_role("button", name="Stop", exact=True).click()
    expect(main.get_by_text("short was stopped.")).to_be_visible()


def test_a_run_that_is_started_elsewhere_appears_by_itself(
    open_page: OpenPage, server: Server
) -> None:
    page = open_page("/training")
    main = page.get_by_test_id("stMain")
    expect(main.get_by_text("There are no runs yet.")).to_be_visible()
    path = server.runs_dir / "elsewhere"
    path.mkdir()
    (path / "status.json").write_text('{"state": "finished", "created": 5.0}')
    expect(main.get_by_text("elsewhere has finished.")).to_be_visible()
