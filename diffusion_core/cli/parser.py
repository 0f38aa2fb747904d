"""A parser of arguments that says what is wrong in the words of this project."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from diffusion_core.cli.options import BAD_ARGUMENTS
from diffusion_core.text import cut

# What argparse says, in Python 3.11 to 3.14, and what is said instead.
WORDINGS = (
    (
        r"argument (?P<option>\S+): invalid choice: '?(?P<value>.*?)'? "
        r"\(choose from (?P<names>.*)\)",
        "{option} is {value!r}; it must be one of {names}.",
    ),
    (r"argument (?P<option>\S+): expected (?P<n>\d+) arguments?", "{option} takes {n} values."),
    (
        r"argument (?P<option>\S+): expected one argument",
        "{option} takes a value; it is missing.",
    ),
    (r"argument (?P<option>\S+): expected at .*", "{option} takes values; they are missing."),
    (
        r"argument (?P<option>\S+): invalid \S+ value: '?(?P<value>.*?)'?",
        "{option} is {value!r}, which it cannot take; see --help.",
    ),
    (
        r"argument (?P<option>\S+): not allowed with argument (?P<other>\S+)",
        "{option} and {other} exclude each other; leave one out.",
    ),
    (
        r"argument (?P<option>\S+): ignored explicit argument '?(?P<value>.*?)'?",
        "{option} takes no value, but is given {value!r}.",
    ),
    (
        r"ambiguous option: (?P<value>\S+) could match (?P<names>.*)",
        "{value} can mean {names}; write it in full.",
    ),
    (r"unrecognized arguments: (?P<value>.*)", "{value} is not known here; see --help."),
    (r"the following arguments are required: (?P<names>.*)", "{names} must be given; see --help."),
    (r"one of the arguments (?P<names>.*) is required", "One of {names} must be given."),
    # Of a type of ours: "is 'x'; it must be …".
    (r"argument (?P<option>\S+): (?P<rest>.*)", "{option} {rest}"),
)


class Parser(argparse.ArgumentParser):
    """Its messages name the option, the value and what it must be.

    An empty value is refused everywhere: it is that of a shell variable which is not set.
    """

    def _get_values(self, action: argparse.Action, arg_strings: Iterable[str]) -> Any:
        words = list(arg_strings)
        # Of a command all that follows it comes along.
        mine = words[:1] if action.nargs == argparse.PARSER else words
        if any(not word.strip() for word in mine):
            raise argparse.ArgumentError(action, "is empty; it needs a value.")
        return super()._get_values(action, words)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(BAD_ARGUMENTS, f"{self.prog}: {reworded(message)}\n")


def reworded(message: str) -> str:
    """A message of argparse's in our words; a value that it quotes is cut short."""
    message = " ".join(message.split())
    for pattern, wording in WORDINGS:
        if found := re.fullmatch(pattern, message):
            parts = found.groupdict()
            if "value" in parts:
                parts["value"] = cut(parts["value"])
            if "names" in parts:
                parts["names"] = parts["names"].replace("'", "")
            return wording.format(**parts)
    return cut(message)
