"""`alerts`: who gets them; send a test; look after those of a folder of runs."""

from __future__ import annotations

import argparse
import os
import socket
import time

from diffusion_core.cli.options import DONE, FAILED, add_runs_dir, check_runs_dir
from diffusion_core.files import complain, os_sentence
from diffusion_core.runs.alerts import message, send
from diffusion_core.runs.alerts.settings import AlertSettings, Mail, read_alerts
from diffusion_core.runs.alerts.watch import LOOK_SECONDS, Watch

NONE = "No alerts are set; see docs/alerts.md."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        choices=["test", "watch"],
        help="test: send a message to all; watch: send alerts until Ctrl+C, as a server does",
    )
    add_runs_dir(parser)
    parser.set_defaults(do=alerts)


def alerts(arguments: argparse.Namespace) -> int:
    settings = read_alerts(os.environ)
    if not settings.targets:
        print(NONE)
        return FAILED if arguments.action else DONE
    if arguments.action == "test":
        return test(settings)
    print(describe(settings), flush=True)
    if arguments.action == "watch":
        check_runs_dir(arguments.runs_dir)
        watch(settings, Watch(arguments.runs_dir))
    return DONE


def describe(settings: AlertSettings) -> str:
    """Who gets alerts of what, without secrets."""
    names = []
    for name, target in settings.targets.items():
        names.append(f"{name} to {len(target.to)}" if isinstance(target, Mail) else name)
    return f"Alerts go to: {', '.join(names)}. Events: {', '.join(settings.alert_events)}."


def test(settings: AlertSettings) -> int:
    about = message.of_test(socket.gethostname(), settings.link())
    outcomes = send.send_all(settings.targets, about)
    for name, outcome in outcomes.items():
        why = f": {outcome.why}" if outcome.why else ""
        print(f"{name}: {'sent' if outcome.sent else 'not sent'}{why}.")
    return DONE if all(outcome.sent for outcome in outcomes.values()) else FAILED


def watch(settings: AlertSettings, looks: Watch) -> None:
    """Look until the process is ended."""
    said = ""
    while True:
        try:
            looks.look(settings)
            said = ""
        except OSError as error:
            if said != (said := os_sentence(error)):  # once, not every few seconds
                complain(said)
        time.sleep(LOOK_SECONDS)
