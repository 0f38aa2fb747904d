"""Train the classifiers that quality is measured with; write diffusion_core/evaluation/assets.

    python -m docs.train_features cars     # about ten minutes on one CPU core
    python -m docs.train_features digits   # about a minute

All random numbers have fixed seeds: the same machine and version of PyTorch give the same weights.
The cars have seeds that no run trains on; every sixth of the 1,797 digits is held out. The networks
also learn paint, light, scenery and direction of a car, and how coarse or noisy an image was made,
so that distances between features show these faults too.

The last lines give the accuracy on held-out images.
"""

import json
import sys
import time
from contextlib import ExitStack
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import affine
from tqdm import tqdm

from diffusion_core.data.sources import cars, digits, scenery
from diffusion_core.data.sources.car_kinds import PAINTS
from diffusion_core.evaluation.features import ASSETS, CLASS, Classifier, prepare
from diffusion_core.files import replacing

TRAINING_SEED, HELD_OUT_SEED = 1_000_001, 1_000_002
COARSE = (1.0, 0.5, 0.25)  # of an image's side, then enlarged again
NOISE = (0.0, 0.04, 0.12)  # standard deviations, of images in [-1, 1]
FAULTS = {"coarse": len(COARSE), "noise": len(NOISE)}
SCENERIES = ("_hills", "_skyline", "_trees", "_sea", "_fields")
Images = tuple[np.ndarray, dict[str, np.ndarray]]  # and the labels, by head
CARS: dict[str, Any] = {
    "size": 64,
    "widths": [24, 48, 80, 128],
    "classes": cars.CLASSES,
    "heads": {
        CLASS: len(cars.CLASSES),
        "paint": len(PAINTS),
        "light": len(scenery.LIGHTS) + 1,
        "scenery": len(SCENERIES) + 1,
        "right": 2,
        **FAULTS,
    },
}
DIGITS: dict[str, Any] = {
    "size": 32,
    "widths": [24, 48, 64],
    "classes": digits.CLASSES,
    "heads": {CLASS: 10, **FAULTS},
}


class Recorder:
    """A generator that remembers its last value, which decides whether a car is mirrored."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.last = rng, 0.0

    def random(self) -> float:
        self.last = self.rng.random()
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rng, name)


def record_calls(stack: ExitStack, module: ModuleType, name: str, seen: dict[str, Any]) -> None:
    """Make a function or class of a module write its arguments to `seen` when it is called."""
    function = getattr(module, name)

    def call(*args: Any) -> Any:
        made = function(*args)
        seen[name] = args
        if name == "_Car":
            seen["colour"] = made.colour
        return made

    stack.enter_context(mock.patch.object(module, name, call))


def draw_cars(count: int, seed: int, seen: dict[str, Any]) -> Images:
    """Images (count, 64, 64, 3) and the right answer of each head of the network."""
    images = np.empty((count, 64, 64, 3), np.uint8)
    labels = {name: np.zeros(count, np.int64) for name in CARS["heads"]}
    for index in tqdm(range(count), desc="drawing", mininterval=5):
        seen.clear()
        images[index], labels[CLASS][index] = cars.draw_car(index, seed)
        _, light, rng = seen["_Car"]
        paint = np.square(np.array(PAINTS) - seen["colour"]).sum(1).argmin()
        outdoors = [k for k, name in enumerate(SCENERIES) if name in seen]
        lights = [kind for _, kind in scenery.LIGHTS]
        labels["paint"][index] = paint
        labels["light"][index] = lights.index(light) if outdoors else len(lights)
        labels["scenery"][index] = outdoors[0] if outdoors else len(SCENERIES)
        labels["right"][index] = rng.last >= 0.5
    return images, labels


def draw_digits() -> Images:
    drawn = [digits.draw_digit(index) for index in range(digits.COUNT)]
    labels = {name: np.zeros(len(drawn), np.int64) for name in DIGITS["heads"]}
    labels[CLASS][:] = [label for _, label in drawn]
    return np.stack([image for image, _ in drawn]), labels


def augmented(x: Tensor, labels: dict[str, Tensor], kind: str, rng: np.random.Generator) -> Tensor:
    """Small shifts, faults, now and then grey; cars mirrored, digits turned. Changes `labels`."""
    size = x.shape[-1]
    if kind == "cars" and rng.random() < 0.5:
        x = x.flip(-1)
        labels["right"] = 1 - labels["right"]
    if kind == "digits":
        x = affine(x, rng.uniform(-10, 10), [0, 0], rng.uniform(0.9, 1.1), [rng.uniform(-5, 5)] * 2,
                   fill=[-1.0])  # fmt: skip
    reach = 3
    down, across = rng.integers(0, 2 * reach + 1, 2)
    x = F.pad(x, [reach] * 4, mode="replicate")[..., down : down + size, across : across + size]
    if rng.random() < 0.1:
        x = x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    coarse, noise = rng.choice(3, p=(0.7, 0.2, 0.1)), rng.choice(3, p=(0.5, 0.3, 0.2))
    labels["coarse"] = torch.full_like(labels["coarse"], coarse)
    labels["noise"] = torch.full_like(labels["noise"], noise)
    if coarse:
        small = F.interpolate(x, scale_factor=COARSE[coarse], mode="bilinear", antialias=True)
        x = F.interpolate(small, (size, size), mode="bilinear", antialias=True)
    return x + torch.randn_like(x) * NOISE[noise]


def train(
    kind: str,
    recipe: dict[str, Any],
    epochs: int,
    batch: int,
    training: Images,
    held_out: Images,
) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images, labels = training
    model = Classifier(recipe["widths"], recipe["heads"]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    steps = epochs * (len(images) // batch)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps, pct_start=0.2)
    # A share of each batch has its own shift and mirroring.
    part = batch // 8
    for _ in (progress := tqdm(range(epochs), desc="training")):
        for start, order in enumerate(
            rng.permutation(len(images))[: len(images) // batch * batch].reshape(-1, batch)
        ):
            x, truth = [], []
            for rows in order.reshape(-1, part):
                targets = {name: torch.from_numpy(v[rows]) for name, v in labels.items()}
                plain = prepare(torch.from_numpy(images[rows]), recipe["size"])
                x.append(augmented(plain, targets, kind, rng))
                truth.append(targets)
            inputs = torch.cat(x).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                _, logits = model(inputs)
            losses = {
                name: F.cross_entropy(out.float(), torch.cat([part[name] for part in truth]),
                                      label_smoothing=0.05)
                for name, out in logits.items()
            }  # fmt: skip
            weight = {name: 1.0 if name == CLASS else 0.3 for name in losses}
            loss = torch.stack([weight[name] * value for name, value in losses.items()]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
            if start == 0:
                progress.set_postfix({k: f"{v.item():.2f}" for k, v in losses.items()})

    # As it is shipped: rounded to float16, which halves the file.
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()
               if not name.endswith("num_batches_tracked")}  # fmt: skip
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    model.eval()
    images, labels = held_out
    with torch.inference_mode():
        parts = [
            model(prepare(torch.from_numpy(rows), recipe["size"]))[1]
            for rows in np.array_split(images, max(1, len(images) // 250))
        ]
    accuracy = {
        name: float((torch.cat([p[name] for p in parts]).argmax(1).numpy() == truth).mean())
        for name, truth in labels.items()
    }
    facts = {**recipe, "held_out": len(images), "accuracy": accuracy}
    with replacing(ASSETS / f"features-{kind}.safetensors") as file:
        file.write(safetensors.torch.save(weights, {"diffusion_lab": json.dumps(facts)}))
    print(f"Accuracy on {len(images):,} held-out images:",
          ", ".join(f"{name} {share:.2%}" for name, share in accuracy.items()))  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    kind, started = sys.argv[1], time.perf_counter()
    if kind == "cars":
        seen: dict[str, Any] = {}
        default_rng = np.random.default_rng
        with ExitStack() as stack:
            for name in SCENERIES:
                record_calls(stack, scenery, name, seen)
            record_calls(stack, cars, "_Car", seen)
            stack.enter_context(
                mock.patch("numpy.random.default_rng", lambda *args: Recorder(default_rng(*args)))
            )
            training = draw_cars(16_000, TRAINING_SEED, seen)
            held_out = draw_cars(2_000, HELD_OUT_SEED, seen)
        train(kind, CARS, 10, 128, training, held_out)
    else:
        images, labels = draw_digits()
        out = np.arange(len(images)) % 6 == 5
        sets = [(images[k], {n: v[k] for n, v in labels.items()}) for k in (~out, out)]
        train(kind, DIGITS, 60, 64, *sets)
    print(f"{time.perf_counter() - started:.0f} s")
