"""A playground as Python code that computes the same numbers."""

from __future__ import annotations

from collections.abc import Sequence

from diffusion_core.playground.settings import SAMPLERS, Settings


def python_code(settings: Settings, samplers: Sequence[str]) -> str:
    """A script that trains with the settings and samples with each of the samplers."""
    changed = settings.model_dump(exclude_defaults=True)
    arguments = "".join(f"    {name}={value!r},\n" for name, value in changed.items())
    lines = [
        "from diffusion_core.playground import Settings, make_data, sample, train",
        "",
        f"settings = Settings(\n{arguments})" if arguments else "settings = Settings()",
        "data = make_data(settings)  # points (N, 2) and labels (N,)",
        "samples = {}",
    ]
    for objective in dict.fromkeys(SAMPLERS[name] for name in samplers):
        lines += [
            "",
            f'model = train(settings, data, "{objective}")',
            f'print(f"{objective}: loss of the last step {{model.losses[-1]:.6f}}")',
        ]
        lines += [
            f'samples["{name}"] = sample(settings, model, data, "{name}")[-1]  # particles (n, 2)'
            for name in samplers
            if SAMPLERS[name] == objective
        ]
    return "\n".join([*lines, "", "for name, points in samples.items():",
                      "    print(name, points[:3].round(4).tolist())", ""])  # fmt: skip
