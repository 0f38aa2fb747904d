"""Training speed against the lecture's loop, denoising-diffusion-pytorch and diffusers.

    python -m benchmarks.training [--device cuda] [--rounds 3] [--steps 6] [--batch 32]
                                  [--only a b c] [--profile] [--overhead] [--env FOLDER]

Images per second over the same image files, batch size and number of steps, on

(a) the lecture's network: its own loop (`ImageFolder`, Adam, the loss of each step printed);
(b) the lecture's network and lucidrains' in denoising-diffusion-pytorch's `Trainer`;
(c) the lecture's network and `UNet2DModel` in diffusers' example of unconditional training;

each against the same network in our whole trainer. Every measurement is a new process with the
same number of threads; the contenders take turns, and medians of `--rounds` rounds are compared.
Imports, building the network and the first steps are left out on all sides.

What differs, because it is what is compared: the peers decode the files in every epoch and compute
in float32, as they do unless told otherwise; ours gathers from its store, whose building is timed
apart, and computes in bfloat16 where the hardware does. What also differs, and costs next to
nothing: the lecture's loop and ours take L1 on the lecture's network, the other two have L2 alone;
lucidrains' trainer updates its average every tenth step and ours in each; the lecture has none;
ours logs the gradient norm. lucidrains' loader decodes in one process per core, the other loaders
in the training process, as they come. Our trainer gives lucidrains' network its v target with
Adam, diffusers' the noise with AdamW.

`--overhead`: steps per second of the presets with a checkpoint every 50 and a strip every 25
steps against none. `--profile`: where the time of a step goes, and this machine's rates.
On a GPU the lecture's whole job is timed too. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.contenders import JOB_DATA, SIZE, Clock, Job, command, read_result
from benchmarks.peers import prepare
from benchmarks.photographs import write_photographs
from benchmarks.step_profile import lecture_flops, profile_step
from benchmarks.timing import in_turns, machine, matrix_rate
from diffusion_core.data.store import build_store, default_cache_dir
from diffusion_core.device import pick_device
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import preset
from diffusion_core.training.trainer import train

Contender = tuple[str, str]  # network, trainer
COMPARED: dict[str, list[Contender]] = {
    "a": [("lecture", "lecture")],
    "b": [("lecture", "lucidrains"), ("lucidrains", "lucidrains")],
    "c": [("lecture", "diffusers"), ("diffusers", "diffusers")],
}
NETWORKS = {"lecture": "SimpleUnet", "lucidrains": "lucidrains' Unet", "diffusers": "UNet2DModel"}
PEERS = {
    "lecture": "the lecture's loop",
    "lucidrains": "denoising-diffusion-pytorch",
    "diffusers": "diffusers + accelerate",
}
CHECKPOINT_EVERY, STRIP_EVERY = 50, 25
ROOT = Path(__file__).parents[1]


def measure(python: str, job: Job, network: str, trainer: str) -> float:
    """Images per second of one contender, in a process of its own. Raises RuntimeError."""
    environment = dict(os.environ)
    if job.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""  # lucidrains' trainer takes what it sees
    done = subprocess.run(
        command(python, network, trainer, job),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{network} by {trainer} failed: {done.stderr.strip()[-2000:]}")
    speed = read_result(done.stdout)
    print(f"  {network} by {trainer}: {speed:.2f} images/s", file=sys.stderr)
    return speed


def compare(python: str, job: Job, parts: list[str], rounds: int) -> None:
    """Measure the parts and print the table."""
    rows = [contender for part in parts for contender in COMPARED[part]]
    contenders = [*rows, *dict.fromkeys((network, "ours") for network, _ in rows)]
    speeds = in_turns(
        rounds, {each: functools.partial(measure, python, job, *each) for each in contenders}
    )
    print(f"\nImages per second, batch {job.batch}, {job.steps} steps, median of {rounds} rounds")
    print(table(speeds, rows))


def table(speeds: dict[Contender, float], rows: list[Contender]) -> str:
    """Each row's peer against ours on the same network."""
    lines = [
        "| network | against | theirs | ours | ratio |",
        "|---|---|---:|---:|---:|",
    ]
    for network, trainer in rows:
        ours, theirs = speeds[network, "ours"], speeds[network, trainer]
        lines.append(
            f"| {NETWORKS[network]} | {PEERS[trainer]} | {theirs:.2f} | {ours:.2f} "
            f"| {ours / theirs:.2f} |"
        )
    return "\n".join(lines)


def steps_per_second(config: RunConfig, device: torch.device) -> float:
    """Of the real trainer, over 100 steps with four strips and two checkpoints where it makes any.

    From step 30, so that what a step sets going in the background ends within the same 100.
    """
    job = Job("", config.batch_size, warmup=30, steps=100, device=str(device))
    clock = Clock(job)
    config = config.replace(steps=job.warmup + job.steps + 1)
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "run", config, device=device, on_step=clock.on_step)
    return job.steps / clock.result()["seconds"]


def overhead(name: str, device: torch.device, rounds: int) -> None:
    """Print how much of the speed stays with checkpoints and strips."""
    bare = preset(name).replace(
        data="cars:512", validation_count=0, checkpoint_every=0, sample_every=0, validate_every=0
    )
    full = bare.replace(checkpoint_every=CHECKPOINT_EVERY, sample_every=STRIP_EVERY)
    build_store(bare.data, bare.image_size)
    speeds = in_turns(
        rounds,
        {
            "with": lambda: steps_per_second(full, device),
            "without": lambda: steps_per_second(bare, device),
        },
    )
    print(
        f"{name}, batch {bare.batch_size}: {speeds['with']:.2f} steps/s with a checkpoint every "
        f"{CHECKPOINT_EVERY} and a strip every {STRIP_EVERY} steps, {speeds['without']:.2f} "
        f"without: {speeds['with'] / speeds['without']:.1%}"
    )


def whole_job(job: Job) -> None:
    """Print how long the lecture's job takes, and how well its steps use the device."""
    build_store(JOB_DATA, SIZE)
    start = time.perf_counter()
    speed = measure(sys.executable, job, "lecture", "job")
    whole = time.perf_counter() - start
    config = preset("lecture")
    seconds = config.steps * config.batch_size / speed
    steady = Job(job.folder, config.batch_size, warmup=50, steps=200, device=job.device)
    rate = measure(sys.executable, steady, "lecture", "ours") * lecture_flops().total
    share = rate / matrix_rate(torch.device(job.device), torch.bfloat16)
    print(
        f"The lecture's job, {config.steps} steps of {config.batch_size} with its checkpoints and "
        f"strips: {seconds:.1f} s, with the start of the process {whole:.1f} s. Its steady state "
        f"without them: {rate / 1e12:.1f} TFLOP/s, {share:.0%} of the measured bfloat16 rate."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", help="auto (default), cpu or cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="timed steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=384, help="files to make")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=list(COMPARED),
        default=list(COMPARED),
        metavar="PART",
        help="of a, b and c (default: all); without a value none",
    )
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--env", type=Path, default=default_cache_dir() / "benchmark-env")
    arguments = parser.parse_args()
    if arguments.images < max(arguments.batch, 100):
        parser.error("--images must be at least 100 and fill a batch.")
    if min(arguments.rounds, arguments.steps, arguments.warmup) < 1:
        parser.error("--rounds, --steps and --warmup must be at least 1.")
    device = pick_device(arguments.device)
    print(machine(device))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DIFFUSION_LAB_CACHE_DIR"] = str(Path(folder) / "cache")
        files = Path(folder) / "photographs"
        size = write_photographs(files, arguments.images)
        start = time.perf_counter()
        build_store(f"folder:{files}", SIZE)
        seconds = time.perf_counter() - start
        print(
            f"{arguments.images} JPEG files of 700 x 480, {size / 1000:.0f} kB each; our store of "
            f"them was ready after {seconds:.1f} s "
            f"({1000 * seconds / arguments.images:.1f} ms each)"
        )
        job = Job(str(files), arguments.batch, arguments.warmup, arguments.steps, str(device))
        if arguments.only:
            compare(prepare(arguments.env), job, arguments.only, arguments.rounds)
        if device.type == "cuda":
            whole_job(job)
        if arguments.overhead:
            for name in ("small", "lecture") if device.type == "cuda" else ("small",):
                overhead(name, device, arguments.rounds)
        if arguments.profile:
            profile_step(job)


if __name__ == "__main__":
    main()
