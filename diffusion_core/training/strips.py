"""The sample strips of a run, always from the same fixed noise."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from diffusion_core.files import make_folder, replacing
from diffusion_core.media.images import png, strip, to_uint8
from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.config import RunConfig
from diffusion_core.sampling.registry import samplers_for
from diffusion_core.sampling.sample import StepView, sample

LECTURE_IMAGES = 10


def write_strip(
    run: Path, step: int, model: nn.Module, schedule: Schedule, config: RunConfig
) -> Path:
    """Sample the strip of `step` with this network and write `samples/step-….png`.

    `sample_steps` > 0: `sample_count` finished images by DPM-Solver++ 2M, which is good with few
    steps, the classes in turn; where a schedule ends in pure noise by DDIM, of a distilled network
    by its own sampler.
    `sample_steps` = 0: the lecture's strip, one image by DDPM over the whole schedule, ten
    looks at it, the image on the left and the noise on the right. A flow takes Euler's steps.
    """
    shape = config.image_shape
    known = [sampler.name for sampler in samplers_for(schedule, config.distilled)]
    if config.sample_steps:
        classes = config.network_args.get("num_classes")
        labels = torch.arange(config.sample_count) % classes if classes else None
        images = sample(
            model,
            schedule,
            config.sample_count,
            known[0],
            min(config.sample_steps, schedule.timesteps),
            seed=config.seed,
            prediction_type=config.prediction_type,
            labels=labels,
            shape=shape,
        )
    else:
        seen = []
        every = max(1, schedule.timesteps // LECTURE_IMAGES)

        def look(view: StepView) -> None:
            if view.timestep % every == 0:
                seen.append(view.x_t[:1])

        sample(
            model,
            schedule,
            1,
            "ddpm" if "ddpm" in known else known[0],
            seed=config.seed,
            prediction_type=config.prediction_type,
            shape=shape,
            on_step=look,
        )
        images = torch.cat(seen[::-1])
    path = run / "samples" / f"step-{step:08d}.png"
    make_folder(path.parent)
    with replacing(path) as file:
        file.write(png(strip(to_uint8(images))))
    return path
