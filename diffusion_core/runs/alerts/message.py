"""What an alert says: events, templates with placeholders, and the values that these stand for.

A message is plain text everywhere. What comes from outside (a run's name, an error) is in one line,
without characters that cannot be seen, and cut short.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from diffusion_core.runs.status import RunState, StatusRecord
from diffusion_core.text import (
    cut,
    duration,
    has_control_characters,
    shown,
    some,
    visible,
)

LONGEST_TEMPLATE = 1000  # characters
LONGEST_VALUE = 300
TOKEN = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]|[^{}]+")


class Event(StrEnum):
    """What an alert is about. The first four are states of a run."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"
    STALLED = "stalled"
    QUEUE_EMPTY = "queue_empty"


ENDS = {
    RunState.FINISHED: Event.FINISHED,
    RunState.STOPPED: Event.STOPPED,
    RunState.FAILED: Event.FAILED,
    RunState.LOST: Event.LOST,
}
DEFAULTS = {
    Event.FINISHED: "{run} has finished: {steps} steps in {duration}, loss {loss}. {url}",
    Event.STOPPED: "{run} was stopped at step {step} of {steps}. {url}",
    Event.FAILED: "{run} has failed at step {step} of {steps}: {error} {url}",
    Event.LOST: (
        "{run} is lost at step {step} of {steps}: its process ended unexpectedly. Resume the run "
        "to continue from its last checkpoint. {url}"
    ),
    Event.STALLED: (
        "{run} has made no step for {idle}. It is at step {step} of {steps}, and its process is "
        "alive. {url}"
    ),
    Event.QUEUE_EMPTY: "The queue is empty: {ended} ({runs}). {url}",
}
TEST = "This is a test of the alerts of Diffusion Lab on {host}. {url}"
OF_A_RUN = ("run", "state", "step", "steps", "loss", "duration", "error", "idle", "device")
OF_THE_QUEUE = ("ended", "runs")
OF_BOTH = ("event", "host", "url")


class Part(NamedTuple):
    """A piece of a text: words of the template, a value from outside, or the link to the run."""

    text: str
    kind: str  # "words", "value" or "link"


@dataclass(frozen=True)
class Message:
    """`fields` has the values as they are, for programs; None: not known."""

    id: str  # the same however often it is sent
    event: str
    parts: tuple[Part, ...]
    fields: Mapping[str, str | int | float | None]

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)


def placeholders(event: Event) -> tuple[str, ...]:
    own = OF_THE_QUEUE if event == Event.QUEUE_EMPTY else OF_A_RUN
    return (*own, *OF_BOTH)


def check_template(template: str, event: Event) -> str:
    """The template; raises ValueError for one that is too long or has an unknown placeholder."""
    if len(template) > LONGEST_TEMPLATE:
        raise ValueError(f"it has {len(template):,} characters; at most {LONGEST_TEMPLATE:,}.")
    if has_control_characters(template.replace("\n", "")):
        raise ValueError("it has characters that cannot be seen.")
    known = placeholders(event)
    for token in TOKEN.findall(template):
        if token in ("{", "}"):
            raise ValueError(f"it has a single {token}; write {token * 2} for the character.")
        if token[0] == "{" and token != "{{" and token[1:-1] not in known:
            names = ", ".join(f"{{{name}}}" for name in known)
            raise ValueError(f"{shown(token)} is no placeholder; use {names}.")
    return template


def fill(template: str, values: Mapping[str, str]) -> tuple[Part, ...]:
    """The parts of a text that a checked template makes of these values."""
    parts = []
    for token in TOKEN.findall(template):
        if token[0] in "{}" and token not in ("{{", "}}"):
            name = token[1:-1]
            parts.append(Part(values[name], "link" if name == "url" else "value"))
        else:
            parts.append(Part({"{{": "{", "}}": "}"}.get(token, token), "words"))
    while parts and not parts[-1].text.strip():  # as a link that is not known
        parts.pop()
    return (*parts[:-1], parts[-1]._replace(text=parts[-1].text.rstrip())) if parts else ()


def of_run(
    name: str, event: Event, status: StatusRecord, template: str, link: str, idle: float = 0
) -> Message:
    """About a run. `idle`: seconds without a step."""
    ends = status.heartbeat or status.started
    seconds = max(0.0, ends - status.started) if status.started else None
    values = {
        "run": _value(name),
        "state": str(status.state or event) if event == Event.STALLED else str(event),
        "step": f"{status.step:,}",
        "steps": f"{status.total:,}",
        "loss": "unknown" if status.loss is None else f"{status.loss:.4f}",
        "duration": "an unknown time" if seconds is None else duration(seconds),
        "error": _value(status.error) if event == Event.FAILED else "",
        "idle": duration(idle),
        "device": _value(status.device),
        "event": str(event),
        "host": _value(status.host),
        "url": link,
    }
    fields = values | {
        "step": status.step,
        "steps": status.total,
        "loss": status.loss,
        "duration": seconds,
        "idle": idle,
    }
    number = f":{status.step}" if event == Event.STALLED else ""
    id = f"{values['run']}:{event}:{since_of(status):.3f}{number}"
    return Message(id, event, fill(template, values) or fill(DEFAULTS[event], values), fields)


def of_queue(
    ended: Mapping[str, Event], since: float, template: str, host: str, link: str
) -> Message:
    """About the queue. `ended`: the runs that have ended since it was empty last."""
    kinds = [event for event in Event if event in ended.values()]
    counts = ", ".join(f"{list(ended.values()).count(kind)} {kind}" for kind in kinds)
    event = Event.QUEUE_EMPTY
    values = {
        "ended": counts,
        "runs": _value(some(sorted(ended))),
        "event": str(event),
        "host": _value(host),
        "url": link,
    }
    parts = fill(template, values) or fill(DEFAULTS[event], values)
    return Message(f"{event}:{since:.3f}", event, parts, values)


def of_test(host: str, link: str) -> Message:
    """To see whether messages arrive."""
    values = {"event": "test", "host": _value(host), "url": link}
    return Message(f"test:{time.time():.3f}", "test", fill(TEST, values), values)


def since_of(status: StatusRecord) -> float:
    """What differs each time that a run is started or queued again: a time."""
    return max(status.started, status.queued_at)


def _value(text: str) -> str:
    return visible(cut(" ".join(text.split()), LONGEST_VALUE))
