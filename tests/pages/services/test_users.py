"""Who is signed in, what a list of operators has, and which setting decides who may operate."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit import runtime
from streamlit.testing.v1 import AppTest

from dashboard.services import hosts, roles, settings, uploads, users
from dashboard.services.settings import SettingsError, get_settings
from dashboard.services.users import User
from dashboard.ui.navigation import FOLDER
from diffusion_core.runs import trash
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.run import Run
from tests.pages.app import SHELL, open_page, seen
from tests.pages.training.test_training import words, write_run
from tests.sign_in import CLIENT_ID, CLIENT_SECRET, COOKIE_SECRET, secrets_toml

GIVEN = {"is_logged_in": True, "sub": "1", "iss": "https://provider", "email": "ann@lab.org"}


@pytest.fixture
def auth(monkeypatch: pytest.MonkeyPatch) -> None:
    """`[auth]` with ann@lab.org as the only operator, and no role for all."""
    monkeypatch.delenv("DIFFUSION_LAB_ROLE")
    settings.SECRETS_FILE.write_text(secrets_toml(["ann@lab.org"]))


def said(**others: object) -> dict[str, Any]:
    return GIVEN | {"iat": time.time()} | others


# ---------------------------------------------------------------- what a provider says


def test_a_person_has_the_address_that_the_provider_gives() -> None:
    assert users.user_of(said()) == User("https://provider 1", "ann@lab.org", "ann@lab.org")
    assert users.user_of(said(email_verified="true")).address == "ann@lab.org"  # Cognito's


@pytest.mark.parametrize("verified", [False, "false", None, "yes"])
def test_an_address_that_is_not_verified_is_a_name_only(verified: object) -> None:
    assert users.user_of(said(email_verified=verified)) == User(
        "https://provider 1", "ann@lab.org", ""
    )


@pytest.mark.parametrize(
    "email", [None, 5, "ann", "ann@b@lab.org", "ann @lab.org", "@lab.org", "a" * 65 + "@lab.org"]
)
def test_what_is_no_address_is_none(email: object) -> None:
    assert users.user_of(said(email=email, name="Ann")) == User("https://provider 1", "Ann", "")


@pytest.mark.parametrize(
    "others",
    [
        {"is_logged_in": "yes"},
        {"is_logged_in": False},
        {"sub": None},
        {"iat": None},
        {"iat": "now"},
        {"iat": float("nan")},
        {"iat": time.time() - 31 * 86_400},
    ],
)
def test_what_does_not_count_as_a_sign_in(others: dict[str, object]) -> None:
    assert users.user_of(said(**others)) is None
    assert users.user_of({}) is None


@pytest.mark.parametrize(
    ("address", "operators", "expected"),
    [
        ("ann@lab.org", ["bob@lab.org", "Ann@LAB.ORG"], True),
        ("ANN@lab.org", ["@lab.org"], True),
        ("ann@sub.lab.org", ["@lab.org"], False),
        ("ann@evil-lab.org", ["@lab.org"], False),
        ("annlab@org", ["lab@org"], False),
        ("\N{KELVIN SIGN}ate@lab.org", ["kate@lab.org"], False),
        ("ann@lab.org", [], False),
        ("", ["@lab.org"], False),
    ],
)
def test_whom_a_list_has(address: str, operators: list[str], expected: bool) -> None:
    assert roles.is_listed(User("1", "Ann", address), operators) == expected


# ---------------------------------------------------------------- which setting decides


@pytest.mark.parametrize(
    ("demo", "role", "with_auth", "listed", "local"),
    list(itertools.product([False, True], [None, "viewer"], *[[False, True]] * 3)),
)
def test_the_first_rule_that_applies_decides(
    demo: bool,
    role: str | None,
    with_auth: bool,
    listed: bool,
    local: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_DEMO", str(int(demo)))
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", role or "")
    if with_auth:
        settings.SECRETS_FILE.write_text(secrets_toml(["ann@lab.org"]))
    person = User("1", "Ann", "ann@lab.org" if listed else "bob@lab.org")
    may = roles.allows(get_settings(), lambda: person, lambda: local)
    assert may == (not demo and role is None and (listed if with_auth else local))


def test_without_auth_nobody_asks_who_is_signed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFUSION_LAB_ROLE")
    assert roles.allows(get_settings(), lambda: pytest.fail("asked"), lambda: True)


@pytest.mark.parametrize(
    ("environment", "secrets", "reason"),
    [
        (
            {"ROLE": "operator"},
            secrets_toml([]),
            "DIFFUSION_LAB_ROLE=operator would make everybody an operator, signed in or not.",
        ),
        ({"OPERATORS": "ann@lab.org"}, "", "DIFFUSION_LAB_OPERATORS names operators, but nobody"),
        ({}, secrets_toml(["lab.org"]), "'lab.org' in DIFFUSION_LAB_OPERATORS is no address such"),
        ({}, secrets_toml(["a@b@c"]), "'a@b@c' in DIFFUSION_LAB_OPERATORS is no address such as"),
        ({}, "[auth]\n", "redirect_uri in [auth] is missing."),
        ({}, "auth = 5\n", "[auth] is 5; it must be an object."),
        (
            {},
            secrets_toml([]).replace("oauth2callback", "callback"),
            "redirect_uri in [auth] is 'http://localhost:{port}/callback'; it must be the address",
        ),
        (
            {},
            secrets_toml([]).replace('cookie_secret = "', 'cookie_secret = "short" #'),
            "cookie_secret in [auth] must be a text of at least 32 characters.",
        ),
        (
            {},
            secrets_toml([]).replace("client_secret", "[auth.google]\nclient_secret"),
            "client_secret in [auth] is missing.",
        ),
        (
            {},
            secrets_toml([]).replace("client_id", "[auth.my_own]\nclient_id"),
            "[auth.my_own] cannot be used: Streamlit allows no _ in that name.",
        ),
        (
            {},
            secrets_toml([], provider="ftp://x"),
            "server_metadata_url in [auth] is 'ftp://x/",
        ),
    ],
)
def test_settings_that_do_not_go_together_allow_nothing_and_are_named(
    environment: dict[str, str], secrets: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIFFUSION_LAB_ROLE")
    for name, value in environment.items():
        monkeypatch.setenv(f"DIFFUSION_LAB_{name}", value)
    settings.SECRETS_FILE.write_text(secrets)
    with pytest.raises(SettingsError) as error:
        get_settings()
    assert str(error.value).startswith(reason)
    assert not roles.may_operate()


def test_operators_are_a_list_of_the_file_or_a_text_with_commas(
    auth: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert get_settings().operators == ("ann@lab.org",)
    settings.SECRETS_FILE.write_text(secrets_toml([]))
    monkeypatch.setenv("DIFFUSION_LAB_OPERATORS", "ann@lab.org, @example.org")
    assert get_settings().operators == ("ann@lab.org", "@example.org")


def test_no_secret_is_in_what_settings_look_like(auth: None) -> None:
    found = repr(get_settings())
    assert CLIENT_ID in found and COOKIE_SECRET not in found and CLIENT_SECRET not in found


def test_the_example_in_the_documentation_lacks_only_a_secret_of_ones_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DIFFUSION_LAB_ROLE")
    text = (settings.REPOSITORY / "docs" / "deploy.md").read_text()
    [example] = [block for block in text.split("```") if "\n[auth]\n" in block]
    example = example.removeprefix("text\n")
    settings.SECRETS_FILE.write_text(example)
    with pytest.raises(SettingsError, match=r"cookie_secret in \[auth\] must be a text"):
        get_settings()
    settings.SECRETS_FILE.write_text(example.replace("REPLACE-ME", COOKIE_SECRET))
    assert get_settings().operators == ("ann@example.org", "@lab.org")


# ---------------------------------------------------------------- what the pages say


def shown(app: AppTest) -> str:
    return "\n".join(seen(text.value) for text in [*app.sidebar.caption, *app.sidebar.warning])


def opened(**user: object) -> AppTest:
    app = AppTest.from_file(str(SHELL), default_timeout=60)
    app.user = user
    return app.run()


def test_the_sidebar_says_who_is_signed_in_and_what_may_be_done(auth: None) -> None:
    app = opened()
    assert "Role: viewer. You can watch and sample; only the operator can train. Sign in" in shown(
        app
    )
    assert [button.label for button in app.sidebar.button] == ["Sign in"]
    app = opened(**said())
    assert "Signed in as ann@lab.org. Role: operator." in shown(app)
    assert [button.label for button in app.sidebar.button] == ["Sign out"]
    app.sidebar.button[0].click().run()
    assert "Role: viewer." in shown(app) and "Signed in" not in shown(app)


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ({"email": "bob@lab.org"}, "Your address is not among DIFFUSION_LAB_OPERATORS."),
        ({"email_verified": False}, "Your provider gives no verified e-mail address for you."),
    ],
)
def test_one_who_is_signed_in_as_a_viewer_reads_why(
    others: dict[str, object], why: str, auth: None
) -> None:
    assert shown(opened(**said(**others))).endswith(why)


def test_each_provider_has_a_button(auth: None) -> None:
    own = settings.SECRETS_FILE.read_text()
    section = own.partition("client_id")[2]
    names = ("google", "my-own")
    sections = "".join(f"[auth.{name}]\nclient_id{section}" for name in names)
    settings.SECRETS_FILE.write_text(own.replace(f"client_id{section}", sections))
    labels = [button.label for button in opened().sidebar.button]
    assert labels == ["Sign in with google", "Sign in with my-own"]


def test_without_authlib_the_page_and_the_log_say_what_is_missing(
    auth: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(users, "authlib_is_missing", lambda: True)
    app = opened()
    assert "Authlib is missing. Install requirements-auth.txt on the server." in shown(app)
    assert not app.sidebar.button
    hosts.report_roles()
    assert users.NO_AUTHLIB in caplog.messages


def test_without_auth_nothing_is_said_of_signing_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = opened(**said())
    assert not app.sidebar.button and "igned in" not in shown(app)
    monkeypatch.setenv("DIFFUSION_LAB_DEMO", "1")
    monkeypatch.delenv("DIFFUSION_LAB_ROLE")
    settings.SECRETS_FILE.write_text(secrets_toml(["ann@lab.org"]))
    app = opened(**said())
    assert not app.sidebar.button and "Role: visitor of a demo." in shown(app)


def test_a_budget_is_a_persons_on_all_tabs(auth: None) -> None:
    def ask() -> None:
        import streamlit as st

        from dashboard.services.visitors import visitor

        st.text(visitor())

    for sub in ("1", "1", "2"):
        app = AppTest.from_function(ask)
        app.user = said(sub=sub)
        assert app.run().text[0].value == f"https://provider {sub}"


def test_the_largest_file_follows_who_is_signed_in(
    auth: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = {"ann": said(), "bob": said(email="bob@lab.org")}
    found = {name: SimpleNamespace(_user_info=info) for name, info in sessions.items()}
    monkeypatch.setattr(runtime, "get_instance", lambda: SimpleNamespace(get_app_session=found.get))
    sizes = {}
    for session in ("ann", "bob", "no such session"):
        file = uploads._File("10.0.0.1", session, "1", 17 * 2**20 + uploads.FRAME)
        sizes[session] = uploads._admit(file, local=True)
        if sizes[session] is None:
            uploads._files.remove(file)
    refused = (413, "The file is larger than 16 MB.")
    assert sizes == {"ann": None, "bob": refused, "no such session": refused}


def test_names_in_a_history_are_for_those_who_are_signed_in(runs_dir: Path, auth: None) -> None:
    record(write_run(runs_dir, "mine"), Event.STARTED, "ann@lab.org")

    def history(**user: object) -> str:
        app = opened(**user)
        app.query_params["more"] = "History"
        return words(app.switch_page(str(FOLDER / "training.py")).run())

    assert "Started by ann@lab.org, 20" in history(**said())
    assert "Started by ann@lab.org, 20" in history(**said(email="bob@lab.org"))
    signed_out = history()
    assert "Started, 20" in signed_out and "ann@lab.org" not in signed_out


def test_who_deleted_a_run_stands_beside_it(runs_dir: Path) -> None:
    trash.delete(Run(write_run(runs_dir, "mine")), "ann@lab.org")
    trash.delete(Run(write_run(runs_dir, "other")), "")
    shown = words(open_page("training.py"))
    assert "mine, deleted 20" in shown and " by ann@lab.org" in shown
    assert shown.count(" by ann@lab.org") == 1
