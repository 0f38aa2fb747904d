"""Sending to real servers on this machine: what they get, and what is said of what goes wrong."""

from __future__ import annotations

import datetime
import socket
import ssl
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from diffusion_core.runs.alerts.message import Event, of_run, of_test
from diffusion_core.runs.alerts.send import Outcome, send_all
from diffusion_core.runs.alerts.settings import read_alerts
from diffusion_core.runs.status import StatusRecord
from tests.message_servers import SECRET, Answer, mail_server, webhook_server

SHORT = 0.5  # seconds for a server that never answers


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def post(url: str, seconds: float = 30) -> Outcome:
    settings = read_alerts({"DIFFUSION_LAB_ALERT_WEBHOOK": url})
    [outcome] = send_all(settings.targets, of_test("here", ""), seconds).values()
    assert SECRET not in outcome.why
    return outcome


def send_mail(port: int, security: str = "none", **more: str) -> Outcome:
    given = {
        "ALERT_EMAIL": "ann@lab.org,bob@lab.org",
        "SMTP_HOST": "localhost",
        "SMTP_PORT": str(port),
        "SMTP_SECURITY": security,
        "SMTP_FROM": "lab@lab.org",
        **more,
    }
    settings = read_alerts({f"DIFFUSION_LAB_{name}": value for name, value in given.items()})
    about = of_run("my-run", Event.LOST, StatusRecord(), "{run} is lost.", "")
    [outcome] = send_all(settings.targets, about, 30).values()
    assert SECRET not in outcome.why
    return outcome


def test_a_webhook_gets_one_request_of_json() -> None:
    with webhook_server() as server:
        assert post(server.url) == Outcome(sent=True)
    [(path, headers, body)] = server.got
    assert path == f"/hooks/{SECRET}"
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["User-Agent"].startswith("diffusion-lab/")
    assert body["text"] == "This is a test of the alerts of Diffusion Lab on here."


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_request_that_is_refused_is_not_tried_again(code: int) -> None:
    with webhook_server(Answer(code)) as server:
        assert post(server.url) == Outcome(why=f"it answered {code}")


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_one_that_is_refused_for_now_may_be_tried_again(code: int) -> None:
    with webhook_server(Answer(code)) as server:
        assert post(server.url) == Outcome(again=True, why=f"it answered {code}")


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 7),
        ("1.5", 1.5, 1.5),
        ("999999999999999999999999", 3600, 3600),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("", 0, 0),
    ],
)
def test_the_answer_says_how_long_to_wait(said: str, least: float, most: float) -> None:
    with webhook_server(Answer(429, {"Retry-After": said})) as server:
        assert least <= post(server.url).after <= most


def test_the_wait_may_be_a_date() -> None:
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=900)
    with webhook_server(Answer(503, {"Retry-After": format_datetime(then)})) as server:
        assert 0 < post(server.url).after <= 900


def test_a_redirect_is_not_followed() -> None:
    with webhook_server() as other:
        with webhook_server(Answer(307, {"Location": other.url})) as server:
            assert post(server.url) == Outcome(
                why="it answered 307, a redirect, which is not followed"
            )
        assert len(server.got) == 1
    assert other.got == []


@pytest.mark.parametrize("answer", [Answer(hangs=True), Answer(drips=True)])
def test_a_server_that_does_not_answer_is_not_waited_for(answer: Answer) -> None:
    with webhook_server(answer) as server:
        outcome = post(server.url, SHORT)
    assert outcome == Outcome(again=True, why="it did not answer in time")


def test_no_server_and_no_name_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook_server() as server:
        pass
    assert post(server.url) == Outcome(
        again=True, why="there is no connection (Connection refused)"
    )

    def unknown(*given: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = post(f"https://example.invalid/{SECRET}")
    assert found == Outcome(again=True, why="its name cannot be resolved")


def test_what_is_no_http_is_no_answer() -> None:
    with mail_server() as server:  # it says "220 here"
        outcome = post(f"http://127.0.0.1:{server.server_address[1]}/{SECRET}")
    assert outcome == Outcome(again=True, why="its answer cannot be read")


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook_server() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        assert post(f"http://hooks.lan/{SECRET}").sent
    assert [path for path, _, _ in proxy.got] == [f"http://hooks.lan/{SECRET}"]


def test_all_targets_are_sent_to_whatever_one_does() -> None:
    with webhook_server(Answer(hangs=True)) as first, webhook_server() as second:
        urls = f"{first.url} slack+{second.url}"
        settings = read_alerts({"DIFFUSION_LAB_ALERT_WEBHOOK": urls})
        found = send_all(settings.targets, of_test("here", ""), SHORT)
        assert {name: outcome.sent for name, outcome in found.items()} == {
            "json": False,
            "slack": True,
        }


# ---------------------------------------------------------------- e-mail and certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that it has signed itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "localhost.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    """Of a server that has it."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate)
    return made


def test_a_webhook_whose_certificate_is_not_trusted_gets_nothing(context: ssl.SSLContext) -> None:
    with webhook_server() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        assert post(url) == Outcome(why="its certificate cannot be verified")
    assert server.got == []


def test_mail_is_sent_to_all() -> None:
    with mail_server() as server:
        assert send_mail(server.port) == Outcome(sent=True)
    [(sender, recipients, text)] = server.got
    assert (sender, recipients) == ("lab@lab.org", ["ann@lab.org", "bob@lab.org"])
    assert "Subject: Diffusion Lab: my-run is lost." in text
    assert "Auto-Submitted: auto-generated" in text


def test_mail_is_encrypted_before_the_password_is_sent(
    context: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = {"SMTP_USER": "lab", "SMTP_PASSWORD": SECRET}
    with mail_server(context) as server:
        refused = send_mail(server.port, "starttls", **user)
        assert refused == Outcome(why="its certificate cannot be verified")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send_mail(server.port, "starttls", **user) == Outcome(sent=True)
    assert server.signed_in == [f"\0lab\0{SECRET}"]
    assert len(server.got) == 1


def test_mail_may_be_encrypted_from_the_beginning(
    context: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mail_server() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send_mail(server.port, "tls") == Outcome(sent=True)
    assert len(server.got) == 1


def test_mail_is_not_sent_where_the_server_cannot_encrypt() -> None:
    with mail_server() as server:
        found = send_mail(server.port, "starttls", SMTP_USER="lab", SMTP_PASSWORD=SECRET)
    assert found == Outcome(why="it offers no encryption or no sign-in")
    assert (server.signed_in, server.got) == ([], [])


@pytest.mark.parametrize(
    ("command", "answer", "outcome"),
    [
        ("AUTH", f"535 no {SECRET}", Outcome(why="it refused the user or password")),
        ("AUTH", "454 later", Outcome(again=True, why="it refused the user or password")),
        ("MAIL", "451 later", Outcome(again=True, why="it answered 451")),
        ("MAIL", f"550 no {SECRET}", Outcome(why="it answered 550")),
        ("RCPT", "450 later", Outcome(again=True, why="it refused all recipients")),
        ("RCPT", f"550 no {SECRET}", Outcome(why="it refused all recipients")),
        ("DATA", "452 full", Outcome(again=True, why="it answered 452")),
    ],
)
def test_a_mail_server_that_refuses_is_asked_again_where_it_says_so(
    command: str, answer: str, outcome: Outcome
) -> None:
    with mail_server(None, **{command: answer}) as server:
        assert send_mail(server.port, SMTP_USER="lab", SMTP_PASSWORD=SECRET) == outcome
    assert server.got == []
