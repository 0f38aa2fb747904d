"""The command `sample`: images of a run's checkpoint, as one grid or as a folder of files."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from diffusion_core.cli.options import (
    DONE,
    RUN_HELP,
    STOPPED,
    add_device,
    add_guidance,
    check_place,
    find_checkpoint,
    find_run,
    guide_settings,
    number,
    program,
    whole_number,
)
from diffusion_core.cores import computing
from diffusion_core.device import in_batches, pick_device
from diffusion_core.files import complain, replacing
from diffusion_core.media.images import IMAGE_FORMATS, check_size, encode, grid, to_uint8
from diffusion_core.runs.checkpoint import Checkpoint, load_model
from diffusion_core.runs.config import MAIN_AVERAGE, ConfigError
from diffusion_core.runs.run import Run
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.levels import LEARNED, TIMESTEP_SPACINGS
from diffusion_core.sampling.metadata import entries
from diffusion_core.sampling.registry import sampler_names
from diffusion_core.sampling.sample import Cancelled
from diffusion_core.sampling.series import Series, batch_for, create, generate, line_up
from diffusion_core.sampling.solvers import VARIANCES
from diffusion_core.sampling.spec import MOST_IMAGES, SamplingSpec, SpecError
from diffusion_core.text import shown

# The arguments that determine the images, with their defaults.
OPTIONS = {
    "step": None,
    "sampler": None,
    "spacing": None,
    "timesteps": None,
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
    "guide": None,
    "guide_average": None,
    "lecture": False,
    "exact": False,
}


def add_arguments(sample: argparse.ArgumentParser) -> None:
    sample.add_argument("--run", required=True, help=RUN_HELP)
    sample.add_argument("--step", type=whole_number, help="checkpoint step (default: the latest)")
    sample.add_argument(
        "--sampler",
        choices=sampler_names(),
        help="default: the first that the model supports; a flow supports euler and heun",
    )
    sample.add_argument(
        "--spacing",
        choices=(*TIMESTEP_SPACINGS, LEARNED),
        help="of the steps (default: learned if the run has timesteps for it, else the sampler's "
        "usual)",
    )
    sample.add_argument(
        "--timesteps",
        type=number,
        nargs="+",
        metavar="T",
        help="those of learned spacing, falling, one for each step (default: the run's own)",
    )
    sample.add_argument("--steps", type=whole_number, help="default: the sampler's usual number")
    sample.add_argument("--eta", type=number, help="ddim only: noise per step, from 0 to 1")
    sample.add_argument(
        "--variance",
        choices=VARIANCES,
        help="ddpm only, of its noise: beta~, beta, or the lecture's beta~ without the root",
    )
    sample.add_argument(
        "--average",
        help="averaged weights: main, another or, for example, 'post-hoc 0.075' (default: main)",
    )
    sample.add_argument("--n", type=whole_number, help=f"images, up to {MOST_IMAGES} (default: 16)")
    sample.add_argument("--seed", type=whole_number)
    sample.add_argument(
        "--label",
        help=f"class by name or number, '{ANY_CLASS}' or '{EACH_IN_TURN}' (default: the latter)",
    )
    sample.add_argument("--negative", help="class to guide away from (default: any class)")
    add_guidance(sample)
    sample.add_argument(
        "--lecture", action="store_true", help="sample as in the lecture, including its mistakes"
    )
    sample.add_argument(
        "--exact",
        action="store_true",
        help="float32, one image at a time: identical images whatever the batch size",
    )
    sample.set_defaults(do=do_sample, **OPTIONS)
    add_device(sample)
    sample.add_argument(
        "--out",
        default="grid.png",
        help=f"an image file ({', '.join(IMAGE_FORMATS)}; a PNG also contains the settings), or a "
        "folder of images if it ends with /",
    )
    sample.add_argument("--resume", action="store_true", help="continue a folder of images")


def do_sample(arguments: argparse.Namespace) -> int:
    run = find_run(arguments.run)
    out = Path(arguments.out)
    check_place(out)
    device = pick_device(arguments.device)
    if out.is_dir() or arguments.out.endswith(("/", os.sep)):
        with computing(run.path.parent, device):
            return sample_folder(arguments, run, device, out)
    if arguments.resume:
        raise ConfigError("--resume continues a folder of images; end --out with a /.")
    if out.suffix.lower() not in IMAGE_FORMATS:
        raise ConfigError(
            f"--out is {shown(arguments.out)}; its name must end with one of "
            f"{', '.join(IMAGE_FORMATS)}, or with / for a folder of images."
        )
    checkpoint = find_checkpoint(run, arguments.step)
    with computing(run.path.parent, device):
        sample_grid(make_spec(arguments, run, checkpoint), checkpoint, device, out)
    return DONE


def make_spec(arguments: argparse.Namespace, run: Run, checkpoint: Checkpoint) -> SamplingSpec:
    """The request that the arguments make. Raises ConfigError."""
    can = Capabilities.of(checkpoint)
    label = _class(arguments.label, can, can.labels[0] if can.labels else "")
    negative = _class(arguments.negative, can, "")
    usual = "ddpm" if arguments.lecture else can.samplers[0]
    sampler = arguments.sampler or usual
    spaced_as = usual if arguments.lecture else sampler
    steps = arguments.steps
    if steps is None:
        timesteps = arguments.timesteps
        steps = len(timesteps) if timesteps else can.usual_steps.get(sampler, 1)
    spacing = arguments.spacing
    if spacing is None and (arguments.timesteps or arguments.lecture):
        spacing = LEARNED if arguments.timesteps else can.usual_spacing[usual]
    spaced = can.spaced(spaced_as, steps, arguments.average, spacing)
    if arguments.timesteps:
        spaced["timesteps"] = arguments.timesteps
    for sentence in can.unusable:
        complain(f"Skipped: {sentence}")
    try:
        spec = SamplingSpec.from_dict(
            {
                "run": run.name,
                "step": checkpoint.step,
                "n": arguments.n,
                "sampler": sampler,
                "steps": steps,
                "seed": arguments.seed,
                "eta": arguments.eta,
                "classes": can.classes,
                "label": label,
                "guidance_scale": arguments.guidance_scale,
                "negative": "" if negative == ANY_CLASS else negative,
                "guidance_interval": arguments.guidance_interval,
                **guide_settings(arguments, run, checkpoint),
                "as_lecture": arguments.lecture,
                "average": arguments.average,
                "flow": can.flow,
                **spaced,
                "variance": arguments.variance,
                "exact": arguments.exact,
            },
            source="",
        )
    except SpecError as error:
        others = can.labels[: -len(can.classes)] if label not in can.labels else ()
        more = f" --label also takes {' and '.join(map(repr, others))}." if others else ""
        raise ConfigError(f"{error}{more}") from error
    if problems := spec.problems(can):
        raise ConfigError(" ".join(problems))
    if warning := spec.warning(can):
        complain(f"Warning: {warning}")
    return spec


def sample_grid(
    spec: SamplingSpec, checkpoint: Checkpoint, device: torch.device, out: Path
) -> None:
    columns, side = spec.columns(), checkpoint.config.image_size
    check_size(side * min(spec.n, columns), side * -(-spec.n // columns), out.suffix)
    loaded = load_model(checkpoint, device, spec.average, exact=spec.exact)
    guide = spec.load_guide(checkpoint, device)
    batch = batch_for(spec, side, device)
    with tqdm(total=spec.steps * -(-spec.n // batch), unit="step", dynamic_ncols=True) as bar:

        def make(first: int, count: int) -> np.ndarray:
            return to_uint8(spec.make(loaded, lambda view: bar.update(), first, count, guide))

        images = [found for _, found in in_batches(spec.n, batch, make)]
    with replacing(out) as file:
        whole = grid(np.concatenate(images), spec.columns())
        file.write(encode(whole, out.suffix, text=entries(spec)))
    print(f"{spec.details()['n']} of {spec.run}, step {checkpoint.step}: {out}")


def sample_folder(arguments: argparse.Namespace, run: Run, device: torch.device, out: Path) -> int:
    """Generate a new folder of images, or those missing in one; Ctrl-C leaves it resumable."""
    series = Series(out)
    started = (out / "order.json").exists()
    if started:
        spec = series.spec
        if not arguments.resume:
            raise ConfigError(f"{out} holds {spec.describe()}. Continue it with --resume.")
        checkpoint = run.checkpoint(spec.step)
        given = any(getattr(arguments, name) != default for name, default in OPTIONS.items())
        if spec.run != run.name or (given and make_spec(arguments, run, checkpoint) != spec):
            raise ConfigError(
                f"{out} holds {spec.describe()}. To continue it, leave other settings out."
            )
    else:
        if arguments.resume:
            raise ConfigError(f"There are no images in {out} to continue.")
        checkpoint = find_checkpoint(run, arguments.step)
        spec = make_spec(arguments, run, checkpoint)
    # Before anything is written.
    loaded = load_model(checkpoint, device, spec.average, exact=spec.exact)
    guide = spec.load_guide(checkpoint, device)
    if started:
        line_up(series, checkpoint)
    else:
        create(out, spec, checkpoint, batch_for(spec, checkpoint.config.image_size, device))
    done = len(series.numbers())
    with tqdm(total=spec.n, initial=done, unit="image", dynamic_ncols=True) as bar:
        try:
            for done in generate(series, lambda: loaded, str(device), load_guide=lambda: guide):
                bar.update(done - bar.n)
        except Cancelled:
            bar.close()
            print(
                f"Stopped with {len(series.numbers()):,} of {spec.n:,} images. Continue with: "
                f"{program()} sample --run {arguments.run} --out {out}/ --resume",
                file=sys.stderr,
            )
            return STOPPED
    print(f"{spec.details()['n']} of {run.name}, step {spec.step}: {out}")
    return DONE


def _class(word: str | None, can: Capabilities, default: str) -> str:
    """A class by name or number; what is neither is left for `problems`."""
    if word is None:
        return default
    if word in can.classes or not re.fullmatch(r"[0-9]{1,6}", word):
        return word
    return can.classes[int(word)] if int(word) < len(can.classes) else word
