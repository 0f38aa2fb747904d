"""Who gets alerts, of which events and in which words: `DIFFUSION_LAB_ALERT_…` and `…_SMTP_…`.

The address of a webhook and the password are secrets: no message, log or file has them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from diffusion_core.records import sentences
from diffusion_core.runs.alerts.message import DEFAULTS, Event, check_template
from diffusion_core.text import shown, some

PREFIX = "DIFFUSION_LAB_"
LONGEST_ADDRESS = 2000  # characters
MOST_TARGETS = 10
# The services whose webhooks are known by their hosts, and what else the address must have.
HOSTS = {
    r"hooks\.slack(-gov)?\.com": "slack",
    r"(\w+\.)?discord(app)?\.com": "discord",
    r".+\.(logic\.azure\.com|webhook\.office\.com|api\.powerplatform\.com)": "teams",
}
PORTS = {"starttls": 587, "tls": 465, "none": 25}


class AlertsError(ValueError):
    """A setting of the alerts that cannot be used; the message names it and quotes no secret."""


class Kind(StrEnum):
    """The form of what a webhook gets."""

    SLACK = "slack"
    DISCORD = "discord"
    TEAMS = "teams"
    JSON = "json"


class Webhook(BaseModel):
    """Where a message is posted to."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    url: SecretStr


class Mail(BaseModel):
    """Who gets e-mail and through which server."""

    model_config = ConfigDict(frozen=True)

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    user: str
    password: SecretStr
    sender: str
    to: tuple[str, ...]


def _split(given: object) -> list[str]:
    return [part for part in re.split(r"[,\s]+", str(given)) if part]


def _webhooks(given: object) -> tuple[Webhook, ...]:
    addresses = _split(given)
    if len(addresses) > MOST_TARGETS:
        raise ValueError(f"{_name('alert_webhook')} has more than {MOST_TARGETS} addresses.")
    several = len(addresses) > 1
    found = []
    for number, address in enumerate(addresses, 1):
        which = f"address {number} of {_name('alert_webhook')}" if several else ""
        found.append(_webhook(address, which or _name("alert_webhook")))
    return tuple(found)


def _webhook(address: str, which: str) -> Webhook:
    """`KIND+https://…`, or without a kind. The sentences do not quote the address."""
    kind, plus, rest = address.partition("+")
    if not plus or "/" in kind:
        kind, rest = "", address
    elif kind not in list(Kind):
        raise ValueError(f"{which} has an unknown kind before the +; use {some(list(Kind))}.")
    try:
        parts = urlsplit(rest)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if len(rest) > LONGEST_ADDRESS or not re.fullmatch(r"[!-~]+", rest) or not host:
        raise ValueError(f"{which} is not a web address such as https://hooks.example.org/….")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{which} has a user or password before the host; leave them out.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_private(host)):
        raise ValueError(
            f"{which} must begin with https://; http:// is for hosts of the own network."
        )
    if not kind:
        kinds = (kind for hosts, kind in HOSTS.items() if re.fullmatch(hosts, host))
        kind = next(kinds, Kind.JSON)
    return Webhook(kind=Kind(kind), url=SecretStr(rest.partition("#")[0]))


def _is_private(host: str) -> bool:
    """Whether a host is on this machine or in its own network, as far as its name says so."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".lan", ".home.arpa"))
    return address.is_private or address.is_loopback


def _addresses(given: object) -> tuple[str, ...]:
    return tuple(_address(one) for one in _split(given))


def _address(given: object) -> str:
    """ "" or an e-mail address; ASCII, since not every server takes others."""
    text = str(given).strip()
    if text and not re.fullmatch(r"[!-~]{1,64}@[A-Za-z0-9.-]{1,255}", text):
        raise ValueError(f"{shown(text)} is no e-mail address such as ann@lab.org.")
    return text


def _events(given: object) -> tuple[Event, ...]:
    names = _split(given)
    for name in names:
        if name not in list(Event):
            raise ValueError(
                f"{shown(name)} in {_name('alert_events')} is no event; use {some(list(Event))}."
            )
    return tuple(event for event in Event if event in names)


def _base(given: object) -> str:
    text = str(given).strip().rstrip("/")
    if text and not re.fullmatch(r"https?://[!-~]{1,300}", text):
        raise ValueError(
            f"{_name('alert_url')} is {shown(text)}; it must be the address that people open, such "
            "as https://lab.example.org."
        )
    return text


def _secret(given: object) -> SecretStr:
    text = str(given)
    if len(text) > LONGEST_ADDRESS or not text.isprintable():
        raise ValueError(
            f"{_name('smtp_password')} is too long or has characters that cannot be seen."
        )
    return SecretStr(text)


def _templates(given: object) -> dict[Event, str]:
    assert isinstance(given, dict)
    found = {}
    for event, (name, template) in given.items():
        try:
            found[event] = check_template(template, event)
        except ValueError as error:
            raise ValueError(f"{_name(name)}: {error}") from error
    return found


class AlertSettings(BaseModel):
    """What an installation may choose. The names are those of the variables, in small letters."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    alert_webhook: Annotated[tuple[Webhook, ...], BeforeValidator(_webhooks)] = ()
    alert_email: Annotated[
        tuple[str, ...], BeforeValidator(_addresses), Field(max_length=MOST_TARGETS)
    ] = ()
    alert_events: Annotated[tuple[Event, ...], BeforeValidator(_events)] = tuple(Event)
    alert_texts: Annotated[dict[Event, str], BeforeValidator(_templates)] = {}
    alert_url: Annotated[str, BeforeValidator(_base)] = ""
    alert_stall_minutes: Annotated[float, Field(ge=1, le=100_000)] = 5
    smtp_host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]*$", max_length=255)] = ""
    smtp_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_user: Annotated[str, Field(max_length=320)] = ""
    smtp_password: Annotated[SecretStr, BeforeValidator(_secret)] = SecretStr("")
    smtp_from: Annotated[str, BeforeValidator(_address)] = ""

    @model_validator(mode="after")
    def _fit_together(self) -> AlertSettings:
        if not self.alert_email:
            return self
        if not self.smtp_host:
            raise ValueError(f"{_name('alert_email')} needs {_name('smtp_host')}, a mail server.")
        if not self.smtp_from and "@" not in self.smtp_user:
            raise ValueError(f"{_name('alert_email')} needs {_name('smtp_from')}, the sender.")
        secret = self.smtp_password.get_secret_value()
        if secret and self.smtp_security == "none" and not _is_private(self.smtp_host):
            raise ValueError(
                f"{_name('smtp_security')}=none would send the password unencrypted; use starttls "
                "or tls."
            )
        return self

    @property
    def targets(self) -> dict[str, Webhook | Mail]:
        """Where messages go, by the names under which that is recorded: "slack", "slack 2"."""
        found: dict[str, Webhook | Mail] = {}
        for webhook in self.alert_webhook:
            same = sum(each.kind == webhook.kind for each in self.alert_webhook)
            number = 1 + sum(name.partition(" ")[0] == webhook.kind for name in found)
            found[f"{webhook.kind} {number}" if same > 1 else str(webhook.kind)] = webhook
        if self.alert_email:
            found["e-mail"] = Mail(
                host=self.smtp_host,
                port=self.smtp_port or PORTS[self.smtp_security],
                security=self.smtp_security,
                user=self.smtp_user,
                password=self.smtp_password,
                sender=self.smtp_from or self.smtp_user,
                to=self.alert_email,
            )
        return found

    def template(self, event: Event) -> str:
        return self.alert_texts.get(event, DEFAULTS[event])

    def link(self, run: str = "") -> str:
        """The address of a run's page, or of the page of all; "" where the app's is not set."""
        if not self.alert_url:
            return ""
        page = f"{self.alert_url}/training"
        return f"{page}?run={quote(run, safe='', errors='replace')}" if run else page


def read_alerts(given: Mapping[str, str]) -> AlertSettings:
    """The settings in the variables of an environment; an empty one counts as absent.

    `DIFFUSION_LAB_ALERT_TEXT` is the text of all events of runs, `…_ALERT_TEXT_FAILED` that of
    one. Raises AlertsError.
    """

    def text(name: str) -> str:
        return given.get(_name(name), "").strip()

    fields = {field: text(field) for field in AlertSettings.model_fields if text(field)}
    fields.pop("alert_texts", None)
    texts: dict[Event, tuple[str, str]] = {}
    for event in Event:
        names = [f"alert_text_{event}", "alert_text"]
        for name in names[: 1 if event == Event.QUEUE_EMPTY else 2]:
            if text(name):
                texts.setdefault(event, (name, text(name)))
    try:
        return AlertSettings.model_validate({**fields, "alert_texts": texts})
    except ValidationError as error:
        raise AlertsError(sentences(error, AlertSettings, name=_name)[0]) from None


def _name(field: str) -> str:
    """What a field is called in the environment."""
    return PREFIX + field.partition(".")[0].upper()
