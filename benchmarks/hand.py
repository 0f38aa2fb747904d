"""How soon an image of the Sampling page follows the hand, from a slider's event to its repaint.

    python -m benchmarks.hand RUN [--moves 40] [--beside training|sampling] [--link steps=1]

RUN is the folder of a distilled run. Starts the dashboard as a user does, with a copy
of the run, and moves the seed, the class and the guidance in headless Chromium:

- single moves: from the `input` event until the frame with the image of these settings is painted;
  the next one 0.1 s later, so that the server never lags behind;
- a drag of the seed with an event in every frame of the screen: the time between two new images.

Median and 95th percentile. `sampling` is what the image's job took by itself, as the page says;
`server` and `browser` are the milliseconds of CPU that these took for a move, the sampling
included: on a machine that is not quiet they say more than the rest. Needs requirements-dev.txt and
Chromium.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import torch
from playwright.sync_api import Page, sync_playwright

from benchmarks.pages import percentile_95, something_else
from benchmarks.timing import machine
from benchmarks.watchers import cpu, server
from tests.browser.chromium import FLAGS, find_chromium

BEGIN = """
const box = [...document.querySelectorAll("*")]
  .map((each) => each.shadowRoot?.querySelector(".immediate")).find(Boolean);
const painted = () => new Promise((done) => requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => done(performance.now());
  channel.port2.postMessage(0);
}));
const set = (name, value) => {
  const input = box.querySelector(`[name=${name}]`);
  input.value = value;
  const began = performance.now();
  input.dispatchEvent(new Event("input"));
  return began;
};
"""
LONGEST_MS = 30_000
# Milliseconds until the image is painted, and what its job took.
MOVE = f"""async ([name, value]) => {{
  {BEGIN}
  const before = box.dataset.shown;
  const began = set(name, value);
  let now = began;
  while (box.dataset.shown === before) {{
    now = await painted();
    if (now - began > {LONGEST_MS} || !box.isConnected) throw new Error("No image has followed.");
  }}
  return [now - began, box.querySelector(".said").textContent];
}}"""
# When each new image of a drag is painted, in milliseconds.
DRAG = f"""async ([from, to]) => {{
  {BEGIN}
  const times = [];
  const observer = new MutationObserver(async () => times.push(await painted()));
  observer.observe(box, {{ attributes: true, attributeFilter: ["data-shown"] }});
  for (let seed = from; seed < to; seed += 1) {{
    set("seed", seed);
    await painted();
  }}
  const last = String(to - 1);
  const began = performance.now();
  while (JSON.parse(box.dataset.shown).seed !== to - 1) {{
    if (await painted() - began > {LONGEST_MS}) throw new Error("No image has followed.");
  }}
  observer.disconnect();
  return times;
}}"""
PAUSE_MS = 100
SAMPLED = re.compile(r"([\d,]+) ms\.")


def used(server_process: psutil.Process) -> tuple[float, float]:
    """Seconds of CPU of the server and of Chromium so far."""
    others = set(psutil.Process().children(recursive=True)) - {server_process}
    return cpu(server_process), sum(cpu(each) for each in others if each.is_running())


def measure(page: Page, process: psutil.Process, moves: int) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| | median, ms | 95 %, ms | sampling, ms | server, ms | browser, ms |"
    yield "|---|---|---|---|---|---|"
    steps = {
        "seed": range(100, 100 + moves),
        "label": [1 + k % 2 for k in range(moves)],
        "guidance": [1.25 + 0.25 * (k % 20) for k in range(moves)],
    }
    for name, values in steps.items():
        if not page.locator(f".immediate [name={name}]").is_visible():
            continue
        page.evaluate(MOVE, [name, 50 if name == "seed" else values[1]])  # the first takes longer
        times, sampled, before = [], [], used(process)
        for value in values:
            page.wait_for_timeout(PAUSE_MS)
            took, said = page.evaluate(MOVE, [name, value])
            times.append(took)
            if found := SAMPLED.search(said):
                sampled.append(float(found[1].replace(",", "")))
        after = used(process)
        parts = [1000 * (b - a) / len(values) for a, b in zip(before, after, strict=True)]
        middle = statistics.median
        yield (
            f"| {name} | {middle(times):.0f} | {percentile_95(times):.0f} | {middle(sampled):.0f} "
            f"| {parts[0]:.0f} | {parts[1]:.0f} |"
        )
    times = page.evaluate(DRAG, [300, 300 + 6 * moves])
    between = [later - sooner for sooner, later in itertools.pairwise(times)]
    yield (
        f"| between two images of a drag | {statistics.median(between):.0f} "
        f"| {percentile_95(between):.0f} | | | |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--moves", type=int, default=40, help="of each slider")
    parser.add_argument("--beside", choices=["training", "sampling"])
    parser.add_argument("--link", default="steps=1", help="of the page, without the run")
    given = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        parser.error("Chromium is missing; `make test` says how to get it.")
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        runs_dir = folder / "runs"
        shutil.copytree(given.run, runs_dir / given.run.name)
        url, process = opened.enter_context(server(runs_dir))
        playwright = opened.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        opened.callback(browser.close)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{url}/sampling?run={given.run.name}&{given.link}")
        page.locator(".immediate[data-shown]").wait_for(timeout=120_000)
        opened.enter_context(something_else(given.beside, url, runs_dir, browser))
        beside = f"beside {given.beside}" if given.beside else "alone"
        load = f"load average {os.getloadavg()[0]:.1f}"
        print(f"{machine(torch.device('cpu'))}; Chromium {browser.version}; {beside}; {load}")
        for line in measure(page, process, given.moves):
            print(line, flush=True)


if __name__ == "__main__":
    main()
