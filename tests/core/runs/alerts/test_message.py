"""What alerts say, and that what comes from outside is text in it and nothing else."""

from __future__ import annotations

import json

import pytest

from diffusion_core.runs.alerts.message import DEFAULTS, Event, Message, of_queue, of_run
from diffusion_core.runs.alerts.send import LONGEST, body, mail
from diffusion_core.runs.alerts.settings import Kind, Mail, read_alerts
from diffusion_core.runs.status import RunState, StatusRecord

LINK = "https://lab.example.org/training?run=my_run"
STATUS = StatusRecord(
    state=RunState.RUNNING,
    step=1200,
    total=6000,
    loss=0.05127,
    started=1000.0,
    heartbeat=4700.0,
    host="gpu-box",
    device="cuda",
    error="The disk is full.",
)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ("finished", f"my_run has finished: 6,000 steps in 1 h 1 min, loss 0.0513. {LINK}"),
        ("stopped", f"my_run was stopped at step 1,200 of 6,000. {LINK}"),
        ("failed", f"my_run has failed at step 1,200 of 6,000: The disk is full. {LINK}"),
        (
            "lost",
            "my_run is lost at step 1,200 of 6,000: its process ended unexpectedly. Resume the run "
            f"to continue from its last checkpoint. {LINK}",
        ),
        (
            "stalled",
            "my_run has made no step for 5 min 0 s. It is at step 1,200 of 6,000, and its process "
            f"is alive. {LINK}",
        ),
    ],
)
def test_each_event_of_a_run_has_a_text(event: str, text: str) -> None:
    template = DEFAULTS[Event(event)]
    assert of_run("my_run", Event(event), STATUS, template, LINK, 300).text == text
    without = of_run("my_run", Event(event), STATUS, template, "", 300).text
    assert without == text.removesuffix(f" {LINK}")


def test_the_queue_has_a_text() -> None:
    ended = {"b": Event.FAILED, "a": Event.FINISHED, "c": Event.FINISHED}
    about = of_queue(ended, 5.0, DEFAULTS[Event.QUEUE_EMPTY], "gpu-box", LINK)
    assert about.text == f"The queue is empty: 2 finished, 1 failed (a, b, c). {LINK}"


def test_a_text_of_ones_own_has_all_placeholders_and_braces() -> None:
    template = "{{{run}}} {state} {step}/{steps} {loss} {duration} {device} {host} {event} {idle}"
    about = of_run("r", Event.STALLED, STATUS, template, "", 61)
    assert about.text == ("{r} running 1,200/6,000 0.0513 1 h 1 min cuda gpu-box stalled 1 min 1 s")


def test_what_is_not_known_is_said_and_a_text_is_never_empty() -> None:
    about = of_run("r", Event.FINISHED, StatusRecord(), "{loss}, {duration}", "")
    assert about.text == "unknown, an unknown time"
    assert about.fields["loss"] is None
    assert of_run("r", Event.STOPPED, StatusRecord(), "{error}", "").text.startswith("r was stop")


NASTY = "@everyone <!channel> <@U1> [x](https://evil.example) **b** `c` _i_ :smile: \u202e\nend"


def nasty() -> Message:
    failed = STATUS.replace(error=NASTY)
    return of_run("<!here> my_run", Event.FAILED, failed, "@here *{run}* {error} {url}", LINK)


def test_a_value_is_one_line_of_characters_that_are_seen() -> None:
    text = nasty().text
    assert "\n" not in text
    assert "\u202e" not in text
    long = STATUS.replace(error="e" * 5000)
    assert len(of_run("r", Event.FAILED, long, "{error}", "").text) < 310


def test_slack_gets_text_that_calls_nobody_and_has_one_link() -> None:
    sent = body(Kind.SLACK, nasty())
    assert (sent["mrkdwn"], sent["unfurl_links"], sent["unfurl_media"]) == (False, False, False)
    text = sent["text"]
    assert "<" not in text
    assert "&lt;!channel&gt;" in text
    assert "@everyone" not in text
    assert "@here" not in text
    assert text.count("://") == 1
    assert text.endswith(LINK)


def test_discord_gets_text_that_calls_nobody_and_has_one_link() -> None:
    sent = body(Kind.DISCORD, nasty())
    assert sent["allowed_mentions"] == {"parse": []}
    assert sent["flags"] == 4
    text = sent["content"]
    assert r"\*\<\!here" not in text  # ! alone means nothing
    assert text.startswith(r"\@here \*\<!here\> my\_run\* \@everyone \<!channel\>")
    assert r"\[x\]\(https\://evil.example\) \*\*b\*\* \`c\` \_i\_ \:smile\:" in text
    assert text.endswith(f" {LINK}")
    assert text.count("://") == 1 + text.count("\\://")


def test_teams_gets_a_card_whose_text_is_not_markdown() -> None:
    sent = body(Kind.TEAMS, nasty())
    [attachment] = sent["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    [block] = card["body"]
    assert block == {
        "type": "RichTextBlock",
        "inlines": [{"type": "TextRun", "text": nasty().text}],
    }
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Open", "url": LINK}]
    without = of_run("r", Event.LOST, STATUS, "{run}", "")
    assert "actions" not in body(Kind.TEAMS, without)["attachments"][0]["content"]


def test_json_has_the_text_and_all_fields_as_they_are() -> None:
    about = of_run("my_run", Event.STALLED, STATUS, "{run}", LINK, 300)
    sent = body(Kind.JSON, about)
    assert sent.pop("time") > 0
    assert sent == {
        "id": "my_run:stalled:1000.000:1200",
        "text": "my_run",
        "event": "stalled",
        "run": "my_run",
        "state": "running",
        "step": 1200,
        "steps": 6000,
        "loss": 0.05127,
        "duration": 3700.0,
        "error": "",
        "idle": 300,
        "device": "cuda",
        "host": "gpu-box",
        "url": LINK,
    }


@pytest.mark.parametrize("kind", LONGEST)
def test_a_long_text_is_cut_and_no_escape_in_two(kind: Kind) -> None:
    many = STATUS.replace(error="*&" * 150)
    about = of_run("r", Event.FAILED, many, "{error}" * 140, LINK)
    said = json.dumps(body(kind, about), ensure_ascii=False)
    text = {
        Kind.SLACK: lambda sent: sent["text"],
        Kind.DISCORD: lambda sent: sent["content"],
        Kind.TEAMS: lambda sent: sent["attachments"][0]["content"]["body"][0]["inlines"][0]["text"],
    }[kind](json.loads(said))
    assert LONGEST[kind] - 5 <= len(text) <= LONGEST[kind]
    assert text.endswith("…")
    if kind == Kind.DISCORD:
        assert text[-3:-1] in (r"\*", "*&")
    if kind == Kind.SLACK:
        assert text.removesuffix("…").endswith(("*", ";"))


def test_a_letter_has_one_subject_and_the_same_id_each_time() -> None:
    target = read_alerts(
        {
            "DIFFUSION_LAB_ALERT_EMAIL": "ann@lab.org,bob@lab.org",
            "DIFFUSION_LAB_SMTP_HOST": "localhost",
            "DIFFUSION_LAB_SMTP_FROM": "lab@lab.org",
        }
    ).targets["e-mail"]
    assert isinstance(target, Mail)
    about = of_run("r\r\nBcc: eve@evil.example", Event.LOST, STATUS, "{run}\nsecond", LINK)
    letter = mail(target, about)
    assert letter["Subject"] == "Diffusion Lab: r Bcc: eve@evil.example"
    assert letter["To"] == "ann@lab.org, bob@lab.org"
    assert letter["Bcc"] is None
    assert letter.get_content() == "r Bcc: eve@evil.example\nsecond\n"
    assert letter["Message-ID"] == mail(target, about)["Message-ID"]
