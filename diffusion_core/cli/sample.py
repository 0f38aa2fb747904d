"""The command `sample`: images of a run's checkpoint, as one grid or as a folder of files."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffusion_core.cli.options import (
    DONE,
    STOPPED,
    add_device,
    check_place,
    find_checkpoint,
    number,
    whole_number,
)
from diffusion_core.device import pick_device
from diffusion_core.process.flow import FlowSchedule
from diffusion_core.runs.checkpoint import Checkpoint, load_model
from diffusion_core.runs.config import MAIN_AVERAGE, ConfigError
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run, load_run
from diffusion_core.sampling.levels import TIMESTEP_SPACINGS
from diffusion_core.sampling.sample import SAMPLERS, Cancelled, samplers_for, usual_steps
from diffusion_core.sampling.spec import (
    EACH_IN_TURN,
    MAX_SEED,
    MOST_IMAGES,
    VARIANCES,
    SamplingSpec,
)

# What makes the images, by its name among the words, with its default.
OPTIONS = {
    "step": None,
    "sampler": None,
    "spacing": "trailing",
    "steps": None,
    "eta": 0.0,
    "variance": "posterior",
    "average": MAIN_AVERAGE,
    "n": 16,
    "seed": 0,
    "label": None,
    "guidance_scale": 1.0,
    "negative": None,
    "guidance_interval": None,
    "lecture": False,
}


def add_arguments(sample: argparse.ArgumentParser) -> None:
    sample.add_argument("--run", type=Path, required=True)
    sample.add_argument(
        "--step", type=whole_number, help="of the checkpoint; by default the latest"
    )
    sample.add_argument(
        "--sampler",
        help=f"{', '.join(SAMPLERS)}; for a flow euler or heun; by default the first",
    )
    sample.add_argument("--spacing", choices=TIMESTEP_SPACINGS, help="of the steps")
    sample.add_argument(
        "--steps", type=whole_number, help="by default as many as the sampler is good with"
    )
    sample.add_argument("--eta", type=number, help="the fresh noise of ddim, from 0 to 1")
    sample.add_argument(
        "--variance",
        choices=VARIANCES,
        help="of the noise of ddpm: beta~ or beta; lecture has beta~ where its root should be",
    )
    sample.add_argument("--average", help="which averaged weights; main or another")
    sample.add_argument(
        "--n", type=whole_number, help=f"images, up to {MOST_IMAGES}; by default 16"
    )
    sample.add_argument("--seed", type=whole_number)
    sample.add_argument("--label", help="a class by name or number; by default each in turn")
    sample.add_argument("--guidance-scale", type=number)
    sample.add_argument("--negative", help="a class to lead away from; by default from any")
    sample.add_argument(
        "--guidance-interval",
        type=number,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="timesteps, both included; by default all",
    )
    sample.add_argument("--lecture", action="store_true", help="as the lecture samples, slips too")
    sample.set_defaults(do=do_sample, **OPTIONS)
    add_device(sample)
    sample.add_argument(
        "--out", default="grid.png", help="a file, or with / at its end a folder of images"
    )
    sample.add_argument("--resume", action="store_true", help="go on with a folder of images")


def do_sample(words: argparse.Namespace) -> int:
    run = load_run(words.run)
    out = Path(words.out)
    check_place(out)
    if out.is_dir() or words.out.endswith(("/", os.sep)):
        return sample_folder(words, run, out)
    if words.resume:
        raise ConfigError("--resume goes on with a folder of images; end --out with a /.")
    checkpoint = find_checkpoint(run, words.step)
    sample_grid(make_spec(words, run, checkpoint), checkpoint, words.device, out)
    return DONE


def make_spec(words: argparse.Namespace, run: Run, checkpoint: Checkpoint) -> SamplingSpec:
    """What the words order. Raises ConfigError."""
    config, classes = checkpoint.config, checkpoint.classes
    schedule = build_schedule(config)
    names = samplers_for(schedule)
    if words.lecture and (words.sampler not in (None, "ddpm") or words.spacing != "trailing"):
        raise ConfigError("--lecture is a way of its own; leave --sampler and --spacing out.")
    sampler = "ddpm" if words.lecture else words.sampler or names[0]
    if sampler not in names:
        raise ConfigError(f"{run.name} is drawn from by {' or '.join(names)}.")
    timesteps = schedule.timesteps
    steps = words.steps
    if steps is None:
        steps = usual_steps(sampler, schedule)
    for name, value, low, high in (
        ("n", words.n, 1, MOST_IMAGES),
        ("steps", steps, 1, timesteps),
        ("seed", words.seed, 0, MAX_SEED),
        ("eta", words.eta, 0, 1),
    ):
        if not low <= value <= high:
            raise ConfigError(f"--{name} is {value}; it must lie between {low:,} and {high:,}.")
    if words.eta and sampler != "ddim":
        raise ConfigError(f"--eta goes with ddim; {sampler} has none.")
    if words.variance != "posterior" and (sampler != "ddpm" or words.lecture):
        raise ConfigError("--variance goes with --sampler ddpm.")
    guided = words.guidance_scale != 1
    if guided and not classes:
        raise ConfigError(f"{run.name} was trained without classes; it takes no --guidance-scale.")
    if not guided and (words.negative is not None or words.guidance_interval is not None):
        raise ConfigError(
            "--negative and --guidance-interval say how to guide; give a --guidance-scale too."
        )
    spec = SamplingSpec(
        run=run.name,
        step=checkpoint.step,
        n=words.n,
        sampler=sampler,
        steps=steps,
        seed=words.seed,
        eta=words.eta,
        classes=classes,
        label=_class(words.label, classes, EACH_IN_TURN if classes else ""),
        guidance_scale=words.guidance_scale,
        negative=_class(words.negative, classes, ""),
        guidance_interval=words.guidance_interval and tuple(words.guidance_interval),
        as_lecture=words.lecture,
        average=words.average,
        flow=isinstance(schedule, FlowSchedule),
        spacing=words.spacing,
        variance=words.variance,
    )
    try:
        spec.evaluations(schedule)  # whether the steps can be spaced so
        return SamplingSpec.from_json(spec.to_json())  # which looks at everything else
    except ValueError as error:
        raise ConfigError(str(error)) from error


def sample_grid(
    spec: SamplingSpec, checkpoint: Checkpoint, device_name: str | None, out: Path
) -> None:
    from diffusion_core.files import replacing
    from diffusion_core.media.images import grid, png, to_uint8
    from diffusion_core.sampling.metadata import entries
    from diffusion_core.sampling.series import batch_for

    device = pick_device(device_name)
    loaded = load_model(checkpoint, device, spec.average)
    batch = batch_for(spec, checkpoint.config.image_size, device)
    firsts = range(0, spec.n, batch)
    with tqdm(total=spec.steps * len(firsts), unit="step", dynamic_ncols=True) as bar:
        images = [
            to_uint8(spec.make(loaded, lambda view: bar.update(), k, min(batch, spec.n - k)))
            for k in firsts
        ]
    with replacing(out) as file:
        whole = grid(np.concatenate(images), spec.columns())
        file.write(png(whole, text=entries(spec)))
    print(f"{spec.n} images of {spec.run}, step {checkpoint.step}: {out}")


def sample_folder(words: argparse.Namespace, run: Run, out: Path) -> int:
    """Draw into a new folder, or what is missing in one; Ctrl-C leaves it to be gone on with."""
    from diffusion_core.sampling.series import Series, batch_for, create, draw, line_up

    device = pick_device(words.device)
    series = Series(out)
    begun = (out / "order.json").exists()
    if begun:
        spec = series.spec
        if not words.resume:
            raise ConfigError(f"{out} holds {spec.words()}. Go on with it by --resume.")
        checkpoint = run.checkpoint(spec.step)
        given = any(getattr(words, name) != default for name, default in OPTIONS.items())
        if spec.run != run.name or (given and make_spec(words, run, checkpoint) != spec):
            raise ConfigError(
                f"{out} holds {spec.words()}. To go on with it leave other settings out."
            )
    else:
        if words.resume:
            raise ConfigError(f"There are no images in {out} to go on with.")
        checkpoint = find_checkpoint(run, words.step)
        spec = make_spec(words, run, checkpoint)
    loaded = load_model(checkpoint, device, spec.average)  # before anything is written
    if begun:
        line_up(series, checkpoint)
    else:
        create(out, spec, checkpoint, batch_for(spec, checkpoint.config.image_size, device))
    done = len(series.drawn())
    with tqdm(total=spec.n, initial=done, unit="picture", dynamic_ncols=True) as bar:
        try:
            for done in draw(series, lambda: loaded, str(device)):
                bar.update(done - bar.n)
        except Cancelled:
            bar.close()
            print(
                f"Stopped with {len(series.drawn()):,} of {spec.n:,} images. Go on with: "
                f"python -m diffusion_core sample --run {words.run} --out {out}/ --resume",
                file=sys.stderr,
            )
            return STOPPED
    print(f"{spec.n} images of {run.name}, step {spec.step}: {out}")
    return DONE


def _class(word: str | None, classes: tuple[str, ...], default: str) -> str:
    """A class by name or number; raises ConfigError with the names there are."""
    if word is None:
        return default
    if word in classes:
        return word
    if word.isdecimal() and int(word) < len(classes):
        return classes[int(word)]
    there = f"there are {', '.join(classes)}" if classes else "this run was trained without"
    raise ConfigError(f"There is no class {word!r}; {there}.")
