"""`command`: print what resumes a run on several machines: commands, or a job for Slurm."""

from __future__ import annotations

import argparse

from diffusion_core.cli.options import DONE, add_run, find_run, whole_number
from diffusion_core.files import complain
from diffusion_core.runs import jobs
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.launch import FIRST_MACHINE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--machines", type=whole_number, default=1, metavar="N")
    parser.add_argument(
        "--processes",
        type=whole_number,
        default=1,
        metavar="N",
        help="processes on each machine, one per GPU (default: 1)",
    )
    parser.add_argument(
        "--slurm",
        action="store_true",
        help="print a script for sbatch, which resumes after a time limit or a preemption",
    )
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        help="with --slurm: cpu requests no GPUs (default: cuda)",
    )
    parser.set_defaults(do=print_commands)


def print_commands(arguments: argparse.Namespace) -> int:
    run, machines, processes = find_run(arguments.run), arguments.machines, arguments.processes
    if arguments.slurm:
        device = arguments.device or "cuda"
        print(jobs.slurm_script(run, machines, processes, device), end="")
        return DONE
    if arguments.device:
        raise ConfigError("--device needs --slurm.")
    print("\n".join(jobs.commands_for(run, machines, processes)))
    if machines > 1:
        complain(
            f"Type one on each machine, in this order, with the address of the first machine in "
            f"place of {FIRST_MACHINE}. Every machine must see the folder {run.path.resolve()} "
            "and the images."
        )
    return DONE
