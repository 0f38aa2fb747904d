"""Signing in at a real server: its settings, a cookie of our own making, and a provider that asks
nobody for a password, on this machine.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey
from streamlit.web.server.starlette.starlette_app_utils import (
    create_signed_value,
    generate_xsrf_token_string,
)
from streamlit.web.server.starlette.starlette_server_config import (
    USER_COOKIE_NAME,
    XSRF_COOKIE_NAME,
)

COOKIE_SECRET = "the secret with which these tests sign their cookies"
CLIENT_ID, CLIENT_SECRET = "diffusion-lab", "what the app tells the provider"
PEOPLE: dict[str, dict[str, object]] = {
    "Ann": {"email": "Ann@lab.org", "email_verified": True},
    "Bob": {"email": "bob@lab.org", "email_verified": False},
    "Eve": {"email": "eve@lab.org.example", "email_verified": True},
}


def secrets_toml(operators: list[str], provider: str = "http://127.0.0.1:1") -> str:
    """The text of the file; Streamlit puts its own port in."""
    return f"""
DIFFUSION_LAB_OPERATORS = {json.dumps(operators)}
[auth]
redirect_uri = "http://localhost:{{port}}/oauth2callback"
cookie_secret = "{COOKIE_SECRET}"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
server_metadata_url = "{provider}/.well-known/openid-configuration"
"""


def claims(person: str, **others: object) -> dict[str, Any]:
    """What a provider says of one who has just signed in."""
    now = int(time.time())
    usual = {"iss": "http://provider", "sub": f"id of {person}", "name": person}
    times = {"iat": now, "exp": now + 600, "nonce": secrets.token_hex(8)}
    return usual | times | PEOPLE[person] | others


def connection(
    url: str, said: Mapping[str, Any], *, secret: str = COOKIE_SECRET, origin: str = ""
) -> tuple[dict[str, str], list[str]]:
    """The headers and subprotocols of a connection by a browser that has signed in at `url`.

    `secret`: with which the cookie is signed; `origin`: of the app that it was made for.
    """
    value = json.dumps({**said, "origin": origin or url, "is_logged_in": True})
    cookie = create_signed_value(secret, USER_COOKIE_NAME, value).decode()
    token = generate_xsrf_token_string()
    cookies = f"{USER_COOKIE_NAME}={cookie}; {XSRF_COOKIE_NAME}={token}"
    return {"Origin": url, "Cookie": cookies}, ["streamlit", token]


# ---------------------------------------------------------------- a provider of OpenID Connect


class Provider(ThreadingHTTPServer):
    """It shows a link for each of PEOPLE; `ended` counts who has signed out."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.key = RSAKey.generate_key(2048, {"kid": "1"})
        self.asked: dict[str, dict[str, str]] = {}  # by the code that was given out
        self.ended = 0


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, dict(parse_qsl(urlsplit(self.path).query))
        url = self.server.url
        if path == "/.well-known/openid-configuration":
            self.say_json(
                {
                    "issuer": url,
                    "authorization_endpoint": f"{url}/authorize",
                    "token_endpoint": f"{url}/token",
                    "jwks_uri": f"{url}/keys",
                    "end_session_endpoint": f"{url}/end",
                    "response_types_supported": ["code"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                    "code_challenge_methods_supported": ["S256"],
                }
            )
        elif path == "/keys":
            self.say_json({"keys": [self.server.key.as_dict(private=False)]})
        elif path == "/authorize":
            links = [self.link(person, query) for person in PEOPLE]
            self.say("text/html", f"<h1>Who are you?</h1>{' '.join(links)}".encode())
        elif path == "/choose":
            code = secrets.token_hex(16)
            self.server.asked[code] = query
            back = urlencode({"code": code, "state": query["state"]})
            self.send_to(f"{query['redirect_uri']}?{back}")
        elif path == "/end":
            self.server.ended += 1
            self.send_to(query["post_logout_redirect_uri"])
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        """The token for a code, to the one who has asked for it."""
        given = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        asked = self.server.asked.pop(given["code"])
        client = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        digest = hashlib.sha256(given["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            self.headers["Authorization"] != f"Basic {client}"
            or challenge != asked["code_challenge"]
            or given["redirect_uri"] != asked["redirect_uri"]
        ):
            self.send_error(400)
            return
        said = claims(asked["person"], iss=self.server.url, aud=CLIENT_ID, nonce=asked["nonce"])
        token = jwt.encode({"alg": "RS256", "kid": "1"}, said, self.server.key)
        self.say_json({"token_type": "Bearer", "access_token": "none", "id_token": token})

    def link(self, person: str, query: dict[str, str]) -> str:
        address = f"/choose?{urlencode({**query, 'person': person})}"
        return f'<a href="{html.escape(address)}">{person}</a>'

    def say_json(self, value: object) -> None:
        self.say("application/json", json.dumps(value).encode())

    def say(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_to(self, address: str) -> None:
        self.send_response(302)
        self.send_header("Location", address)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *said: object) -> None:
        """Nothing on standard error."""


@contextmanager
def start_provider() -> Iterator[Provider]:
    with Provider() as provider:
        thread = threading.Thread(target=provider.serve_forever)
        thread.start()
        try:
            yield provider
        finally:
            provider.shutdown()
            thread.join()
