"""One timed training in a process of its own; `benchmarks.training` starts them.

    python -m benchmarks.contenders NETWORK TRAINER JOB     (JOB: the fields of `Job` as JSON)

NETWORK is one of `NETWORKS`, TRAINER one of `TRAINERS`; the last line of the output is
`{"seconds": ..., "images": ...}`. It runs in the environment that has the peers. All are timed
alike: `Clock` counts from the end of the last warm-up step to the end of the last timed one, and
the device has finished its work at both.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import build_model, preset
from diffusion_core.training.trainer import train

SIZE = 64
JOB_DATA = "cars:16160"  # 126 full batches of 128 and 32 held out, as the lecture has


@dataclass(frozen=True)
class Job:
    folder: str  # holds `train` and `test`, each a folder of images as `ImageFolder` reads it
    batch: int
    warmup: int  # steps before the clock runs
    steps: int  # steps that are timed
    device: str


class Clock:
    """Times the steps after the warm-up."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.step = 0
        self.start = self.end = 0.0

    def on_step(self, step: int, steps: int, loss: float | None) -> None:
        """For our trainer, which calls it after each step."""
        self.tick()

    def tick(self) -> bool:
        """After each step; True when the last timed step has ended."""
        self.step += 1
        if self.step == self.job.warmup:
            self.start = self.now()
        if self.step == self.job.warmup + self.job.steps:
            self.end = self.now()
        return self.step >= self.job.warmup + self.job.steps

    def now(self) -> float:
        if self.job.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    def result(self) -> dict[str, float]:
        return {"seconds": self.end - self.start, "images": self.job.batch * self.job.steps}


# ---------------------------------------------------------------- the networks


def lecture_network() -> nn.Module:
    return build_model("lecture")


def lucidrains_network() -> nn.Module:
    """The network of the first example in denoising-diffusion-pytorch's README."""
    from denoising_diffusion_pytorch import Unet

    return Unet(dim=64, dim_mults=(1, 2, 4, 8))


class Called(nn.Module):
    """A network of diffusers, called as the others are: the prediction itself comes back."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.network(x, t, return_dict=False)[0]


def diffusers_network() -> nn.Module:
    """The network of diffusers' example of unconditional training, at 64 x 64."""
    from diffusers import UNet2DModel

    plain, attention = "{}Block2D", "Attn{}Block2D"
    network: Any = UNet2DModel(
        sample_size=SIZE,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=[k.format("Down") for k in (*[plain] * 4, attention, plain)],
        up_block_types=[k.format("Up") for k in (plain, attention, *[plain] * 4)],
    )
    return Called(network)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lecture": lecture_network,
    "lucidrains": lucidrains_network,
    "diffusers": diffusers_network,
}


# ---------------------------------------------------------------- the trainers


def our_config(network: str, job: Job) -> RunConfig:
    """The lecture's settings with the objective that the peer gives its own network.

    Only our own networks can be traced, and so have their layers computed in other ways.
    """
    config = preset("lecture").replace(
        fast_layers=network == "lecture",
        data=f"folder:{job.folder}",
        batch_size=job.batch,
        micro_batch=job.batch,
        steps=job.warmup + job.steps + 1,  # the last step writes the weights: it is not timed
        validation_count=0,
        checkpoint_every=0,
        sample_every=0,
        validate_every=0,
    )
    if network == "lucidrains":
        schedule = {"kind": "sigmoid", "timesteps": 1000}
        return config.replace(
            network="unet", prediction_type="v_prediction", loss="l2", schedule=schedule
        )
    if network == "diffusers":
        schedule = {"kind": "linear", "timesteps": 1000}
        return config.replace(
            network="unet", loss="l2", optimizer="adamw", gradient_clip=1.0, schedule=schedule
        )
    return config


def train_ours(network: str, job: Job) -> dict[str, float]:
    """Our trainer, whole: what `python -m diffusion_core train` runs."""
    clock = Clock(job)
    with tempfile.TemporaryDirectory() as folder, using_network(network):
        train(
            Path(folder) / "run",
            our_config(network, job),
            device=torch.device(job.device),
            on_step=clock.on_step,
        )
    return clock.result()


@contextmanager
def using_network(network: str) -> Iterator[None]:
    """Give the trainer a network that is none of its own, where it builds one."""
    if network == "lecture":
        yield
        return
    with replaced("build_network", lambda *args: NETWORKS[network]()):
        yield


@contextmanager
def replaced(name: str, function: Callable) -> Iterator[None]:
    """Another function in every module of the core that imported or defines `name`."""
    places = [
        module
        for key, module in sys.modules.items()
        if key.startswith("diffusion_core.") and hasattr(module, name)
    ]
    if not places:
        raise AttributeError(f"No module of diffusion_core has {name}.")
    with ExitStack() as stack:
        for module in places:
            stack.enter_context(mock.patch.object(module, name, function))
        yield


def train_job(network: str, job: Job) -> dict[str, float]:
    """The lecture's whole job as the preset has it: 252 steps of 128, checkpoints and strips."""
    config = preset("lecture").replace(data=JOB_DATA)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "run", config, device=torch.device(job.device))
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "images": config.steps * config.batch_size}


def train_as_lecture(network: str, job: Job) -> dict[str, float]:
    """The lecture's loop: files decoded every epoch, float32, each loss fetched and printed."""
    convert = transforms.Compose(
        [
            transforms.Resize((SIZE, SIZE)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Lambda(lambda x: x * 2 - 1),
        ]
    )
    parts = [ImageFolder(Path(job.folder) / part, convert) for part in ("train", "test")]
    loader: DataLoader = DataLoader(
        ConcatDataset(parts), batch_size=job.batch, shuffle=True, drop_last=True
    )
    timesteps = 300
    alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, timesteps)).cumprod(0)
    signal, noise_scale = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()

    def pick(values: Tensor, t: Tensor) -> Tensor:
        return values.gather(-1, t.cpu()).reshape(-1, 1, 1, 1).to(t.device)

    device = torch.device(job.device)
    model = NETWORKS[network]().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    clock = Clock(job)
    for epoch in count():
        for step, (x_0, _) in enumerate(loader):
            optimizer.zero_grad()
            x_0 = x_0.to(device)
            t = torch.randint(0, timesteps, (job.batch,), device=device).long()
            noise = torch.randn_like(x_0)
            x_t = pick(signal, t) * x_0 + pick(noise_scale, t) * noise
            loss = F.l1_loss(noise, model(x_t, t))
            loss.backward()
            optimizer.step()
            print(f"Epoch {epoch} | step {step:03d} Loss: {loss.item()}")
            if clock.tick():
                return clock.result()
    raise AssertionError("not reached")


class ForLucidrains(nn.Module):
    """A network with the attributes and the third argument that `GaussianDiffusion` expects."""

    channels = out_dim = 3
    self_condition = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, x_self_cond: Tensor | None = None) -> Tensor:
        return self.network(x, t)


class Enough(Exception):
    """Ends a trainer that has no other way to be stopped."""


def train_as_lucidrains(network: str, job: Job) -> dict[str, float]:
    """denoising-diffusion-pytorch's `Trainer` with its own settings, but for the batch size."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer

    model = NETWORKS[network]()
    if network == "lecture":
        settings: dict[str, Any] = {"timesteps": 300, "objective": "pred_noise"}
        model = ForLucidrains(model)
    else:
        settings = {"timesteps": 1000}
    clock = Clock(job)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            GaussianDiffusion(model, image_size=SIZE, **settings),
            job.folder,
            train_batch_size=job.batch,
            train_num_steps=job.warmup + job.steps + 1,
            save_and_sample_every=10**9,
            calculate_fid=False,  # it would download a network
            results_folder=folder,
        )
        update = trainer.ema.update

        def tick() -> None:
            update()  # the last thing in each of its steps
            if clock.tick():
                raise Enough

        trainer.ema.update = tick
        try:
            trainer.train()
        except Enough:
            return clock.result()
    raise AssertionError("not reached")


def train_as_diffusers(network: str, job: Job) -> dict[str, float]:
    """diffusers' components in a loop over accelerate, as in its example of unconditional
    training: files decoded every epoch, AdamW, a learning rate schedule, clipping, EMA, each loss
    fetched for the progress bar."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel
    from tqdm import tqdm

    accelerator = Accelerator(cpu=job.device == "cpu")
    convert = transforms.Compose(
        [
            transforms.Resize(SIZE, interpolation=transforms.InterpolationMode.BILINEAR),
            transforms.CenterCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )
    parts = [ImageFolder(Path(job.folder) / part, convert) for part in ("train", "test")]
    # drop_last is not in the example; here it keeps every step at the same number of images.
    loader: DataLoader = DataLoader(
        ConcatDataset(parts), batch_size=job.batch, shuffle=True, drop_last=True
    )
    model = NETWORKS[network]()
    timesteps = 300 if network == "lecture" else 1000
    scheduler: Any = DDPMScheduler(num_train_timesteps=timesteps)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    rate = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=10_000)
    ema = EMAModel(model.parameters(), use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    model, optimizer, loader, rate = accelerator.prepare(model, optimizer, loader, rate)
    ema.to(accelerator.device)
    clock = Clock(job)
    bar = tqdm(total=job.warmup + job.steps)
    while True:
        model.train()
        for clean, _ in loader:
            noise = torch.randn(clean.shape, device=clean.device)
            t = torch.randint(0, timesteps, (len(clean),), device=clean.device).long()
            noisy = scheduler.add_noise(clean, noise, t)
            with accelerator.accumulate(model):
                loss = F.mse_loss(model(noisy, t).float(), noise.float())
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                rate.step()
                optimizer.zero_grad()
            ema.step(model.parameters())
            bar.update(1)
            bar.set_postfix(loss=loss.detach().item(), lr=rate.get_last_lr()[0])
            if clock.tick():
                return clock.result()


TRAINERS: dict[str, Callable[[str, Job], dict[str, float]]] = {
    "ours": train_ours,
    "job": train_job,
    "lecture": train_as_lecture,
    "lucidrains": train_as_lucidrains,
    "diffusers": train_as_diffusers,
}


def command(python: str, network: str, trainer: str, job: Job) -> list[str]:
    """What starts this file; `read_result` reads what it prints."""
    return [python, "-m", "benchmarks.contenders", network, trainer, json.dumps(asdict(job))]


def read_result(text: str) -> float:
    """Images per second from a contender's output. Raises ValueError where there is none."""
    lines = text.strip().splitlines()
    try:
        found = json.loads(lines[-1])
        return found["images"] / found["seconds"]
    except (IndexError, KeyError, TypeError, json.JSONDecodeError, ZeroDivisionError) as error:
        raise ValueError(f"This is not the output of a finished run: {text[-500:]!r}") from error


def main() -> None:
    network, trainer, job = sys.argv[1:]
    print(json.dumps(TRAINERS[trainer](network, Job(**json.loads(job)))))


if __name__ == "__main__":
    main()
