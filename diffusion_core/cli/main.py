"""The command line: `diffusion-lab COMMAND`, the same as `python -m diffusion_core COMMAND`.

A command is a module beside this one whose `add_arguments(parser)` declares its options and sets
`do`, the function that runs it; only the module of the chosen command is imported.

Exit codes: 0 done; 1 failed, with one line on standard error; 2 bad arguments; 130 stopped or
paused by request; `doctor` has some of its own. Under torchrun, which takes every code but 0 for a
failure, a stopped or paused run is 0 too.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Collection, Sequence
from typing import NoReturn

from diffusion_core import __version__
from diffusion_core.cli.options import BAD_ARGUMENTS, DONE, FAILED, SCRIPT, STOPPED, program
from diffusion_core.cli.parser import Parser
from diffusion_core.errors import explains_itself, keep_traceback
from diffusion_core.files import complain, os_sentence

# Each command with its module and its line of help.
COMMANDS = {
    "train": ("train", "train a run in this terminal or in the background"),
    "sample": ("sample", "generate images from a run's checkpoint"),
    "evaluate": ("evaluate", "measure how good a run's images are"),
    "tune": ("tune", "learn the timesteps of a sampler in few steps from many"),
    "export": (
        "export",
        "export a run as one file, for diffusers or as ONNX, or its metrics as CSV or Parquet",
    ),
    "import": ("import_run", "import a run from an archive of another machine"),
    "data": ("data", "make a data set of a zip file of images; list and delete them"),
    "settings": ("settings", "list the settings of a run, with what they mean"),
    "runs": ("runs", "list the runs"),
    "sweep": ("sweep", "train runs that differ in some settings, and keep the better ones"),
    "queue": ("queue", "list the runs that wait for a device; move or cancel one"),
    "stop": ("request", "stop a run at its next step"),
    "pause": ("request", "pause a run at its next step"),
    "sample-now": ("request", "write samples of a run at its next step"),
    "checkpoint-now": ("request", "write a checkpoint of a run at its next step"),
    "change": ("change", "change settings of a run, also while it trains"),
    "resume": ("resume", "resume a run in the background"),
    "command": (
        "command",
        "print the commands that resume a run on several machines, or a job for Slurm",
    ),
    "note": ("remark", "write a note on a run, a step of it or an image"),
    "tag": ("remark", "tag a run, a step of it or an image"),
    "star": ("remark", "give a star to a run, a step of it or an image"),
    "decide": ("remark", "decide to keep, drop or promote a run, a step of it or an image"),
    "remarks": ("remark", "list the notes, tags, stars and decisions of a run; delete one"),
    "alerts": ("alerts", "show who gets alerts; send a test, or look after them"),
    "report": ("report", "write a report of runs as one HTML or PDF file"),
    "delete": ("delete", "delete a run; it can be restored for a week"),
    "restore": ("restore", "restore a deleted run"),
    "doctor": ("doctor", "check device, versions, write access and speed"),
    "completion": ("completion", "print a shell completion script"),
}


def make_parser(commands: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser; it lists every command and knows the arguments of `commands`."""
    parser = Parser(
        prog=program(),
        description="Train diffusion models and generate images with them.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad arguments, 130 stopped or paused by request.",
    )
    parser.add_argument("--version", action="version", version=f"{SCRIPT} {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, help) in COMMANDS.items():
        command = subparsers.add_parser(name, help=help, description=help[0].upper() + help[1:])
        if name in commands:
            command.set_defaults(command=name)
            importlib.import_module(f"diffusion_core.cli.{module}").add_arguments(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code. Raises SystemExit for arguments that cannot be read."""
    if arguments is None:
        arguments = sys.argv[1:]
    try:
        code = run(make_parser(arguments[:1]).parse_args(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has gone, as in `runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        complain(os_sentence(error))
        return FAILED
    except MemoryError:
        complain("There is not enough memory for that.")
        return FAILED
    except KeyboardInterrupt:
        complain("Stopped.")
        return STOPPED
    except Exception as error:
        complain(failure(error))
        return FAILED


def failure(error: Exception) -> str:
    """What is said of an error, whose traceback is kept where nobody has foreseen it."""
    from diffusion_core.device import is_out_of_memory

    if is_out_of_memory(error):
        return "The device does not have enough memory; use fewer images at once."
    if explains_itself(error):
        return str(error)
    what = "An unexpected error occurred"
    if log := keep_traceback(error):
        return f"{what}; {log} says where. Please report it with that file."
    return f"{what}, and its traceback could not be written to {tempfile.gettempdir()}."


def run(given: argparse.Namespace) -> int:
    from diffusion_core.runs.config import ConfigError

    try:
        return given.do(given)
    except ConfigError as error:
        complain(str(error))
        return BAD_ARGUMENTS


def entry() -> NoReturn:
    """The console script and `python -m diffusion_core`."""
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # one of several processes of torchrun
        # A thread that still waits for another process would abort Python's own way out.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
