"""Ways to train, judged by the images that they lead to after the same time.

    python -m benchmarks.recipes [--preset tiny] [--steps 1500] [--seeds 0 1] [--only NAME ...]

Each recipe is a change of the preset as its first version was. A step of it is timed against one
of the preset's, in turns, and the recipe gets as many steps as fit into the time of the preset's
`--steps`, whatever else the machine does. Then each seed is trained and measured. Results are kept
in `--out`, so that an interrupted session continues, and printed as a table in Markdown: the mean
over the seeds of each distance, with the single values.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import in_turns, machine
from diffusion_core.device import pick_device
from diffusion_core.evaluation.results import read_results
from diffusion_core.runs.config import RunConfig, parse_settings, with_settings
from diffusion_core.runs.presets import preset
from diffusion_core.runs.run import load_run
from diffusion_core.training.context import make_context, prepare_images, settle_network
from diffusion_core.training.step import one_step

# Settings that all recipes share: nothing beside the training.
SHARED = ("evaluate_every=0", "sample_every=0", "checkpoint_every=0", "validate_every=250")
SETTLING, TIMED, ROUNDS = 3, 6, 5

# What a recipe changes: the presets' settings in their first version, before the table.
FIRST = {
    "optimizer": "adamw",
    "prediction_type": "v_prediction",
    "loss_on": "prediction",
    "min_snr_gamma": "5",
}
MUON_X_0 = {"optimizer": "muon", "prediction_type": "x_0", "loss_on": "v"}
LOGIT_NORMAL = {"timestep_sampling": "logit_normal", "timestep_width": "2"}
RECIPES: dict[str, dict[str, str]] = {
    "as the preset with AdamW, v predicted": {},
    "cosine decay": {"learning_rate_decay": "cosine"},
    "inverse square root decay": {"learning_rate_decay": "inverse_sqrt", "decay_after": "300"},
    "Laplace over log-SNR, 0.5": {"timestep_sampling": "laplace", "timestep_width": "0.5"},
    "Laplace over log-SNR, 1.5": {"timestep_sampling": "laplace", "timestep_width": "1.5"},
    "logit-normal, 2": LOGIT_NORMAL,
    "logit-normal, 2, unweighted": {**LOGIT_NORMAL, "min_snr_gamma": "0"},
    "unweighted": {"min_snr_gamma": "0"},
    "immiscible noise": {"immiscible": "true"},
    "Muon": {"optimizer": "muon"},
    "Muon, x_0, loss on v": MUON_X_0,
    "Muon, x_0, loss on v, unweighted": {**MUON_X_0, "min_snr_gamma": "0"},
    "Muon, x_0, loss on v, learned weights": {
        **MUON_X_0,
        "min_snr_gamma": "0",
        "learned_weighting": "true",
    },
    "Muon, x_0, loss on v, augmented": {**MUON_X_0, "augment": "0.12"},
    "half the batch": {"batch_size": "16"},
    "flow": {"prediction_type": "flow_prediction", "min_snr_gamma": "0"},
}


def pairs_of(recipe: dict[str, str]) -> list[str]:
    """All settings of a recipe, as KEY=VALUE."""
    return [*SHARED, *(f"{key}={value}" for key, value in (FIRST | recipe).items())]


def settings_of(config: RunConfig, recipe: dict[str, str]) -> RunConfig:
    return with_settings(config, parse_settings(pairs_of(recipe)))


def relative_cost(config: RunConfig, recipe: dict[str, str], device: torch.device) -> float:
    """The time of a step with the recipe by that of a step without it."""

    def timed(settings: RunConfig) -> Any:
        store = prepare_images(settings, lambda ready, count: None)
        context = make_context(settle_network(settings, store), store, device)
        for step in range(1, SETTLING + 1):
            one_step(context, step)

        def measure() -> float:
            begun = time.perf_counter()
            for step in range(1, TIMED + 1):
                one_step(context, step)
            return time.perf_counter() - begun

        return measure

    both = {"without": timed(settings_of(config, {})), "with": timed(settings_of(config, recipe))}
    found = in_turns(ROUNDS, both)
    return found["with"] / found["without"]


def trained(folder: Path, given: argparse.Namespace, recipe: dict[str, str], seed: int) -> None:
    """Train and measure one run; what is there already is left as it is."""
    command = [sys.executable, "-m", "diffusion_core"]
    settings = [f"--set={each}" for each in (*pairs_of(recipe), *given.set, f"seed={seed}")]
    if load_run(folder).latest_checkpoint() is None if folder.exists() else True:
        train = ["train", "--preset", given.preset, "--data", given.data, "--run", str(folder)]
        again = ["train", "--run", str(folder), "--resume"]
        use = again if folder.exists() else [*train, *settings]
        subprocess.run([*command, *use], check=True, stderr=subprocess.DEVNULL)
    measure = ["evaluate", "--run", str(folder), "--n", str(given.images), "--steps"]
    steps = [str(each) for each in given.evaluations]
    subprocess.run(
        [*command, *measure, *steps], check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr
    )


def distances(folder: Path) -> dict[str, float]:
    """By the name of the metric and the evaluations of the network per image."""
    found: dict[str, float] = {}
    for result in read_results(folder)[0]:
        for name in ("frechet", "frechet_general", "sliced_general"):
            if name in result.metrics:
                found[f"{name}, {result.evaluations}"] = result.metrics[name].value
    return found


def table(rows: dict[str, list[dict[str, float]]], notes: dict[str, dict[str, float]]) -> str:
    columns = list(dict.fromkeys(name for runs in rows.values() for run in runs for name in run))
    lines = ["| recipe | steps | time of a step | " + " | ".join(columns) + " |"]
    lines.append("|---" * (len(columns) + 3) + "|")
    for recipe, runs in rows.items():
        cells = [recipe, f"{notes[recipe]['steps']:,.0f}", f"× {notes[recipe]['cost']:.2f}"]
        for name in columns:
            values = [run[name] for run in runs if name in run]
            cell = f"{statistics.mean(values):.3g}" if values else ""
            if len(values) > 1:
                cell += f" ({', '.join(f'{value:.3g}' for value in sorted(values))})"
            cells.append(cell)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--data", default="cars")
    parser.add_argument("--steps", type=int, default=1500, help="of the preset as it is")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=RECIPES, help="these recipes")
    parser.add_argument("--set", nargs="*", default=[], help="KEY=VALUE of all recipes")
    parser.add_argument("--images", type=int, default=1024, help="that a measurement generates")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[20])
    parser.add_argument("--out", type=Path, default=Path("recipes"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "costs.json"
    device = pick_device(None)
    config = preset(given.preset).replace(data=given.data)
    config = with_settings(config, parse_settings(given.set))
    rows: dict[str, list[dict[str, float]]] = {}
    notes: dict[str, dict[str, float]] = {}
    for name in given.only or RECIPES:
        recipe = RECIPES[name]
        costs: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
        if name not in costs:
            costs[name] = relative_cost(config, recipe, device) if recipe else 1.0
            kept.write_text(json.dumps(costs))
        steps = round(given.steps / costs[name])
        notes[name] = {"steps": steps, "cost": costs[name]}
        rows[name] = []
        for seed in given.seeds:
            folder = given.out / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            trained(folder, given, {**recipe, "steps": str(steps)}, seed)
            rows[name].append(distances(folder))
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
    print(f"\n{machine(device)}; OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}\n")
    print(table(rows, notes))


if __name__ == "__main__":
    main()
