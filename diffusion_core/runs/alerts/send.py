"""Sending a message to a webhook or by e-mail, once: what became of it, and nothing secret of it.

A webhook's address is a secret, so no error of a library is quoted: it could contain the address.
"""

from __future__ import annotations

import http.client
import json
import queue
import smtplib
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from email.message import EmailMessage
from email.utils import format_datetime, localtime, parsedate_to_datetime
from typing import Any, NamedTuple

from diffusion_core import __version__
from diffusion_core.runs.alerts.message import Message, Part
from diffusion_core.runs.alerts.settings import Kind, Mail, Webhook

SECONDS = 8.0  # of an attempt
LONGEST_WAIT = 3600.0  # that an answer may ask for
LONGEST = {Kind.SLACK: 3000, Kind.DISCORD: 2000, Kind.TEAMS: 3000}  # characters of a text
# Answers after which the same request may succeed later.
PASSING = frozenset({408, 425, 429, *range(500, 600)})
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # Slack's control characters
MARKS = frozenset("\\`*_~|<>[]()#-+@:")  # of Discord's Markdown, mentions and emoji
SPACE = "\N{ZERO WIDTH SPACE}"


class Outcome(NamedTuple):
    """What became of an attempt."""

    sent: bool = False
    again: bool = False  # may be tried again
    after: float = 0.0  # seconds, where the service said so
    why: str = ""  # a sentence without its beginning: "it answered 404"


LATE = Outcome(again=True, why="it did not answer in time")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like others: another host must not get the message."""

    def redirect_request(self, *given: Any) -> None:
        return None


def send_all(
    targets: Mapping[str, Webhook | Mail], message: Message, seconds: float = SECONDS
) -> dict[str, Outcome]:
    """Send a message to all targets at the same time. Returns after so many seconds at the latest,
    and never raises.
    """
    answers: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
    for name, target in targets.items():

        def attempt(name: str = name, target: Webhook | Mail = target) -> None:
            answers.put((name, _send(target, message, seconds)))

        # One that hangs, in a look-up of a name for example, is left behind.
        threading.Thread(target=attempt, name="alert", daemon=True).start()
    found: dict[str, Outcome] = {}
    deadline = time.monotonic() + seconds
    while len(found) < len(targets):
        try:
            name, outcome = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[name] = outcome
    return {name: found.get(name, LATE) for name in targets}


def _send(target: Webhook | Mail, message: Message, seconds: float) -> Outcome:
    try:
        if isinstance(target, Mail):
            return _mail(target, message, seconds)
        return _post(target, message, seconds)
    except Exception as error:  # an alert must not end what it is about
        return Outcome(why=f"an unexpected {type(error).__name__} occurred")


# ---------------------------------------------------------------- webhooks


def body(kind: Kind, message: Message) -> dict[str, Any]:
    """What a service gets, as its documentation has it. All of the text is plain: no mention, no
    mark-up, and no link but the one to the run.
    """
    if kind == Kind.JSON:
        sent = {"id": message.id, "text": message.text, "time": time.time()}
        return {**message.fields, **sent}
    if kind == Kind.SLACK:
        text = _fitted(_slack(message.parts), LONGEST[kind])
        return {"text": text, "mrkdwn": False, "unfurl_links": False, "unfurl_media": False}
    if kind == Kind.DISCORD:
        text = _fitted(_discord(message.parts), LONGEST[kind])
        # 4: without previews of links.
        return {"content": text, "allowed_mentions": {"parse": []}, "flags": 4}
    # A run of text, unlike a block of it, has no Markdown.
    run = {"type": "TextRun", "text": _fitted(message.text, LONGEST[kind])}
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.2",
        "body": [{"type": "RichTextBlock", "inlines": [run]}],
    }
    if link := message.fields.get("url"):
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open", "url": link}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [attachment]}


def _slack(parts: Iterable[Part]) -> Iterable[str]:
    for part in parts:
        text = part.text
        if part.kind != "link":  # nobody is called, and only the link is one
            text = text.replace("@", f"@{SPACE}")
        if part.kind == "value":
            text = text.replace("://", f":{SPACE}//")
        yield from (ENTITIES.get(each, each) for each in text)


def _discord(parts: Iterable[Part]) -> Iterable[str]:
    for part in parts:
        if part.kind == "link":
            yield part.text
        else:
            marks = MARKS - {":"} if part.kind == "words" else MARKS
            yield from (f"\\{each}" if each in marks else each for each in part.text)


def _fitted(pieces: Iterable[str], most: int) -> str:
    """The pieces together, of which none is cut in two."""
    pieces = list(pieces)
    if sum(map(len, pieces)) <= most:
        return "".join(pieces)
    text = ""
    for piece in pieces:
        if len(text) + len(piece) >= most:
            break
        text += piece
    return f"{text}…"


def _post(webhook: Webhook, message: Message, seconds: float) -> Outcome:
    request = urllib.request.Request(
        webhook.url.get_secret_value(),
        json.dumps(body(webhook.kind, message)).encode(),
        {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": f"diffusion-lab/{__version__}",  # Discord refuses that of Python
        },
        method="POST",
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds):
            return Outcome(sent=True)
    except urllib.error.HTTPError as error:
        error.close()
        code = error.code
        if code in range(300, 400):
            return Outcome(why=f"it answered {code}, a redirect, which is not followed")
        after = _retry_after(error.headers.get("Retry-After"))
        return Outcome(again=code in PASSING, after=after, why=f"it answered {code}")
    except urllib.error.URLError as error:
        return _unreachable(error.reason)
    except (OSError, http.client.HTTPException) as error:
        return _unreachable(error)


def _retry_after(text: str | None) -> float:
    """The seconds to wait that a header asks for: a number, or a date. 0 where it says neither."""
    text = (text or "").strip()
    try:
        if text.replace(".", "", 1).isdecimal():
            seconds = float(text[:20])
        else:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _unreachable(reason: object) -> Outcome:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Outcome(why="its certificate cannot be verified")
    if isinstance(reason, TimeoutError):
        return LATE
    if isinstance(reason, socket.gaierror):
        return Outcome(again=True, why="its name cannot be resolved")
    if isinstance(reason, OSError):
        why = f"there is no connection ({reason.strerror or type(reason).__name__})"
        return Outcome(again=True, why=why)
    return Outcome(again=True, why="its answer cannot be read")


# ---------------------------------------------------------------- e-mail


def mail(target: Mail, message: Message) -> EmailMessage:
    letter = EmailMessage()
    lines = message.text.split("\n", 1)
    letter["Subject"] = _fitted(f"Diffusion Lab: {lines[0]}", 200)
    letter["From"] = f"Diffusion Lab <{target.sender}>"
    letter["To"] = ", ".join(target.to)
    letter["Date"] = format_datetime(localtime())
    # The same when it is sent again: mail programs show one of the two.
    letter["Message-ID"] = f"<{message.id.encode().hex()[-120:]}@diffusion-lab>"
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(f"{message.text}\n")
    return letter


def _mail(target: Mail, message: Message, seconds: float) -> Outcome:
    letter = mail(target, message)
    try:
        with _connected(target, seconds) as server:
            if target.user:
                server.login(target.user, target.password.get_secret_value())
            refused = server.send_message(letter)
    except smtplib.SMTPAuthenticationError as error:
        return Outcome(again=error.smtp_code < 500, why="it refused the user or password")
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        again = any(code < 500 for code in codes)
        return Outcome(again=again, why="it refused all recipients")
    except smtplib.SMTPResponseException as error:  # of the sender or the data
        return Outcome(again=error.smtp_code < 500, why=f"it answered {error.smtp_code}")
    except smtplib.SMTPNotSupportedError:
        return Outcome(why="it offers no encryption or no sign-in")
    except (OSError, smtplib.SMTPException) as error:  # the second is an OSError too
        return _unreachable(error)
    return Outcome(sent=True, why=f"it refused {len(refused)} of the recipients" if refused else "")


def _connected(target: Mail, seconds: float) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if target.security == "tls":
        return smtplib.SMTP_SSL(target.host, target.port, timeout=seconds, context=context)
    server = smtplib.SMTP(target.host, target.port, timeout=seconds)
    try:
        if target.security == "starttls":
            server.starttls(context=context)
    except BaseException:
        server.close()
        raise
    return server
