"""Train three short, really different runs and write the review of them, docs/example-review.html.

    python -m docs.make_example_review FOLDER    # about ten minutes on two CPU cores

The runs go into FOLDER, outside the repository. What is there already is kept and continued, so the
command can be interrupted at any time. The votes are made up, and the review says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_core.cores import computing
from diffusion_core.device import pick_device
from diffusion_core.evaluation.evaluate import evaluate, make_spec
from diffusion_core.review.report.write import write_report
from diffusion_core.runs import jobs
from diffusion_core.runs.checkpoint import load_model
from diffusion_core.runs.config import RunConfig, parse_settings, with_settings
from diffusion_core.runs.presets import preset
from diffusion_core.runs.remarks import RUN, Kind, Subject, add, read_remarks
from diffusion_core.runs.run import Run, load_run
from diffusion_core.runs.status import RunState
from diffusion_core.runs.votes import cast, order_for, read_votes
from diffusion_core.sampling.metadata import Kind as MadeKind
from diffusion_core.sampling.metadata import Made, subject_of
from diffusion_core.sampling.series import create, generate, list_series
from diffusion_core.training.trainer import train

OUT = Path(__file__).with_name("example-review.html")
STEPS = 600
SETTINGS = {
    "cars-noise": (
        "data=cars:4000 prediction_type=epsilon schedule.kind=linear class_conditional=false "
        "loss=l1 min_snr_gamma=0"
    ),
    "cars-classes": "data=cars:4000 prediction_type=v_prediction batch_size=64 random_flip=false",
    "digits-flow": (
        "data=digits channels=1 prediction_type=flow_prediction schedule={} random_flip=false "
        "learning_rate=0.003 seed=7"
    ),
}
EVERYWHERE = "checkpoint_every=100 keep_checkpoints=0 sample_every=50 validate_every=50"
LATER = {"cars-classes": (300, "learning_rate=0.0005")}  # changed on the way: (step, settings)
REVIEW = "Which looks more like a photograph? (made-up votes)"
PEOPLE = ("ann", "ben", "cleo")
AT_END = Subject(step=STEPS)
SAID: dict[str, tuple[tuple[str, Kind, str, Subject], ...]] = {
    "cars-noise": (
        ("ann", Kind.DECISION, "drop", RUN),
        ("ann", Kind.TAG, "baseline", RUN),
        (
            "ben",
            Kind.NOTE,
            "**Colours first, shapes late.** At step 600 there is still noise in the sky, and the "
            "cars have no clear outline.",
            AT_END,
        ),
    ),
    "cars-classes": (
        ("cleo", Kind.DECISION, "promote", RUN),
        ("ann", Kind.STAR, "", RUN),
        ("cleo", Kind.STAR, "", RUN),
        ("ben", Kind.TAG, "for the talk", RUN),
        (
            "cleo",
            Kind.NOTE,
            "Train it on:\n- the classes can be told apart\n- the validation loss still falls "
            "with the *lower learning rate* from step 301 on",
            RUN,
        ),
    ),
    "digits-flow": (
        ("ann", Kind.DECISION, "keep", RUN),
        ("ann", Kind.NOTE, "Readable from here on, with 12 steps of `euler`.", Subject(step=150)),
    ),
}


def config_of(name: str) -> RunConfig:
    settings = parse_settings(f"{SETTINGS[name]} {EVERYWHERE}".split())
    return with_settings(preset("tiny"), settings | {"steps": LATER.get(name, (STEPS,))[0]})


def train_run(folder: Path, name: str) -> Run:
    """The run, trained to the end."""
    path, device = folder / name, pick_device("auto")
    if not path.exists():
        train(path, config_of(name), device=device)
    run = load_run(path)
    if run.state != RunState.FINISHED:
        train(path, resume=True, device=device)
    if name in LATER and run.config is not None and run.config.steps < STEPS:
        jobs.change(run, parse_settings([LATER[name][1], f"steps={STEPS}"]))
        train(path, resume=True, device=device)
    return run


def measure(run: Run) -> None:
    """Measure every other checkpoint."""
    device = pick_device("auto")
    for checkpoint in run.checkpoints()[0][1::2]:
        spec = make_spec(run.name, checkpoint, n=512, steps=20)
        with computing(run.path.parent, device):
            for _ in evaluate(run, checkpoint, spec, load_model(checkpoint, device)):
                pass


def sample(run: Run) -> None:
    """A series of images, and a remark on one of them."""
    if list_series(run.path):
        return
    device, checkpoint = pick_device("auto"), run.checkpoint(STEPS)
    spec = make_spec(run.name, checkpoint, n=16, steps=20, seed=1)
    series = create(run.path / "drawings" / "seed-1", spec, checkpoint, batch=16)
    loaded = load_model(checkpoint, device)
    with computing(run.path.parent, device):
        for _ in generate(series, lambda: loaded, str(device)):
            pass
    image = subject_of(Made(spec, 2, MadeKind.IMAGE))
    add(run.path, Kind.NOTE, "The best of these.", image, by="ben")


def say(run: Run) -> None:
    """What people think of it, unless they have said it before."""
    if any(remark.by == "ann" for remark in read_remarks(run.path).current):
        return
    for by, kind, text, subject in SAID[run.name]:
        add(run.path, kind, text, subject, by)


def vote(runs: list[Run]) -> None:
    """Three people on four seeds, unless they have voted before."""
    paths, names = [run.path for run in runs], [run.name for run in runs]
    if read_votes(paths).entries:
        return
    noise, classes = names
    for seed in range(4):
        for k, by in enumerate(PEOPLE):
            shown = order_for(by, REVIEW, names, f"seed {seed}")
            chosen = noise if (seed, k) == (2, 1) else classes
            cast(paths, REVIEW, f"seed {seed}", shown, chosen, by)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    runs = [train_run(arguments.folder, name) for name in SETTINGS]
    for run in runs:
        measure(run)
        sample(run)
        say(run)
    vote(runs[:2])
    size = write_report(runs, OUT, title="Review of three short runs")
    print(f"{OUT}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
