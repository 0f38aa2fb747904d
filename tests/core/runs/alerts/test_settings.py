"""The settings of alerts: what they take, and what they refuse, in which words, without secrets."""

from __future__ import annotations

import pytest

from diffusion_core.runs.alerts.message import DEFAULTS, Event
from diffusion_core.runs.alerts.settings import AlertsError, Mail, Webhook, read_alerts
from tests.message_servers import SECRET

MAIL = {
    "DIFFUSION_LAB_ALERT_EMAIL": "ann@lab.org, bob@lab.org",
    "DIFFUSION_LAB_SMTP_HOST": "mail.lab.org",
    "DIFFUSION_LAB_SMTP_USER": "lab@lab.org",
    "DIFFUSION_LAB_SMTP_PASSWORD": SECRET,
}


def test_without_settings_nobody_gets_anything() -> None:
    assert read_alerts({"DIFFUSION_LAB_ALERT_WEBHOOK": " ", "PATH": "/bin"}).targets == {}


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("https://hooks.slack.com/services/T/B/x", "slack"),
        ("https://discord.com/api/webhooks/1/x", "discord"),
        ("https://ptb.discord.com/api/webhooks/1/x", "discord"),
        ("https://prod-1.westeurope.logic.azure.com:443/workflows/x?sig=%2Fy", "teams"),
        ("https://default1.2.environment.api.powerplatform.com:443/powerautomate/x", "teams"),
        ("https://hooks.slack.com.example.org/x", "json"),
        ("https://example.org/x", "json"),
        ("slack+https://chat.example.org/hooks/x", "slack"),
        ("json+https://discord.com/x", "json"),
        ("http://localhost:8065/x", "json"),
        ("http://10.1.2.3/x", "json"),
        ("http://mattermost:8065/x", "json"),
        ("https://[2001:db8::1]/x", "json"),
    ],
)
def test_the_kind_of_a_webhook_is_known_by_its_host_or_stated(address: str, kind: str) -> None:
    found = read_alerts({"DIFFUSION_LAB_ALERT_WEBHOOK": address}).targets
    assert list(found) == [kind]
    webhook = found[kind]
    assert isinstance(webhook, Webhook)
    assert webhook.url.get_secret_value() == address.removeprefix(f"{kind}+")


def test_several_targets_have_names_of_their_own() -> None:
    two = "https://hooks.slack.com/a https://example.org/b,https://hooks.slack.com/c"
    found = read_alerts({"DIFFUSION_LAB_ALERT_WEBHOOK": two, **MAIL}).targets
    assert list(found) == ["slack 1", "json", "slack 2", "e-mail"]
    mail = found["e-mail"]
    assert isinstance(mail, Mail)
    assert (mail.port, mail.security, mail.sender) == (587, "starttls", "lab@lab.org")
    assert mail.to == ("ann@lab.org", "bob@lab.org")


WEBHOOK = {
    f"http://example.org/{SECRET}": "must begin with https://; http:// is for hosts of the own",
    f"http://8.8.8.8/{SECRET}": "must begin with https://",
    f"ftp://localhost/{SECRET}": "must begin with https://",
    f"https://ann:{SECRET}@example.org/x": "has a user or password before the host",
    f"irc+https://example.org/{SECRET}": "has an unknown kind before the .; use slack, discord",
    f"https:///{SECRET}": "is not a web address",
    f"https://example.org:{SECRET}/": "is not a web address",
    f"https://exämple.org/{SECRET}": "is not a web address",
    f"https://[::1/{SECRET}": "is not a web address",
    f"https://example.org/{SECRET}{'x' * 2000}": "is not a web address",
    f"https://example.org/\x00{SECRET}": "is not a web address",
    SECRET: "is not a web address",
    f"https://example.org/a http://example.org/{SECRET}": "^address 2 of DIFFUSION_LAB_ALERT_WEBH",
    f"https://e.org/{SECRET} " * 11: "has more than 10 addresses",
}
REFUSED: list[tuple[dict[str, str], str]] = [
    *(({"ALERT_WEBHOOK": address}, sentence) for address, sentence in WEBHOOK.items()),
    ({"ALERT_EVENTS": "finished,done"}, "'done' in .*ALERT_EVENTS is no event; use finished,"),
    ({"ALERT_TEXT": "{run} {nme}"}, "^DIFFUSION_LAB_ALERT_TEXT: '{nme}' is no placeholder; use"),
    ({"ALERT_TEXT_FAILED": "{run.__class__}"}, "ALERT_TEXT_FAILED: .* is no placeholder"),
    ({"ALERT_TEXT_LOST": "{run!r:>99999999}"}, "is no placeholder"),
    ({"ALERT_TEXT_LOST": "{}"}, "is no placeholder"),
    ({"ALERT_TEXT_LOST": "100 }"}, "a single }; write }} for"),
    ({"ALERT_TEXT_LOST": "{{run}"}, "a single }; write }} for"),
    ({"ALERT_TEXT_QUEUE_EMPTY": "{run}"}, "is no placeholder; use {ended}, {runs}"),
    ({"ALERT_TEXT": "x" * 1001}, "has 1,001 characters; at most 1,000"),
    ({"ALERT_TEXT": "a\rb"}, "has characters that cannot be seen"),
    ({"ALERT_URL": "lab.example.org"}, "ALERT_URL is 'lab.example.org'; it must be the address"),
    ({"ALERT_STALL_MINUTES": "0"}, "ALERT_STALL_MINUTES is '0'; it must be from 1 to"),
    ({"ALERT_STALL_MINUTES": "nan"}, "ALERT_STALL_MINUTES is 'nan'"),
    ({"ALERT_EMAIL": "ann"}, "'ann' is no e-mail address"),
    ({"ALERT_EMAIL": "ann@lab.org"}, "ALERT_EMAIL needs DIFFUSION_LAB_SMTP_HOST"),
    ({"ALERT_EMAIL": "a@b.org", "SMTP_HOST": "h"}, "ALERT_EMAIL needs DIFFUSION_LAB_SMTP_FROM"),
    ({"SMTP_PORT": "0"}, "SMTP_PORT is '0'; it must be from 1 to 65,535"),
    ({"SMTP_SECURITY": "ssl"}, "SMTP_SECURITY is 'ssl'; it must be starttls, tls or none"),
    ({"SMTP_PASSWORD": f"{SECRET}\n{SECRET}"}, "SMTP_PASSWORD is too long or has characters"),
    ({"SMTP_PASSWORD": SECRET * 999}, "SMTP_PASSWORD is too long or has characters"),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSED)
def test_what_cannot_be_used_is_named_in_a_sentence_without_a_secret(
    given: dict[str, str], sentence: str
) -> None:
    with pytest.raises(AlertsError, match=sentence) as said:
        read_alerts({f"DIFFUSION_LAB_{name}": value for name, value in given.items()})
    assert "DIFFUSION_LAB_" in str(said.value) or "ALERT_EMAIL" in given
    assert SECRET not in str(said.value)
    assert len(str(said.value)) < 300


def test_a_password_is_not_sent_unencrypted_to_another_network() -> None:
    none = {"DIFFUSION_LAB_SMTP_SECURITY": "none"}
    with pytest.raises(AlertsError, match="would send the password unencrypted"):
        read_alerts(MAIL | none)
    read_alerts(MAIL | none | {"DIFFUSION_LAB_SMTP_HOST": "127.0.0.1"})
    read_alerts(MAIL | none | {"DIFFUSION_LAB_SMTP_PASSWORD": ""})


def test_what_shows_the_settings_shows_no_secret() -> None:
    hook = f"https://example.org/{SECRET}"
    settings = read_alerts({"DIFFUSION_LAB_ALERT_WEBHOOK": hook, **MAIL})
    shown = f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    assert SECRET not in shown + repr(settings.targets)


def test_a_text_is_for_all_events_of_runs_or_for_one() -> None:
    texts = {
        "DIFFUSION_LAB_ALERT_TEXT": "{run}: {state}",
        "DIFFUSION_LAB_ALERT_TEXT_FAILED": "{error}",
    }
    settings = read_alerts(texts)
    assert settings.template(Event.LOST) == "{run}: {state}"
    assert settings.template(Event.FAILED) == "{error}"
    assert settings.template(Event.QUEUE_EMPTY) == DEFAULTS[Event.QUEUE_EMPTY]


def test_the_link_to_a_run_is_one_address() -> None:
    settings = read_alerts({"DIFFUSION_LAB_ALERT_URL": "https://lab.example.org/base/"})
    link = settings.link("a b/../&x=1#<@1>")
    assert link == ("https://lab.example.org/base/training?run=a%20b%2F..%2F%26x%3D1%23%3C%401%3E")
    assert read_alerts({}).link("run") == ""
