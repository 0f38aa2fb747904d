"""How soon each page is there and follows a key, beside a bare Streamlit app, in one run.

    python -m benchmarks.pages [--rounds 5] [--presses 6] [--beside training|sampling] [PAGE ...]

Starts the dashboard as a user does, with the shipped run, and `bare_app.py`: one slider and one
Plotly figure. In each round headless Chromium visits every page and the bare app in turn, each with
an empty cache:

- first load: from the navigation until the last new element, image or canvas has been painted;
- key: from a key pressed at the page's first slider, else its first check box or tab, until all
  that follows has been painted ("first": until the first of it has);
- kB: all that is transferred until then, messages of the web socket before their compression;
- shift: the sum of all layout shifts, at least the cumulative layout shift.

A page is named by its address, as in "schedule" or "review?view=Look". Needs requirements-dev.txt
and Chromium. Run it on a machine that does nothing else; where it does, only the ratios say
something.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus

import torch
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from benchmarks.timing import machine
from benchmarks.together import training
from benchmarks.watchers import server
from dashboard.review.view import VIEWS
from dashboard.ui.addresses import PAGES
from dashboard.ui.navigation import HOME
from tests.browser.chromium import FLAGS, find_chromium

HERE = Path(__file__).parent
BARE = "bare"
QUIET_MS, LONGEST_LOAD_MS = 1000, 30_000
# Longer than a component waits before it tells the server where the hand rests.
LEAST_MS, STILL_MS, LONGEST_MS = 600, 300, 4000
SLIDER = "[role=slider], input[type=range]"
CONTROLS = (SLIDER, "input[type=checkbox]", "[role=tab]")
GENERATE = """
setInterval(() => [...document.querySelectorAll("button")].find(
    (button) => button.textContent.endsWith("Generate") && !button.disabled)?.click(), 500)
"""


@dataclass
class Times:
    """What was measured of one page, a value a visit or, of keys, a press."""

    load: list[float] = field(default_factory=list)  # ms
    kilobytes: list[float] = field(default_factory=list)
    shift: list[float] = field(default_factory=list)
    presses: list[dict[str, float]] = field(default_factory=list)  # ms, by container

    def followers(self) -> set[str]:
        """The containers that changed after nearly every key; others change by themselves."""
        counts: dict[str, int] = {}
        for press in self.presses:
            for name in press:
                counts[name] = counts.get(name, 0) + 1
        return {name for name, count in counts.items() if count >= 0.8 * len(self.presses)}

    def keys(self, choose: Callable[[list[float]], float] = max) -> list[float]:
        """Milliseconds until all that follows a key is there; with `min`, the first of it."""
        follow = self.followers()
        found = [[ms for name, ms in press.items() if name in follow] for press in self.presses]
        return [choose(times) for times in found if times]


def every_page() -> list[str]:
    """The addresses of the pages and of the views of Review."""
    views = [f"review?view={quote_plus(view)}&runs=demo-cars" for view in VIEWS]
    return ["" if page is HOME else page.url_path for page in PAGES] + views


def visit(browser: Browser, url: str, presses: int, times: Times) -> None:
    """Open an address with an empty cache, press keys, and add what was measured."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.add_init_script(path=HERE / "pages.js")
    page = context.new_page()
    transferred = count_bytes(page)
    page.goto(url)
    shown = page.evaluate(f"benchmark.loaded({QUIET_MS}, {LONGEST_LOAD_MS})")
    times.load.append(shown["ms"])
    times.shift.append(shown["shift"])
    times.kilobytes.append(sum(transferred) / 1000)
    control = first_control(page)
    if control is not None:
        control.focus()
        for _ in range(presses):
            control.press(next_key(control))
            waiting = f"benchmark.repainted({LEAST_MS}, {STILL_MS}, {LONGEST_MS})"
            times.presses.append(page.evaluate(waiting))
    context.close()


def count_bytes(page: Page) -> list[float]:
    """A list to which the bytes are added as they arrive."""
    found: list[float] = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: found.append(event["encodedDataLength"]))
    session.on(
        "Network.webSocketFrameReceived",  # in base64
        lambda event: found.append(0.75 * len(event["response"]["payloadData"])),
    )
    return found


def first_control(page: Page) -> Locator | None:
    """What takes the keys; None where there is nothing of the kind."""
    main = page.get_by_test_id("stMain")
    for selector in CONTROLS:
        for control in main.locator(selector).all():
            if control.is_enabled() and (control.is_visible() or selector != SLIDER):
                return control
    return None


def next_key(control: Locator) -> str:
    """The key that changes the control: to the right as far as that goes, then to the left."""
    return control.evaluate(
        """(e) => e.type === "checkbox" ? " "
            : e.role === "tab" ? (e.nextElementSibling ? "ArrowRight" : "ArrowLeft")
            : Number(e.ariaValueNow ?? e.value) < Number(e.ariaValueMax ?? e.max)
              ? "ArrowRight" : "ArrowLeft" """
    )


@contextmanager
def something_else(kind: str | None, url: str, runs_dir: Path, browser: Browser) -> Iterator[None]:
    """A run that trains, or another visitor of the same server who samples without pause."""
    if kind == "sampling":
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{url}/sampling?n=16")
        page.get_by_role("button", name="Generate").first.wait_for()
        page.evaluate(GENERATE)
        yield
        context.close()
        return
    with training(runs_dir, "cars:500", 0) if kind == "training" else nullcontext():
        yield


def table(found: dict[str, Times]) -> list[str]:
    """Lines of a Markdown table; each ratio is to the bare app."""
    bare = found[BARE]
    bare_load, bare_key = statistics.median(bare.load), statistics.median(bare.keys())
    bare_late = percentile_95(bare.keys())
    lines = [
        "| page | first load, s | × bare | key, ms | × bare | 95 %, ms | × bare | first, ms | kB "
        "| shift |",
        f"|{'---|' * 10}",
    ]
    for name, times in found.items():
        load = statistics.median(times.load)
        cells = [name or "home", f"{load / 1000:.2f}", f"{load / bare_load:.2f}"]
        if keys := times.keys():
            middle, late = statistics.median(keys), percentile_95(keys)
            cells += [f"{middle:.0f}", f"{middle / bare_key:.2f}"]
            cells += [f"{late:.0f}", f"{late / bare_late:.2f}"]
            cells += [f"{statistics.median(times.keys(min)):.0f}"]
        else:
            cells += ["–"] * 5
        cells += [f"{statistics.median(times.kilobytes):,.0f}", f"{max(times.shift):.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def percentile_95(values: Sequence[float]) -> float:
    return sorted(values)[round(0.95 * (len(values) - 1))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", default=every_page(), help="addresses (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--presses", type=int, default=6, help="keys in a visit")
    parser.add_argument("--beside", choices=["training", "sampling"])
    given = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        parser.error("Chromium is missing; `make test` says how to get it.")
    found = {name: Times() for name in (BARE, *given.pages)}
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        shutil.copytree("checkpoints/demo-cars", folder / "runs" / "demo-cars")
        bare, _ = opened.enter_context(server(folder / "runs", "benchmarks/bare_app.py"))
        url, _ = opened.enter_context(server(folder / "runs"))
        playwright = opened.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        opened.callback(browser.close)
        addresses = {name: bare if name == BARE else f"{url}/{name}" for name in found}
        for address in addresses.values():
            visit(browser, address, 0, Times())  # the server reads its files
        opened.enter_context(something_else(given.beside, url, folder / "runs", browser))
        for _ in range(given.rounds):
            for name, address in addresses.items():
                visit(browser, address, given.presses, found[name])
        version = browser.version
    beside = f"beside {given.beside}" if given.beside else "alone"
    print(f"{machine(torch.device('cpu'))}; Chromium {version}; {beside}")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
