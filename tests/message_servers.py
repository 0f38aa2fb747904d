"""Small servers on this machine that take what alerts send: a webhook's and a mail server."""

from __future__ import annotations

import base64
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple

SECRET = "T0p-s3cret"  # in the addresses of webhooks and as a password: never to be seen


class Answer(NamedTuple):
    """What a webhook's server says."""

    code: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    hangs: bool = False  # it says nothing until the server is closed
    drips: bool = False  # it says its headers for ever, a byte at a time


class WebhookServer(ThreadingHTTPServer):
    """`answers` are given one after the other, then 200; `got` are (path, headers, body)."""

    daemon_threads = True

    def __init__(self, *answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Webhook)
        self.answers = list(answers)
        self.got: list[tuple[str, dict[str, str], Any]] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/{SECRET}"

    @property
    def bodies(self) -> list[Any]:
        return [body for _, _, body in self.got]


class _Webhook(BaseHTTPRequestHandler):
    server: WebhookServer

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), json.loads(data)))
        answer = self.server.answers.pop(0) if self.server.answers else Answer()
        if answer.hangs:
            self.server.closing.wait()
            return
        if answer.drips:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not self.server.closing.wait(0.05):
                self.wfile.write(b"x")
            return
        self.send_response(answer.code)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, format: str, *values: object) -> None:
        return


@contextmanager
def webhook_server(*answers: Answer) -> Iterator[WebhookServer]:
    server = WebhookServer(*answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class MailServer(socketserver.ThreadingTCPServer):
    """Takes mail, with TLS where it is given a context. `got` are (sender, recipients, text)."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, context: ssl.SSLContext | None, refusals: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Mail)
        self.context = context
        self.refusals = refusals  # of commands, for example {"RCPT": "450 Busy"}
        self.signed_in: list[str] = []
        self.got: list[tuple[str, list[str], str]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Mail(socketserver.StreamRequestHandler):
    server: MailServer

    def say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def handle(self) -> None:
        sender, recipients, encrypted = "", list[str](), False
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            command = line.split()[0].upper()
            if command in self.server.refusals:
                self.say(self.server.refusals[command])
            elif command == "EHLO":
                offered = "STARTTLS" if self.server.context and not encrypted else "AUTH PLAIN"
                self.say("250-here", f"250 {offered}")
            elif command == "STARTTLS":
                assert self.server.context is not None
                self.say("220 go")
                try:
                    self.request = self.server.context.wrap_socket(self.request, server_side=True)
                except (ssl.SSLError, OSError):  # it does not trust this server
                    return
                self.setup()
                encrypted = True
            elif command == "AUTH":
                self.server.signed_in.append(base64.b64decode(line.split()[2]).decode())
                self.say("235 welcome")
            elif command == "DATA":
                self.say("354 go on")
                text = ""
                while (part := self.rfile.readline().decode()) != ".\r\n":
                    text += part
                self.server.got.append((sender, recipients, text))
                self.say("250 taken")
            elif command == "QUIT":
                self.say("221 bye")
                return
            else:
                address = line.partition("<")[2].partition(">")[0]
                if command == "MAIL":
                    sender, recipients = address, []
                elif command == "RCPT":
                    recipients.append(address)
                self.say("250 fine")


@contextmanager
def mail_server(context: ssl.SSLContext | None = None, **refusals: str) -> Iterator[MailServer]:
    server = MailServer(context, refusals)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
