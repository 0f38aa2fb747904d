"""The commands that start the processes of a run, on this machine or on several.

The launcher is PyTorch's torchrun. It takes `--run` for a beginning of an option of its own, so the
run folder is given as `--folder`.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from diffusion_core.device import device_count
from diffusion_core.runs.config import ConfigError, RunConfig

PORT = 29_500  # where the machines meet
FIRST_MACHINE = "FIRST_MACHINE"  # to be replaced by its address


def check_share(config: RunConfig, processes: int) -> None:
    """Raise ConfigError unless this number of processes can share a batch evenly."""
    if processes < 1:
        raise ConfigError(f"{processes} processes cannot train; it takes 1 or more.")
    if config.batch_size % processes:
        raise ConfigError(
            f"A batch of {config.batch_size} cannot be shared evenly by {processes} processes."
        )


def processes_for(config: RunConfig, device: str, wanted: int | None = None) -> int:
    """How many processes train a run on `device` of this machine.

    `wanted`: this number; None: one or, with `cuda`, one per card as far as they can share the
    batch.
    Raises ConfigError for a number that is not possible.
    """
    available = device_count(device)
    if wanted is None:
        return max(n for n in range(1, available + 1) if config.batch_size % n == 0)
    check_share(config, wanted)
    if wanted > 1 and device not in ("cpu", "cuda"):
        raise ConfigError(f"Several processes train on cpu or cuda, not on {device}.")
    if device == "cuda" and wanted > available:
        raise ConfigError(f"{wanted} processes need {wanted} GPUs; this machine has {available}.")
    return wanted


def launcher_words(processes: int) -> list[str]:
    """What torchrun is told wherever it starts the processes of one machine."""
    # Without a place for logs, which nothing writes, it would leave a folder in /tmp each time.
    return ["--nproc_per_node", str(processes), "--log_dir", os.devnull]


def command_here(path: Path, device: str, processes: int, *, resume: bool) -> list[str]:
    """The command that trains the run at `path`, which has its `config.json`, on this machine."""
    python = [sys.executable, "-m"]
    if processes > 1:
        python += ["torch.distributed.run", "--standalone", *launcher_words(processes), "-m"]
    folder = "--folder" if processes > 1 else "--run"
    train = ["diffusion_core", "train", folder, str(path), "--quiet", "--device", device]
    return [*python, *train, *(["--resume"] if resume else [])]


def check_machines(config: RunConfig, machines: int, processes: int) -> None:
    """Raise ConfigError unless machines with so many processes each can share a batch evenly."""
    if machines < 1:
        raise ConfigError(f"{machines} machines cannot train; it takes 1 or more.")
    check_share(config, machines * processes)


def train_words(path: Path, device: str | None, *, resume: bool) -> list[str]:
    """What torchrun is given to train the run at `path`."""
    words = ["-m", "diffusion_core", "train", "--folder", str(path.resolve())]
    words += ["--device", device] if device else []
    return words + (["--resume"] if resume else [])


def launch_commands(
    path: Path, config: RunConfig, machines: int, processes: int, *, resume: bool
) -> list[str]:
    """The commands that train the run at `path`, one to type on each machine, the first one first.

    `processes`: on each machine. With one machine it is complete; else FIRST_MACHINE in it stands
    for the first one's address. Raises ConfigError where the batch cannot be shared.
    """
    check_machines(config, machines, processes)
    train = train_words(path, None, resume=resume)
    share = launcher_words(processes)
    if machines == 1:
        return [shlex.join(["torchrun", "--standalone", *share, *train])]
    meet = ["--master_addr", FIRST_MACHINE, "--master_port", str(PORT)]
    return [
        shlex.join(
            ["torchrun", "--nnodes", str(machines), "--node_rank", str(k), *share, *meet, *train]
        )
        for k in range(machines)
    ]
