"""Generate images from model.onnx, which lies beside this file: by DDIM, or by the sampler
consistency where the network was distilled.

    python sample_with_onnx.py images.png --n 4 --seed 0

Needs numpy and onnxruntime. A seed gives the images that Diffusion Lab generates from it with that
sampler, trailing spacing and the same number of steps, to rounding.
"""

import argparse
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

MODEL = Path(__file__).resolve().with_name("model.onnx")


def load(path: Path = MODEL) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    """The network, and what its file says of it: each entry of its metadata is JSON."""
    session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
    metadata = session.get_modelmeta().custom_metadata_map
    return session, {name: json.loads(text) for name, text in metadata.items()}


def seed_noises(seed: int, k: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The N(0, I) of image k of a seed, one after the other, as PyTorch's generator for the CPU
    draws 16 or more numbers."""
    state = int(np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0]) >> 1
    twister = np.random.RandomState(state & 0xFFFFFFFF)
    size = int(np.prod(shape))
    whole = size - size % 16
    while True:
        words = twister.randint(0, 2**32, size + 16 * (size > whole), dtype=np.uint32)
        uniform = ((words & 0xFFFFFF) * 2.0**-24).astype(np.float32)
        noise = np.empty(size, np.float32)
        noise[:whole] = box_muller(uniform[:whole])
        if size > whole:  # the last 16 are drawn anew
            noise[-16:] = box_muller(uniform[size:])
        yield noise.reshape(shape)


def box_muller(uniform: np.ndarray) -> np.ndarray:
    """Normal numbers from as many in [0, 1), 16 at a time: 8 radii and 8 angles."""
    rows = uniform.reshape(-1, 16)
    radius = np.sqrt(-2 * np.log(1 - rows[:, :8]))
    angle = np.float32(2 * np.pi) * rows[:, 8:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()


def find_x_0(kind: str, prediction: np.ndarray, x: np.ndarray, signal: float, spread: float) -> Any:
    """The clean image by what the network predicts, with x = signal x_0 + spread epsilon."""
    if kind == "epsilon":
        return (x - spread * prediction) / signal
    if kind == "v_prediction":
        return signal * x - spread * prediction
    if kind == "flow_prediction":  # epsilon - x_0
        return (x - spread * prediction) / (signal + spread)
    return prediction  # x_0 itself


def sample(
    session: onnxruntime.InferenceSession,
    facts: dict[str, Any],
    noise: Callable[[], np.ndarray],
    labels: np.ndarray | None = None,
    steps: int = 50,
    guidance: float = 1.0,
) -> np.ndarray:
    """From noise to images float32 (n, C, H, W) in [-1, 1] (Song et al. 2021, equation 12).

    `noise()`: fresh N(0, I) float32 (n, C, H, W). A distilled network is asked at each level for
    the image itself, which gets fresh noise of the next (Song et al. 2023, algorithm 1). `labels`:
    int64 (n,), the number of each image's class; the number of classes stands for any class.
    `guidance` other than 1 leads away from any class (Ho & Salimans 2022, equation 6).
    """

    def predict(x: np.ndarray, t: int) -> np.ndarray:
        if labels is None:
            return run(x, t)
        if guidance == 1:
            return run(x, t, labels)
        other = run(x, t, np.full_like(labels, len(facts["classes"])))
        return other + guidance * (run(x, t, labels) - other)

    def run(x: np.ndarray, t: int, labels: np.ndarray | None = None) -> np.ndarray:
        inputs = {"x": x, "t": np.full(len(x), t, np.float32)}
        return session.run(None, inputs if labels is None else {**inputs, "labels": labels})[0]

    timesteps = facts["timesteps"]
    walk = np.round(np.arange(timesteps, 0, -timesteps / steps))[:steps].astype(int) - 1
    levels = [(facts["signal"][t], facts["spread"][t]) for t in walk]
    ends = [*levels[1:], (1.0, 0.0)]
    x = noise()
    for t, (signal, spread), (signal_next, spread_next) in zip(walk, levels, ends, strict=True):
        x_0 = find_x_0(facts["prediction_type"], predict(x, t), x, signal, spread).clip(-1, 1)
        epsilon = (x - signal * x_0) / spread
        if facts["distilled"] and spread_next:
            epsilon = noise()
        x = (signal_next * x_0 + spread_next * epsilon).astype(np.float32)
    return x.clip(-1, 1)


def write_png(path: str, images: np.ndarray) -> None:
    """Images (n, C, H, W) in [-1, 1] side by side, in colour or grey."""
    pixels = ((images + 1) * 127.5).round().astype(np.uint8).transpose(2, 0, 3, 1)
    height, width, channels = len(pixels), pixels.shape[1] * pixels.shape[2], pixels.shape[3]
    rows = pixels.reshape(height, width * channels)
    head = struct.pack(">2I5B", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, chunk in ((b"IHDR", head), (b"IDAT", data), (b"IEND", b"")):
            file.write(struct.pack(">I", len(chunk)) + kind + chunk)
            file.write(struct.pack(">I", zlib.crc32(kind + chunk)))


def main() -> None:
    session, facts = load()
    classes, timesteps = facts["classes"], facts["timesteps"]
    usual = min(2 if facts["distilled"] else 50, timesteps)
    parser = argparse.ArgumentParser(description=f"Generate images of {facts['run']}.")
    parser.add_argument("out", help="a PNG file")
    parser.add_argument("--n", type=int, default=4, help="number of images (default: 4)")
    parser.add_argument(
        "--steps", type=int, default=usual, help=f"1 to {timesteps} (default: {usual})"
    )
    parser.add_argument("--seed", type=int, default=0)
    if classes:
        parser.add_argument("--label", choices=classes, help="default: each class in turn")
    if facts["any_class"]:
        parser.add_argument("--guidance", type=float, default=1.0, help="default: 1, none")
    asked = parser.parse_args()
    if asked.n < 1 or not 1 <= asked.steps <= timesteps or asked.seed < 0:
        parser.error(f"--n must be at least 1, --steps 1 to {timesteps}, --seed at least 0.")
    labels = None
    if classes:
        labels = np.arange(asked.n, dtype=np.int64) % len(classes)
        if asked.label is not None:
            labels[:] = classes.index(asked.label)
    shape = (facts["channels"], facts["image_size"], facts["image_size"])
    streams = [seed_noises(asked.seed, k, shape) for k in range(asked.n)]
    guidance = asked.guidance if facts["any_class"] else 1.0
    images = sample(
        session, facts, lambda: np.stack([*map(next, streams)]), labels, asked.steps, guidance
    )
    write_png(asked.out, images)


if __name__ == "__main__":
    main()
