"""How to make a run and its images again, as commands and as Python."""

from __future__ import annotations

import json
import shlex
from typing import Any

from diffusion_core.runs.config import FOLLOWING, MAIN_AVERAGE, RunConfig, usual_min_snr_gamma
from diffusion_core.runs.presets import PRESETS
from diffusion_core.sampling.capabilities import EACH_IN_TURN
from diffusion_core.sampling.learned import in_words
from diffusion_core.sampling.spec import SamplingSpec


def train_command(name: str, config: RunConfig) -> str:
    """The command that trains a run with these settings from its first step."""
    start = PRESETS.get(config.preset, PRESETS["small"])
    before, settings = start.model_dump(), config.model_dump()
    settings["network_args"] = {
        key: value for key, value in config.network_args.items() if key not in FOLLOWING
    }
    words = ["diffusion-lab", "train", "--run", name]
    words += ["--preset", start.preset]
    changed = [
        f"{key}={_text(value)}"
        for key, value in settings.items()
        if value != before[key] and key not in ("preset", "preset_version", "min_snr_gamma")
    ]
    # Where it is the usual one, it follows the objective of the settings before it.
    follows = start.min_snr_gamma == usual_min_snr_gamma(before)
    expected = usual_min_snr_gamma(settings) if follows else start.min_snr_gamma
    if config.min_snr_gamma != expected:
        changed.append(f"min_snr_gamma={_text(config.min_snr_gamma)}")
    return shlex.join(words + (["--set", *changed] if changed else []))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def sample_command(spec: SamplingSpec, out: str) -> str:
    """The command that makes the images of a spec again, as one grid or a folder of files."""
    words = ["diffusion-lab", "sample", "--run", spec.run, "--step", str(spec.step)]
    if spec.as_lecture:
        words += ["--lecture"]
    else:
        words += ["--sampler", spec.sampler, "--spacing", spec.spacing]
    if spec.timesteps:
        words += ["--timesteps", *in_words(spec.timesteps)]
    words += ["--steps", str(spec.steps), "--n", str(spec.n), "--seed", str(spec.seed)]
    if spec.classes and spec.label != EACH_IN_TURN:
        words += ["--label", spec.label]
    if spec.guidance_scale != 1:
        words += ["--guidance-scale", f"{spec.guidance_scale:g}"]
        if spec.negative:
            words += ["--negative", spec.negative]
        if spec.autoguided:
            words += ["--guide", f"{spec.guide_run or spec.run}@{spec.guide_step}"]
            if spec.guide_average != MAIN_AVERAGE:
                words += ["--guide-average", spec.guide_average]
        if spec.guidance_interval is not None:
            words += ["--guidance-interval", *(f"{t:g}" for t in spec.guidance_interval)]
    if spec.eta:
        words += ["--eta", f"{spec.eta:g}"]
    if spec.variance != "posterior":
        words += ["--variance", spec.variance]
    if spec.average != MAIN_AVERAGE:
        words += ["--average", spec.average]
    if spec.exact:
        words += ["--exact"]
    return shlex.join([*words, "--out", out])


def sample_python(spec: SamplingSpec, image: int | None = None) -> str:
    """The same in Python: of all images, or of one, from 0."""
    usual = SamplingSpec(run=spec.run, step=spec.step)
    given = {
        name: value
        for name, value in dict(spec).items()
        if name in ("run", "step") or value != getattr(usual, name)
    }
    fields = ",\n".join(f"    {name}={value!r}" for name, value in given.items())
    more = [f"{spec.average!r}"] if spec.average != MAIN_AVERAGE else []
    more += ["exact=True"] if spec.exact else []
    load = ", ".join(["run.checkpoint(spec.step)", '"cpu"', *more])
    which = "" if image is None else f", first={image}, n=1"
    if spec.autoguided:
        which += ", guide=spec.load_guide(run.checkpoint(spec.step))"
    return (
        "from diffusion_core import load_model, load_run\n"
        "from diffusion_core.sampling.spec import SamplingSpec\n\n"
        f"run = load_run({spec.run!r})  # its folder\n"
        f"spec = SamplingSpec(\n{fields},\n)\n"
        f"images = spec.make(load_model({load}){which})  # (n, C, H, W) in [-1, 1]\n"
    )
