"""What the engine in the browser takes: an evaluation of the network, and whole images.

    python -m benchmarks.engine RUN [--rounds 5]

RUN is a run's folder that fits into the browser (preset tiny). In a worker of headless Chromium,
in turns, by JavaScript and by WebGL2, which is computed in software there: an evaluation of the
network; an image in one step; an image in 20 steps of DPM-Solver++ 2M; the same guided. Medians and
the fastest, in milliseconds. Beside it, what PyTorch takes for an evaluation with one thread and
the longest time between two frames of the page. Needs requirements-dev.txt and Chromium.
"""

from __future__ import annotations

import argparse
import base64
import os
import statistics
import time
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

from benchmarks.timing import machine
from dashboard.components.engine.engine import worker_script
from diffusion_core.runs.checkpoint import Checkpoint, load_model
from diffusion_core.runs.run import load_run
from diffusion_core.sampling.browser_model import browser_model
from tests.browser.chromium import FLAGS, find_chromium

ASKED = {
    "1 step": {"steps": 1, "guidance": 1},
    "20 steps": {"steps": 20, "guidance": 1},
    "20 steps, guided": {"steps": 20, "guidance": 2},
}
# A request to a worker: milliseconds until it is answered, and the page's longest frame then.
BESIDE = """
window.frames_ = { longest: 0 };
let before = performance.now();
const look = (now) => {
  frames_.longest = Math.max(frames_.longest, now - before);
  before = now;
  requestAnimationFrame(look);
};
requestAnimationFrame(look);
window.open_ = ([script, file, engine]) => new Promise((done, failed) => {
  const url = (parts, type) => URL.createObjectURL(new Blob(parts, { type }));
  const bytes = Uint8Array.from(atob(file), (character) => character.charCodeAt(0));
  window.worker_?.terminate();
  window.worker_ = new Worker(url([script], "text/javascript"));
  worker_.onmessage = ({ data }) => (data.loaded ? done(data.loaded.kind) : failed(data.failed));
  worker_.postMessage({ load: { address: url([bytes], "application/octet-stream"), engine } });
});
window.ask_ = (how) => new Promise((done, failed) => {
  frames_.longest = 0;
  worker_.onmessage = ({ data }) => {
    if (data.failed) failed(data.failed);
    if (data.done) done([data.done.ms, frames_.longest]);
  };
  worker_.postMessage({ ask: {
    turn: 1, sampler: "dpmpp_2m", seed: 0, other: 1, angle: 0, moved: [0, 0], mask: null, ...how,
  } });
});
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    checkpoint = load_run(arguments.run).latest_checkpoint()
    if checkpoint is None:
        parser.error(f"{arguments.run} has no checkpoint.")
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{machine(torch.device('cpu'))}; {load}")
    data = browser_model(checkpoint)
    print(f"file: {len(data) / 1e6:.1f} MB")
    measure(checkpoint, base64.b64encode(data).decode(), arguments.rounds)
    theirs = evaluation_by_torch(checkpoint, 10 * arguments.rounds)
    print(f"PyTorch, one thread, an evaluation: {theirs:.1f} ms")


def measure(checkpoint: Checkpoint, file: str, rounds: int) -> None:
    label = 0 if checkpoint.classes else None
    times: dict[tuple[str, str], list[float]] = {}
    frames: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        page = browser.new_page()
        page.evaluate(f"() => {{ {BESIDE} }}")
        for _ in range(rounds):
            for engine in ("processor", "graphics"):
                kind = page.evaluate("given => open_(given)", [worker_script(), file, engine])
                page.evaluate("how => ask_(how)", {"steps": 2, "guidance": 1, "label": label})
                for name, how in ASKED.items():
                    if label is None and how["guidance"] != 1:
                        continue
                    ms, frame = page.evaluate("how => ask_(how)", how | {"label": label})
                    times.setdefault((kind, name), []).append(ms)
                    frames.append(frame)
        browser.close()
    for (kind, name), found in sorted(times.items()):
        print(
            f"{kind}, {name}: median {statistics.median(found):.0f} ms, least {min(found):.0f} ms"
        )
    for kind in sorted({kind for kind, _ in times}):
        found = [ms / 20 for ms in times[kind, "20 steps"]]
        print(f"{kind}, an evaluation: median {statistics.median(found):.1f} ms")
    print(f"longest frame of the page meanwhile: {max(frames):.0f} ms")


def evaluation_by_torch(checkpoint: Checkpoint, count: int) -> float:
    """Median milliseconds of the form of the network that samples fastest."""
    torch.set_num_threads(1)
    model, _, config = load_model(checkpoint)
    x, t = torch.randn(1, *config.image_shape), torch.tensor([500])
    found = []
    with torch.inference_mode():
        for _ in range(count):
            start = time.perf_counter()
            model(x, t)
            found.append(1000 * (time.perf_counter() - start))
    return statistics.median(found)


if __name__ == "__main__":
    main()
