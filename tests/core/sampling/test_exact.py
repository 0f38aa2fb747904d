"""Exact sampling: image k of a seed has the same bits in every batch, on any CPU.

`make test-avx2` runs this as on one without AVX-512 and AMX.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_core.runs.checkpoint import load_model
from diffusion_core.runs.run import Run
from diffusion_core.sampling.spec import EACH_IN_TURN, SamplingSpec
from tests.tiny_runs import CLASSES, LECTURE, TINY, write_run

N = 7
UNET = TINY.replace(
    network_args={"widths": [16, 32], "blocks": 1, "attention_levels": [1], "num_classes": 3},
    image_size=32,
)
SPEC = SamplingSpec(run="unet", step=20, n=N, steps=3, seed=5, exact=True)
SPECS = [
    SPEC.replace(classes=CLASSES, label=EACH_IN_TURN, guidance_scale=2.0),
    SPEC.replace(run="lecture", sampler="ddpm"),
]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("runs")
    write_run(runs_dir, "unet", 20, config=UNET)
    write_run(runs_dir, "lecture", 20, config=LECTURE)
    return runs_dir


def test_exact_is_float32_on_a_gpu_too(two_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN would round what its convolutions take to 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    checkpoint = Run(two_runs / "unet").latest_checkpoint()
    load_model(checkpoint)
    assert torch.backends.cudnn.allow_tf32
    load_model(checkpoint, exact=True)
    assert not torch.backends.cudnn.allow_tf32


def test_exact_images_do_not_depend_on_the_batch(two_runs: Path) -> None:
    """For every batch size images are equal to the bit to those sampled alone."""
    for spec in SPECS:
        loaded = load_model(Run(two_runs / spec.run).checkpoint(20), exact=True)
        alone = torch.cat([spec.make(loaded, None, k, 1) for k in range(N)])
        assert alone.isfinite().all() and alone.std() > 0.1
        for batch in (2, 3, 4, N):
            parts = [spec.make(loaded, None, k, min(batch, N - k)) for k in range(0, N, batch)]
            assert torch.equal(torch.cat(parts), alone), (spec.run, batch)


def test_the_network_sees_one_image_at_a_time(two_runs: Path) -> None:
    loaded = load_model(Run(two_runs / "lecture").checkpoint(20), exact=True)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    sizes = []
    loaded.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    SPECS[1].make(loaded)
    assert sizes == [1] * (N * 3)
    sizes.clear()
    SPECS[1].replace(exact=False).make(loaded)
    assert sizes == [N] * 3
