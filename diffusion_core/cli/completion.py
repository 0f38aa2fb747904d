"""`completion`: a script by which a shell completes commands, options and paths."""

from __future__ import annotations

import argparse
from pathlib import Path

import shtab

from diffusion_core.cli.options import DONE, SCRIPT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    parser.epilog = f'For example in ~/.bashrc: eval "$({SCRIPT} completion bash)"'
    parser.set_defaults(do=print_completion)


def print_completion(arguments: argparse.Namespace) -> int:
    from diffusion_core.cli.main import make_parser

    parser = make_parser()
    parser.prog = SCRIPT
    [commands] = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for command in commands.choices.values():
        for action in command._actions:
            if action.type is Path or action.dest == "run":
                action.complete = shtab.FILE
    print(shtab.complete(parser, arguments.shell))
    return DONE
