"""The film of sample strips in a real browser: one slider, all rows, each strip fetched once."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from diffusion_core.media.images import png
from diffusion_core.runs.metrics import MetricsWriter
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import Server
from tests.tiny_runs import set_running, tiny, write_checkpoint, write_run

# Moves the slider without letting go: fast to its end, a frame of the screen each time, then
# through all of its places, waiting for the images of each; returns the colours that it saw.
SCRUB = """
async (slider) => {
  const root = slider.getRootNode();
  const frame = () => new Promise(requestAnimationFrame);
  const to = async (k) => {
    slider.value = k;
    slider.dispatchEvent(new Event("input"));
    await frame();
  };
  for (let k = 0; k <= slider.max; k += 5) await to(k);
  const seen = [];
  for (let k = 0; k <= slider.max; k += 1) {
    await to(k);
    while (root.querySelector("canvas[aria-busy=true]")) await frame();
    seen.push([...root.querySelectorAll("canvas")].map((canvas) =>
      [...canvas.getContext("2d").getImageData(0, 0, 1, 1).data].slice(0, 3)));
  }
  return seen;
}
"""

STRIPS = 80  # of a run; more than the film fetches in its coarsest pass

# What a canvas shows, one after the other.
RECORD = """
(canvas) => {
  window.shown = [];
  const add = () => window.shown.push(canvas.getAttribute("aria-label"));
  new MutationObserver(add).observe(canvas, { attributeFilter: ["aria-label"] });
}
"""
NEXT_FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def write_strip(run: Path, step: int, row: int = 0) -> None:
    """Two images whose colour says the step and the row."""
    (run / "samples").mkdir(exist_ok=True)
    strip = np.empty((16, 32, 3), np.uint8)
    strip[:] = (step // 256, step % 256, row)
    (run / "samples" / f"step-{step:08d}.png").write_bytes(png(strip))


@pytest.fixture
def busy(server: Server) -> Iterator[Path]:
    """A run that is being trained as long as the test goes on."""
    run = write_run(server.runs_dir, "film-busy", config=tiny(), created=2e9, step=8, total=800)
    for step in (4, 8):
        write_strip(run, step)
    record = (run / "status.json").read_text()
    set_running(run)
    yield run
    (run / "status.json").write_text(record)


def film_slider(page: Page) -> Locator:
    return page.get_by_role("slider", name="Samples through training")


def image(page: Page, run: str, step: str) -> Locator:
    return page.get_by_role("img", name=f"Samples of {run} at step {step}, 2 images", exact=True)


@pytest.mark.long
def test_the_strips_of_four_runs_move_together_and_the_server_is_asked_once_for_each(
    open_page: OpenPage, server: Server
) -> None:
    runs = [write_run(server.runs_dir, f"film-{k}", config=tiny(), created=1.0) for k in range(4)]
    for k, run in enumerate(runs):
        for step in range(1, STRIPS + 1):
            write_strip(run, step, k)
    page = open_page("/schedule")
    asked: list[str] = []
    sent: list[bytes] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on(
        "websocket", lambda socket: socket.on("framesent", lambda data: sent.append(as_bytes(data)))
    )
    page.goto(f"{server.url}/training?run=film-0&compare=film-1&compare=film-2&compare=film-3")
    slider = film_slider(page)
    expect(slider).to_have_attribute("aria-valuetext", f"step {STRIPS}")
    page.evaluate("window.notReloaded = true")
    seen = slider.evaluate(SCRUB)
    assert seen == [
        [[step // 256, step % 256, row] for row in range(4)] for step in range(1, STRIPS + 1)
    ]
    assert page.evaluate("window.notReloaded")
    strips = [url for url in asked if "/step-" in url]
    assert len(strips) == len(set(strips)) == 4 * STRIPS
    # The page may look for new strips meanwhile; where the slider is moved to is told to nobody,
    # until it stands still.
    assert not [message for message in sent if b'"at"' in message]
    slider.press("Home")
    page.wait_for_url("**strip=1*film-0*")
    assert [message for message in sent if b'"at"' in message]


def as_bytes(message: bytes | str) -> bytes:
    return message.encode() if isinstance(message, str) else message


@pytest.mark.long
def test_rows_say_their_own_steps_and_align_by_images_and_time(
    open_page: OpenPage, server: Server
) -> None:
    for name, batch, steps, seconds in (
        ("film-slow", 4, (100, 200), 3.0),
        ("film-fast", 8, (50, 100, 150), 1.0),
    ):
        run = write_run(server.runs_dir, name, config=tiny(batch_size=batch), created=1.0)
        metrics = MetricsWriter(run / "metrics.sqlite")
        metrics.add((step, "loss", 0.5, step * seconds) for step in range(1, 201))
        metrics.close()
        for step in steps:
            write_strip(run, step)
    address = "/training?run=film-slow&compare=film-fast"
    page = open_page(f"{address}&strip=100@film-slow")
    slow, fast = page.locator(".film figcaption").all()
    expect(slow).to_have_text("film-slow step 100 ")
    expect(fast).to_have_text("film-fast step 100 ")
    page.get_by_role("radio", name="images", exact=True).click()
    # The same strip of the run, at its 400 images, where the other has made 50 steps.
    expect(film_slider(page)).to_have_attribute("aria-valuetext", "400 images")
    expect(slow).to_have_text("film-slow step 100 · 400 images ")
    expect(fast).to_have_text("film-fast step 50 · 400 images ")
    expect(page.get_by_text("images seen", exact=True)).to_be_visible()
    page.get_by_role("radio", name="time", exact=True).click()
    expect(slow).to_have_text("film-slow step 100 · 4 min 57 s ")
    expect(fast).to_have_text("film-fast step 150 · 2 min 29 s · its latest ")
    # Before its first strip a run says when that comes.
    film_slider(page).press("Home")
    expect(page.get_by_text("The first samples are at step 100.")).to_be_visible()
    expect(fast).to_have_text("film-fast step 50 · 49 s ")


@pytest.mark.long
def test_the_film_plays_by_mouse_and_keyboard_and_its_place_is_in_the_address(
    open_page: OpenPage, server: Server
) -> None:
    run = write_run(server.runs_dir, "film-plays", config=tiny(), created=1.0)
    for step in (10, 20, 30, 40):
        write_strip(run, step)
    page = open_page("/training?run=film-plays")
    expect(image(page, "film-plays", "40")).to_be_visible()
    play = page.get_by_role("button", name="Play the film")
    canvas = image(page, "film-plays", "40").element_handle()
    canvas.evaluate(RECORD)
    page.get_by_label("Loop").uncheck()
    page.get_by_label("Speed").select_option("fastest")
    play.click()
    # Without the loop it goes from the first strip to the last and ends there.
    page.wait_for_function("() => window.shown.length >= 4")
    expect(play).to_be_visible()
    shown = iter(label.split(",")[0].split()[-1] for label in page.evaluate("window.shown"))
    assert all(step in shown for step in ("10", "20", "30", "40"))  # in this order
    page.get_by_label("Loop").check()
    play.click()
    page.wait_for_function("() => window.shown.length > 12")
    page.get_by_role("button", name="Pause the film").click()
    page.evaluate(NEXT_FRAME)  # in which the slider follows the film
    slider = film_slider(page)
    slider.press("Home")
    slider.press("ArrowRight")
    expect(image(page, "film-plays", "20")).to_be_visible()
    page.wait_for_url("**strip=20*film-plays*")
    slider.press(" ")
    expect(page.get_by_role("button", name="Pause the film")).to_be_visible()
    slider.press(" ")
    expect(page.get_by_role("button", name="Play the film")).to_be_visible()
    slider.press("End")
    page.wait_for_url(lambda url: "strip=" not in url)
    linked = open_page("/training?run=film-plays&strip=30@film-plays")
    expect(image(linked, "film-plays", "30")).to_be_visible()
    # A strip that is not there: the newest.
    linked = open_page("/training?run=film-plays&strip=31@film-plays")
    expect(image(linked, "film-plays", "40")).to_be_visible()


@pytest.mark.long
def test_new_strips_come_in_and_whoever_looks_back_stays(open_page: OpenPage, busy: Path) -> None:
    page = open_page("/training?run=film-busy")
    expect(image(page, "film-busy", "8")).to_be_visible()
    write_strip(busy, 12)
    expect(image(page, "film-busy", "12")).to_be_visible()
    slider = film_slider(page)
    slider.press("ArrowLeft")
    expect(image(page, "film-busy", "8")).to_be_visible()
    write_strip(busy, 16)
    expect(slider).to_have_attribute("max", "3")
    expect(image(page, "film-busy", "8")).to_be_visible()
    # The same step sampled again, as after a resume, is not the image that the browser has.
    write_strip(busy, 8, row=200)
    canvas = image(page, "film-busy", "8").element_handle()
    page.wait_for_function(
        "c => c.getContext('2d').getImageData(0, 0, 1, 1).data[2] == 200", arg=canvas
    )
    page.get_by_label("Speed").select_option("fastest")
    page.get_by_role("button", name="Play the film").click()
    write_strip(busy, 20)
    expect(slider).to_have_attribute("max", "4")
    expect(page.get_by_role("button", name="Pause the film")).to_be_visible()
    expect(image(page, "film-busy", "20")).to_be_visible()


@pytest.mark.long
def test_a_broken_strip_says_so_and_the_others_go_on(open_page: OpenPage, server: Server) -> None:
    run = write_run(server.runs_dir, "film-broken", config=tiny(), created=1.0)
    for step in (1, 2, 3):
        write_strip(run, step)
    (run / "samples" / "step-00000002.png").write_bytes(b"x")
    page = open_page("/training?run=film-broken")
    expect(image(page, "film-broken", "3")).to_be_visible()
    slider = film_slider(page)
    slider.press("ArrowLeft")
    sentence = page.get_by_text("The samples in step-00000002.png cannot be read.")
    expect(sentence).to_be_visible()
    slider.press("ArrowLeft")
    expect(image(page, "film-broken", "1")).to_be_visible()
    expect(sentence).to_have_count(0)


@pytest.mark.long
def test_grey_strips_and_an_image_that_forms_lie_below_each_other(
    open_page: OpenPage, server: Server
) -> None:
    grey = write_run(server.runs_dir, "film-grey", config=tiny(), created=1.0)
    forms = write_run(server.runs_dir, "film-forms", config=tiny(sample_steps=0), created=1.0)
    for run, shape in ((grey, (8, 24)), (forms, (64, 640, 3))):
        (run / "samples").mkdir()
        strip = png(np.zeros(shape, np.uint8))
        (run / "samples" / "step-00000004.png").write_bytes(strip)
    page = open_page("/training?run=film-grey&compare=film-forms", viewport=PHONE)
    page.get_by_role("img", name="Samples of film-grey at step 4, 3 images").wait_for()
    page.get_by_role("img", name="Samples of film-forms at step 4, 10 images").wait_for()
    expect(page.get_by_text("one image: finished (first) to noise (last)")).to_be_visible()
    expect(film_slider(page)).to_be_hidden()  # one place alone is nothing to move through
    assert_not_too_wide(page)


@pytest.mark.long
def test_the_server_gives_the_strips_of_a_run_and_nothing_else_of_it(
    open_page: OpenPage, server: Server
) -> None:
    run = write_run(server.runs_dir, "film-closed", config=tiny(), created=1.0)
    write_strip(run, 4)
    weights = write_checkpoint(run, 4, tiny())
    page = open_page("/training")
    with page.expect_response("**/step-00000004.png*") as found:
        page.goto(f"{server.url}/training?run=film-closed")
    address = found.value.url.partition("?")[0]
    assert open_address(address) == 200
    folder = address.rpartition("/")[0]
    for path in (f"weights/{weights.name}", "config.json"):
        for way in (f"../{path}", f"%2e%2e/{path}", path):
            assert open_address(f"{folder}/{way}") in (400, 403, 404)


def open_address(url: str) -> int:
    """The status that the server answers with; Python, other than a browser, keeps the dots."""
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
