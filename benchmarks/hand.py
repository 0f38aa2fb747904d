"""How soon an image of the Sampling page follows the hand, from a slider's event to its repaint.

    python -m benchmarks.hand [RUN] [--moves 40] [--beside training|sampling] [--link steps=1]

RUN is a run's folder (default: the shipped one). Starts the dashboard as a user does, with a copy of
the run, and moves the seed, the class and the guidance in headless Chromium:

- single moves: from the `input` event until the frame with the image of these settings is painted;
  the next one 0.1 s later, so that the server never lags behind;
- a drag of the seed with an event in every frame of the screen: the time between two new images.

Median and 95th percentile. `sampling` is what the image's job took by itself, as the page says;
`CPU` is the time that the server and Chromium computed for a move, over all cores: on a machine
that is not quiet it says more than the rest. Needs requirements-dev.txt and Chromium.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import tempfile
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
const box = [...document.querySelectorAll("*")].map((each) => each.shadowRoot?.querySelector(".immediate"))
  .find(Boolean) ?? document.querySelector(".immediate");
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
# Milliseconds until the image is painted, and what its job took.
MOVE = f"""async ([name, value]) => {{
  {BEGIN}
  const before = box.dataset.shown;
  const changed = new Promise((done) => {{
    const observer = new MutationObserver(() => {{
      if (box.dataset.shown === before) return;
      observer.disconnect();
      done();
    }});
    observer.observe(box, {{ attributes: true }});
  }});
  const began = set(name, value);
  await changed;
  return [(await painted()) - began, box.querySelector(".said").textContent];
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
  while (JSON.parse(box.dataset.shown).seed !== to - 1) await painted();
  observer.disconnect();
  return times;
}}"""
PAUSE_MS = 100
SAMPLED = re.compile(r"([\d,]+) ms\.")


def used(server_process: psutil.Process) -> float:
    """Seconds of CPU of the server and of Chromium."""
    children = psutil.Process().children(recursive=True)
    return sum(cpu(each) for each in {server_process, *children} if each.is_running())


def measure(page: Page, process: psutil.Process, moves: int) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| | median, ms | 95 %, ms | sampling, ms | CPU, ms |", "|---|---|---|---|---|"]
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
        computed = 1000 * (used(process) - before) / len(values)
        middle = statistics.median
        lines.append(
            f"| {name} | {middle(times):.0f} | {percentile_95(times):.0f} | {middle(sampled):.0f} "
            f"| {computed:.0f} |"
        )
    times = page.evaluate(DRAG, [300, 300 + 6 * moves])
    between = [later - sooner for sooner, later in zip(times, times[1:], strict=False)]
    lines.append(
        f"| between two images of a drag | {statistics.median(between):.0f} "
        f"| {percentile_95(between):.0f} | | |"
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, default=Path("checkpoints/demo-cars"))
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
        lines = measure(page, process, given.moves)
        version = browser.version
    beside = f"beside {given.beside}" if given.beside else "alone"
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{machine(torch.device('cpu'))}; Chromium {version}; {beside}; load average {load}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
