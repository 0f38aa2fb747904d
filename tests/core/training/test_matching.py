"""Distribution matching: against normal distributions, for which every network is a formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_core.process.schedule import Schedule, gather
from diffusion_core.runs import checkpoint, jobs
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.run import load_run
from diffusion_core.training import matching
from diffusion_core.training.context import TrainingContext
from diffusion_core.training.distributed import joined
from diffusion_core.training.step import batch_of, learning_rate, one_step
from diffusion_core.training.trainer import train
from tests.core.training.test_step import prepared
from tests.tiny_runs import DEVICE, same, tiny

STUDENT = {
    "objective": "consistency",
    "consistency_by": "paths",
    "consistency_steps": 3,
    "init_from": "teacher",
    "min_snr_gamma": 0.0,
    "loss": "l1",
}
TRUE, WRONG, WIDTH = 0.1, 0.5, 0.2  # means and standard deviation of the values


class Normal(nn.Module):
    """Networks for values from N(mean, WIDTH^2), which predict v."""

    def __init__(self, schedule: Schedule, mean: float, distilled: bool = False) -> None:
        super().__init__()
        self.schedule, self.distilled = schedule, distilled
        self.mean = nn.Parameter(torch.tensor(mean))

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        a, b = (gather(each, t, 4) for each in (self.schedule.signal, self.schedule.spread))
        variance = a**2 * WIDTH**2 + b**2
        # A denoiser's mean, or the end of the path, which keeps the quantile.
        slope = WIDTH / variance.sqrt() if self.distilled else a * WIDTH**2 / variance
        x_0 = self.mean + slope * (x_t - a * self.mean)
        return a * (x_t - a * x_0) / b - b * x_0


def of_normals(critic: float) -> TrainingContext:
    """A student of mean WRONG, a teacher of mean TRUE and a critic of the mean `critic`."""
    schedule = {"kind": "cosine", "timesteps": 1000}
    how = {"learning_rate": 0.01, "warmup_steps": 0, "matching_rate": 0.01, "ema_decay": 0.0}
    training = prepared(tiny(**STUDENT, **how, schedule=schedule, batch_size=8, matching_share=1.0))
    training.model = Normal(training.schedule, WRONG, distilled=True)
    training.optimizer = torch.optim.Adam(training.model.parameters(), fused=True)
    training.averages = {}
    training.teacher = Normal(training.schedule, TRUE).requires_grad_(False)
    training.critic = Normal(training.schedule, critic)
    training.critic_optimizer = torch.optim.Adam(training.critic.parameters())
    return training


def test_samples_are_led_from_what_the_critic_predicts_to_what_the_teacher_does() -> None:
    with joined(DEVICE):
        training = of_normals(critic=WRONG)
        batch = batch_of(training, 1)
    assert batch.samples is not None
    assert batch.t[::2].tolist() == [999] * 4  # first steps, from the noise of the batch
    a, b = training.schedule.signal[999], training.schedule.spread[999]
    x_T = a * batch.x_0[0] + b * batch.noise[0]
    end = WRONG + WIDTH * (x_T - a * WRONG) / (a**2 * WIDTH**2 + b**2).sqrt()
    assert torch.allclose(batch.samples[0], end.clamp(-1, 1), atol=1e-4)
    assert len(set(batch.t[1::2].tolist())) > 1
    # Two denoisers of normal distributions differ by a constant, with the sign of their means.
    lead = (batch.samples - batch.x_0).flatten(1)
    assert (lead > 0).all()
    assert torch.allclose(lead, lead[:, :1].expand_as(lead), atol=1e-4)


def test_samples_that_critic_and_teacher_agree_about_stay() -> None:
    with joined(DEVICE):
        batch = batch_of(of_normals(critic=TRUE), 1)
    assert batch.samples is not None
    assert torch.allclose(batch.samples, batch.x_0, atol=1e-5)


def test_the_critic_follows_the_student_and_the_student_arrives_at_the_teacher() -> None:
    with joined(DEVICE):
        training = of_normals(critic=TRUE)
        network, critic = training.model, training.critic
        assert isinstance(network, Normal)
        assert isinstance(critic, Normal)
        between = []
        for step in range(1, 481, 2):  # those between follow paths
            one_step(training, step)
            between.append(float(critic.mean.detach() - TRUE))
    assert max(between) > 0.1  # nothing would move the student otherwise
    assert float(network.mean.detach()) == pytest.approx(TRUE, abs=0.05)
    assert float(critic.mean.detach()) == pytest.approx(TRUE, abs=0.05)


def test_several_processes_see_the_samples_that_one_does() -> None:
    with joined(DEVICE):
        training = of_normals(critic=WRONG)
        whole = batch_of(training, 3)
        for process in (0, 1):
            share = batch_of(training, 3, process, 2)
            for ours, theirs in zip(share[:4], whole[:4], strict=True):
                assert torch.allclose(ours.float(), theirs[process::2].float(), atol=1e-4)


def test_the_learning_rate_begins_anew_with_the_matching() -> None:
    how = {"learning_rate": 0.1, "matching_rate": 0.02, "warmup_steps": 4}
    config = tiny(**STUDENT, **how, steps=40, matching_share=0.5, learning_rate_decay="cosine")
    paths = config.replace(steps=20, matching_share=0.0)
    rates = [learning_rate(config, step) for step in range(1, 41)]
    assert rates[:20] == [learning_rate(paths, step) for step in range(1, 21)]
    assert rates[20:] == pytest.approx([rate / 5 for rate in rates[:20]])


def test_a_run_that_was_stopped_while_it_matched_equals_one_that_was_not(tmp_path: Path) -> None:
    quiet = {"sample_every": 0, "validate_every": 0}
    train(tmp_path / "teacher", tiny(**quiet, steps=2), device=DEVICE)
    config = tiny(**STUDENT, **quiet, steps=7, matching_share=0.7, sample_steps=1, micro_batch=3)
    assert train(tmp_path / "whole", config, device=DEVICE) == "finished"
    assert train(tmp_path / "cut", config.replace(pause_at=5), device=DEVICE) == "paused"
    assert train(tmp_path / "cut", resume=True, device=DEVICE) == "finished"
    # Or matched later: a finished distillation takes more steps.
    short = config.replace(steps=2, matching_share=0.0)
    assert train(tmp_path / "later", short, device=DEVICE) == "finished"
    jobs.change(load_run(tmp_path / "later"), {"steps": 7, "matching_share": 0.7})
    assert train(tmp_path / "later", resume=True, device=DEVICE) == "finished"
    states = {name: checkpoint.load_state(tmp_path / name, 7) for name in ("whole", "cut", "later")}
    for part in ("model", "critic"):
        for name, tensor in states["whole"][part].items():
            assert same(tensor, states["cut"][part][name]), (part, name)
            assert same(tensor, states["later"][part][name]), (part, name)
    before = checkpoint.load_state(tmp_path / "cut", 5)["critic"]
    assert any(not same(before[name], tensor) for name, tensor in states["cut"]["critic"].items())


def test_a_broken_critic_costs_the_newest_checkpoint_alone(tmp_path: Path) -> None:
    """The older one is of before the matching, with another optimizer."""
    quiet = {"sample_every": 0, "validate_every": 0, "checkpoint_every": 4}
    train(tmp_path / "teacher", tiny(**quiet, steps=2), device=DEVICE)
    config = tiny(**STUDENT, **quiet, steps=7, matching_share=0.4)
    assert train(tmp_path / "whole", config, device=DEVICE) == "finished"
    assert train(tmp_path / "cut", config.replace(pause_at=6), device=DEVICE) == "paused"
    state = checkpoint.load_state(tmp_path / "cut", 6)
    state["critic"].popitem()
    torch.save(state, checkpoint.state_path(tmp_path / "cut", 6))
    for result in ("paused", "finished"):  # at step 6 again
        assert train(tmp_path / "cut", resume=True, device=DEVICE) == result
    whole, cut = (checkpoint.load_state(tmp_path / name, 7) for name in ("whole", "cut"))
    for part in ("model", "critic"):
        assert all(same(tensor, cut[part][name]) for name, tensor in whole[part].items())


def test_the_critic_takes_fewer_images_at_once_where_memory_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []

    def predict(context: TrainingContext, network: nn.Module, x_t: Tensor, *rest: Any) -> Tensor:
        if network is context.critic and torch.is_grad_enabled():
            sizes.append(len(x_t))
            if len(x_t) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(context, network, x_t, *rest)

    whole = matching.predict
    monkeypatch.setattr(matching, "predict", predict)
    with joined(DEVICE):
        training = of_normals(critic=WRONG)
        training.micro_batch = 8
        one_step(training, 1)
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert training.micro_batch == 2


def test_only_a_distillation_along_paths_can_match() -> None:
    for settings in ({"consistency_by": "tuning", "loss": "l2"}, {"objective": "denoising"}):
        with pytest.raises(ConfigError, match="matching_share is for a distillation with consist"):
            tiny(**STUDENT | settings, matching_share=0.5)
    with pytest.raises(ConfigError, match="no weights for matched samples"):
        tiny(**STUDENT, matching_share=0.5, learned_weighting=True)
