"""The engine that samples in a browser against the core: layers, networks, noise, whole images.

Everything is held against both of its ways to compute, JavaScript and WebGL2.
"""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from playwright.sync_api import Page
from torch import Tensor, nn

from dashboard.components import engine
from dashboard.components.assemble import inline, scripts
from diffusion_core.process.embedding import SinusoidalPositionEmbeddings
from diffusion_core.process.noise import image_noise
from diffusion_core.runs.checkpoint import Checkpoint, load_model, read_checkpoint
from diffusion_core.runs.config import RunConfig
from diffusion_core.sampling.browser_model import browser_model
from diffusion_core.sampling.levels import spaced_timesteps
from diffusion_core.sampling.sample import sample
from tests.browser.conftest import Windows
from tests.tiny_runs import CLASSES, tiny, write_checkpoint

ROUNDING = 1e-4  # of float32, for values of about 1
TWO_LEVELS = 2 / 127.5  # grey levels of images in [-1, 1]
KINDS = ("processor", "graphics")

# What a test calls: arrays come and go as base64 of float32.
BESIDE = """
const backends = {};
const backendOf = (kind) => (
  backends[kind] ??= kind === "processor" ? new Processor() : new Graphics()
);
const floats = (text) => new Float32Array(
  Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer,
);
const text = (values) => {
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  let characters = "";
  for (const byte of bytes) characters += String.fromCharCode(byte);
  return btoa(characters);
};
const tensor = (given) => given && { shape: given.shape, values: floats(given.values) };
const begin = (backend, { shape: [channels, height, width], values }) => (
  backend.begin(floats(values), height, width, channels)
);
const OPERATIONS = {
  convolve(backend, { weight, bias, add, ...how }, x) {
    const layer = backend.loadConvolution({ weight: tensor(weight), bias: tensor(bias) });
    return backend.convolve(x, layer, { ...how, add: add ? begin(backend, add) : null });
  },
  norm(backend, { weight, bias, groups, scale, shift, silu }, x) {
    const layer = backend.loadNorm({ weight: tensor(weight), bias: tensor(bias) }, groups);
    const terms = scale ? { scale: floats(scale.values), shift: floats(shift.values) } : null;
    return backend.norm(x, layer, { terms, silu });
  },
  join: (backend, { other }, x) => backend.join(x, begin(backend, other)),
  attend: (backend, { heads }, x) => backend.attend(x, heads),
};
window.engine = {
  halves: () => text(Array.from({ length: 65536 }, (_, bits) => halfOf(bits))),
  noise({ seed, index, count }) {
    const next = imageNoise(seed, index);
    return [text(next(count)), text(next(count))];
  },
  sinusoids: ({ t, size }) => text(sinusoids(t, size)),
  levels({ total, steps }) {
    const schedule = { alpha: new Float64Array(total), sigma: [] };
    return steps.map((count) => trailingLevels(schedule, count).slice(0, -1).map(({ t }) => t));
  },
  layer({ kind, operation, x, ...how }) {
    const backend = backendOf(kind);
    return text(backend.end(OPERATIONS[operation](backend, how, begin(backend, x))));
  },
  start: (how) => text(startOf(how, how).x_T),
  network({ kind, file, x, t, label }) {
    const network = openNetwork(backendOf(kind), readModelFile(bytes(file)));
    return text(network.predict(floats(x), t, label));
  },
  sample({ kind, file, seed, sampler, steps, label, guidance }) {
    const { model, tensors } = readModelFile(bytes(file));
    const network = openNetwork(backendOf(kind), { model, tensors });
    const predict = makePredict(network, model.prediction_type, label, guidance);
    const [alpha, sigma] = ["alpha", "sigma"].map((name) => tensors[`schedule.${name}`].values);
    const noise = imageNoise(seed);
    const x_T = noise(model.channels * model.image_size ** 2);
    const levels = trailingLevels({ alpha, sigma }, steps);
    return text([...SAMPLERS[sampler](predict, levels, x_T, noise)].at(-1).x_t);
  },
};
function bytes(given) {
  return Uint8Array.from(atob(given), (character) => character.charCodeAt(0)).buffer;
}
"""


@functools.cache
def script() -> str:
    """The engine without its worker, in a scope of its own."""
    *parts, _ = scripts(Path(engine.__file__).with_name("worker.js"))
    text = "".join(inline(part.read_text(encoding="utf-8")) for part in parts)
    return f"(() => {{ {text}\n{BESIDE} }})()"


@pytest.fixture(scope="module")
def page(windows: Windows) -> Iterator[Page]:
    """An empty window in which the engine is."""
    page = windows.chromium.new_page()
    page.evaluate(script())
    yield page
    page.close()


def call(page: Page, name: str, **given: Any) -> Any:
    return page.evaluate(f"given => window.engine.{name}(given)", given)


def sent(values: Tensor | np.ndarray) -> dict[str, Any]:
    array = np.asarray(values, dtype="<f4")
    return {"shape": list(array.shape), "values": base64.b64encode(array.tobytes()).decode()}


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def assert_close(found: str, wanted: Tensor, most: float = ROUNDING) -> None:
    np.testing.assert_allclose(floats(found), wanted.detach().numpy().ravel(), rtol=0, atol=most)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- layers

CONVOLUTIONS: tuple[dict[str, Any], ...] = (
    {"kernel": 3},
    {"kernel": 3, "stride": 2},
    {"kernel": 3, "up": True},
    {"kernel": 1},
    {"kernel": 3, "add": True},  # to another image
)


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_are_pytorchs(kind: str, page: Page) -> None:
    """Of numbers of channels and pixels that fill no block of four."""
    for inputs, outputs, (height, width) in ((6, 10, (6, 10)), (8, 4, (4, 4)), (1, 3, (2, 2))):
        x, bias = random(1, inputs, height, width), random(outputs, seed=1)
        for how in CONVOLUTIONS:
            kernel = how["kernel"]
            weight = random(outputs, inputs, kernel, kernel, seed=2) / math.sqrt(inputs)
            larger = F.interpolate(x, scale_factor=2) if how.get("up") else x
            wanted = F.conv2d(larger, weight, bias, how.get("stride", 1), kernel // 2)
            given = {key: value for key, value in how.items() if key in ("stride", "up")}
            if how.get("add"):
                other = random(*wanted.shape[1:], seed=3)
                given["add"], wanted = sent(other), wanted + other
            found = call(
                page,
                "layer",
                kind=kind,
                operation="convolve",
                x=sent(x[0]),
                weight=sent(weight),
                bias=sent(bias),
                **given,
            )
            assert_close(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_group_norm_its_terms_and_silu_are_pytorchs(kind: str, page: Page) -> None:
    """Also where a group is no whole number of blocks of four, and far from zero."""
    for channels, groups in ((12, 2), (16, 4), (5, 1)):
        layer = nn.GroupNorm(groups, channels)
        weight, bias = random(channels, seed=1), random(channels, seed=2)
        layer.weight.data, layer.bias.data = weight, bias
        x = random(1, channels, 4, 6) + 20
        scale, shift = random(channels, seed=3), random(channels, seed=4)
        plain = layer(x)
        turned = plain * (1 + scale[:, None, None]) + shift[:, None, None]
        given = {"x": sent(x[0]), "weight": sent(weight), "bias": sent(bias), "groups": groups}
        for wanted, how in (
            (plain, {"silu": False}),
            (F.silu(plain), {"silu": True}),
            (F.silu(turned), {"silu": True, "scale": sent(scale), "shift": sent(shift)}),
        ):
            found = call(page, "layer", kind=kind, operation="norm", **given, **how)
            assert_close(found, wanted, 10 * ROUNDING)  # of 20 less is left


@pytest.mark.parametrize("kind", KINDS)
def test_attention_and_joined_channels_are_pytorchs(kind: str, page: Page) -> None:
    for channels, heads, (height, width) in ((8, 1, (4, 4)), (12, 2, (2, 6)), (6, 2, (1, 1))):
        qkv = random(1, 3 * channels, height, width)
        size, pixels = channels // heads, height * width
        q, k, v = qkv.reshape(1, 3, heads, size, pixels).transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        found = call(page, "layer", kind=kind, operation="attend", x=sent(qkv[0]), heads=heads)
        assert_close(found, y)
        one, other = random(channels, height, width), random(channels + 3, height, width, seed=1)
        found = call(page, "layer", kind=kind, operation="join", x=sent(one), other=sent(other))
        assert_close(found, torch.cat([one, other]))


def test_half_precision_embedding_and_levels_are_the_cores(page: Page) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    halves = bits.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(floats(call(page, "halves")), halves)
    for t in (0, 1, 499.5, 999):
        wanted = SinusoidalPositionEmbeddings(32)(torch.tensor([t]))
        assert_close(call(page, "sinusoids", t=t, size=32), wanted)
    for total in (7, 20, 300, 1000):
        steps = [*range(1, min(total, 120)), total]
        wanted_steps = [spaced_timesteps(total, count) for count in steps]
        assert call(page, "levels", total=total, steps=steps) == wanted_steps


@pytest.mark.parametrize("seed", [0, 1, 2**31 + 5, 2**32, 2**53 - 1])
def test_the_noise_of_a_seed_is_the_cores(seed: int, page: Page) -> None:
    """Of two images, drawn twice, also where the number of values is not one of whole sixteens."""
    for index, shape in ((0, (3, 32, 32)), (5, (1, 10, 10))):
        draw = image_noise(seed, 1, shape, first=index)
        found = call(page, "noise", seed=seed, index=index, count=math.prod(shape))
        for text in found:
            assert_close(text, draw(), ROUNDING / 10)


def test_mixed_noise_is_moved_and_painted(page: Page) -> None:
    first, second = (image_noise(seed, 1, (3, 8, 8))()[0] for seed in (4, 9))
    mask = np.zeros((8, 8), dtype=int)
    mask[2:4, 5:] = 1
    angle = 0.7
    found = call(
        page,
        "start",
        seed=4,
        other=9,
        angle=angle,
        moved=[2, -3],
        mask=mask.ravel().tolist(),
        channels=3,
        image_size=8,
    )
    moved = torch.roll(first, (-3, 2), (1, 2))
    mixed = math.cos(angle) * moved + math.sin(angle) * second
    assert_close(found, torch.where(torch.from_numpy(mask) == 1, second, mixed))


# ---------------------------------------------------------------- whole networks and images

RUNS: dict[str, dict[str, Any]] = {
    "with classes": {},
    "grey, without patches": {
        "channels": 1,
        "network_args": {
            "widths": [8, 12], "blocks": 2, "attention_levels": [0], "patch": 1, "channels": 1
        },
        "schedule": {"kind": "linear", "timesteps": 30},
        "prediction_type": "epsilon",
    },
    "flow": {"schedule": {"timesteps": 20}, "prediction_type": "flow_prediction"},
    "image": {"schedule": {"kind": "linear", "timesteps": 20}, "prediction_type": "x_0"},
    "image of a flow": {"schedule": {"timesteps": 20}, "prediction_type": "flow_x_0"},
    "distilled": {"objective": "consistency", "init_from": "teacher", "min_snr_gamma": 0.0},
}  # fmt: skip


def config_of(name: str) -> RunConfig:
    config = tiny(**RUNS[name])
    args = dict(config.network_args)
    if name in ("with classes", "distilled"):
        return config.replace(network_args=args | {"num_classes": 3})
    return config


@pytest.fixture
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    """Of a run with the settings of that name and random weights."""
    return read_checkpoint(write_checkpoint(tmp_path, 3, config_of(request.param), classes=CLASSES))


def file_of(checkpoint: Checkpoint) -> str:
    return base64.b64encode(browser_model(checkpoint)).decode()


@pytest.mark.parametrize("checkpoint", RUNS, indirect=True)
def test_a_network_answers_as_the_core_does(checkpoint: Checkpoint, page: Page) -> None:
    loaded = load_model(checkpoint, exact=True)
    shape = checkpoint.config.image_shape
    x = random(1, *shape)
    file = file_of(checkpoint)
    for t, label in ((0, None), (17, 1 if checkpoint.classes else None)):
        labels = None if label is None else torch.tensor([label])
        with torch.no_grad():
            wanted = loaded.model(x, torch.tensor([t]), labels)
        most = TWO_LEVELS * max(1.0, float(wanted.abs().max()))
        for kind in KINDS:
            given = {"file": file, "x": sent(x)["values"], "t": t, "label": label}
            assert_close(call(page, "network", kind=kind, **given), wanted, most)


WALKS = [
    pytest.param("with classes", "dpmpp_2m", 20, 1, 2.5, marks=pytest.mark.long),
    ("with classes", "ddim", 1, 0, 1.0),
    pytest.param("grey, without patches", "dpmpp_2m", 4, None, 1.0, marks=pytest.mark.long),
    ("with classes", "dpmpp_2m", 4, 1, 2.5),
    ("flow", "euler", 10, None, 1.0),
    ("image", "ddim", 12, None, 1.0),
    ("image of a flow", "euler", 6, None, 1.0),
    ("distilled", "consistency", 2, 1, 2.5),
    ("with classes", "consistency", 4, 2, 1.0),
]


@pytest.mark.parametrize(
    ("checkpoint", "sampler", "steps", "label", "guidance"), WALKS, indirect=["checkpoint"]
)
def test_images_are_the_cores_to_two_grey_levels(
    checkpoint: Checkpoint,
    sampler: str,
    steps: int,
    label: int | None,
    guidance: float,
    page: Page,
) -> None:
    model, schedule, config = load_model(checkpoint, exact=True)
    wanted = sample(
        model,
        schedule,
        1,
        sampler,
        steps,
        5,
        config.prediction_type,
        labels=None if label is None else torch.tensor([label]),
        guidance_scale=guidance,
        shape=config.image_shape,
        exact=True,
    )
    assert float(wanted.std()) > 0.1
    asked = {"sampler": sampler, "steps": steps, "label": label, "guidance": guidance, "seed": 5}
    for kind in KINDS:
        found = call(page, "sample", kind=kind, file=file_of(checkpoint), **asked)
        np.testing.assert_allclose(
            np.clip(floats(found), -1, 1), wanted.numpy().ravel(), rtol=0, atol=TWO_LEVELS
        )
