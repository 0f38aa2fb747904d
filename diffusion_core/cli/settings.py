"""`settings`: the settings that `--set` takes, with what they mean."""

from __future__ import annotations

import argparse
import textwrap

from diffusion_core.cli.options import DONE
from diffusion_core.review.differences import settings_in
from diffusion_core.review.index import settings_of
from diffusion_core.runs.config import meaning
from diffusion_core.runs.presets import PRESETS, preset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="*", help="only these (default: all)")
    parser.add_argument(
        "--preset", choices=list(PRESETS), default="small", help="whose values (default: small)"
    )
    parser.set_defaults(do=print_settings)


def print_settings(arguments: argparse.Namespace) -> int:
    values = settings_in(settings_of(preset(arguments.preset)))
    meanings = {name: meaning(name) for name in arguments.name or values}
    for name, text in meanings.items():
        value = values.get(name, "")
        print(f"{name} = {str(value).lower() if isinstance(value, bool) else value}".rstrip())
        print(textwrap.fill(text, 100, initial_indent="    ", subsequent_indent="    "))
    return DONE
