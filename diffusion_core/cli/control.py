"""The commands that look at runs and control them: runs, queue, stop, resume, change, delete, ...

All of them do what the buttons of the Training page do, through `jobs.py` and `trash.py`.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from diffusion_core.files import complain
from diffusion_core.runs import jobs, trash
from diffusion_core.runs.changes import CHANGEABLE
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.config import ConfigError, parse_settings
from diffusion_core.runs.launch import FIRST_MACHINE
from diffusion_core.runs.queue import read_queue
from diffusion_core.runs.run import Run, load_run, snapshots

DONE, FAILED, BAD_ARGUMENTS, STOPPED = 0, 1, 2, 130

AddCommand = Callable[
    [str, Callable[[argparse.Namespace], int], str],
    argparse.ArgumentParser,
]


def add_commands(command: AddCommand, device: str | None) -> None:
    """`command(name, do, help)` adds a command; `device`: the default of this installation."""
    runs = command("runs", do_runs, "a table of the runs")
    runs.add_argument("--runs-dir", type=Path, default=default_runs_dir())
    queue = command("queue", do_queue, "the runs that wait for a device; move or cancel one")
    queue.add_argument("what", nargs="?", choices=["up", "down", "cancel"])
    queue.add_argument("run", nargs="?", help="a folder, or a name in the runs folder")
    queue.add_argument("--runs-dir", type=Path, default=default_runs_dir())

    def of_run(
        name: str, do: Callable[[argparse.Namespace], int], help: str
    ) -> argparse.ArgumentParser:
        added = command(name, do, help)
        added.add_argument("run", help="a folder, or a name in the runs folder")
        added.set_defaults(action=name.removesuffix("-now"))
        return added

    of_run("stop", do_request, "ask a run to stop at its next step")
    of_run("pause", do_request, "ask a run to pause at its next step")
    of_run("sample-now", do_request, "ask a run to draw samples at its next step")
    of_run("checkpoint-now", do_request, "ask a run to write a checkpoint at its next step")
    change = of_run("change", do_change, "change settings of a run, at work or not")
    change.add_argument("set", nargs="+", metavar="KEY=VALUE", help=", ".join(CHANGEABLE))
    resume = of_run("resume", do_resume, "go on with a run in the background")
    resume.add_argument("--steps", type=int, help="in all; with more than it has it goes on")
    resume.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    resume.add_argument("--device", default=device)
    resume.add_argument(
        "--processes", type=int, default=0, metavar="N", help="by default one for each GPU"
    )
    launch = of_run("command", do_command, "what to type on each machine to go on with a run")
    launch.add_argument("--machines", type=int, default=1, metavar="N")
    launch.add_argument(
        "--processes", type=int, default=1, metavar="N", help="on each machine; one for each GPU"
    )
    delete = of_run("delete", do_delete, f"delete a run; it can be restored {trash.KEEP_DAYS} days")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    restore = command("restore", do_restore, "put a deleted run back")
    restore.add_argument("name")
    restore.add_argument("--runs-dir", type=Path, default=default_runs_dir())


def default_runs_dir() -> Path:
    return Path(os.environ.get("DIFFUSION_LAB_RUNS_DIR", "checkpoints"))


def find_run(word: str) -> Run:
    """A run by its folder or by its name in the runs folder."""
    path = Path(word)
    return load_run(path if path.is_dir() else default_runs_dir() / word)


def find_checkpoint(run: Run, step: int | None) -> Checkpoint:
    """The checkpoint of a step, or the latest usable one; says which newer ones are broken."""
    if step is not None:
        return run.checkpoint(step)
    usable, broken = run.checkpoints()
    print("".join(f"Skipped: {reason}\n" for reason in broken), end="", file=sys.stderr)
    if not usable:
        raise CheckpointError(f"{run.name} has no usable checkpoint yet.")
    return usable[-1]


def start_waiting(runs_dir: Path) -> None:
    """Start what waits for a device that is free; why it cannot is said and no more."""
    try:
        jobs.start_next(runs_dir)
    except (jobs.JobError, OSError) as error:
        complain(str(error))


def said_of(run: Run) -> str:
    """What became of a run that was to start in the background."""
    if run.state == "queued":
        return f"{run.name} waits for the device in the queue."
    return f"{run.name} goes on in the background; its words are in {run.path / 'train.log'}."


def do_runs(words: argparse.Namespace) -> int:
    start_waiting(words.runs_dir)
    runs = snapshots(words.runs_dir)
    if not runs:
        print(f"There are no runs in {words.runs_dir}.")
        return DONE
    print(f"{'run':30} {'state':9} {'step':>15} {'loss':>8} {'images/s':>9}  started")
    for run in runs:
        status = run.status
        steps = f"{status.step:,}/{status.total:,}"
        loss = status.loss
        speed = status.images_per_second
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created))
        print(
            f"{run.name:30} {run.state:9} {steps:>15} "
            f"{'' if loss is None else f'{loss:.4f}':>8} "
            f"{'' if speed is None else f'{speed:.1f}':>9}  {when}"
        )
    return DONE


def do_queue(words: argparse.Namespace) -> int:
    if words.what:
        if not words.run:
            raise ConfigError(f"Which run? Write: queue {words.what} RUN.")
        run = find_run(words.run)
        if words.what == "cancel":
            if run.state != "queued":
                raise jobs.JobError(f"{run.name} is {run.state}; it is not in the queue.")
            jobs.request(run, "stop")
        else:
            jobs.move(run, -1 if words.what == "up" else 1)
    runs_dir = run.path.parent if words.what else words.runs_dir
    start_waiting(runs_dir)
    queue = read_queue(runs_dir)
    if not queue:
        print(f"No run waits in {runs_dir}.")
        return DONE
    print(f"{'':3} {'run':30} {'device':9} waits since")
    for number, waiting in enumerate(queue, 1):
        status = waiting.status
        host = status.host
        where = "" if host == socket.gethostname() else f", on {host}"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.queued_at))
        print(f"{number:3} {waiting.name:30} {status.device:9} {since}{where}")
    return DONE


def do_request(words: argparse.Namespace) -> int:
    run = find_run(words.run)
    jobs.request(run, words.action)
    deed = {"sample": "draw samples", "checkpoint": "write a checkpoint"}
    if run.state in ("stopped", "paused"):  # it waited in the queue
        print(f"{run.name} is {run.state}.")
    else:
        print(f"{run.name} will {deed.get(words.action, words.action)} at its next step.")
    return DONE


def do_change(words: argparse.Namespace) -> int:
    run = find_run(words.run)
    jobs.change(run, parse_settings(words.set))
    pending = run.snapshot().pending == "change"
    when = "at its next step" if pending else "when it goes on"
    print(f"{run.name} takes {', '.join(words.set)} {when}.")
    return DONE


def do_resume(words: argparse.Namespace) -> int:
    run = find_run(words.run)
    settings = parse_settings(words.set)
    if words.steps is not None:
        settings["steps"] = words.steps
    jobs.resume(run, words.device, settings, words.processes)
    print(said_of(run))
    return DONE


def do_command(words: argparse.Namespace) -> int:
    run = find_run(words.run)
    print("\n".join(jobs.commands_for(run, words.machines, words.processes)))
    if words.machines > 1:
        complain(
            f"Type them on the machines in this order, with the address of the first in place of "
            f"{FIRST_MACHINE}. All must see the folder {run.path.resolve()} and the images."
        )
    return DONE


def do_delete(words: argparse.Namespace) -> int:
    run = find_run(words.run)
    if not words.yes and not agreed(f"Delete {run.name}? [y/N] "):
        print(f"{run.name} stays.")
        return FAILED
    trash.delete(run)
    print(
        f"{run.name} is deleted. For {trash.KEEP_DAYS} days it can be put back with: "
        f"python -m diffusion_core restore {run.name}"
    )
    return DONE


def agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # nobody is there to answer
        print("Nobody answers; say --yes.")
        return False


def do_restore(words: argparse.Namespace) -> int:
    there = trash.deleted(words.runs_dir)
    for gone in there:
        if gone.name == words.name:
            run = trash.restore(gone)
            print(f"{gone.name} is back as {run.path}.")
            return DONE
    names = ", ".join(dict.fromkeys(gone.name for gone in there)) or "nothing"
    raise jobs.JobError(f"There is no deleted run called {words.name}; there is {names}.")
