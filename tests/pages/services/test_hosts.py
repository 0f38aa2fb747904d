"""What the log says at the start of who may do what."""

from __future__ import annotations

import logging

import pytest
import streamlit as st

from dashboard.services import hosts


@pytest.mark.parametrize(
    ("address", "role", "demo", "said"),
    [
        ("0.0.0.0", "", "", True),
        ("", "", "", True),
        ("localhost", "", "", False),
        ("0.0.0.0", "viewer", "", False),
        ("0.0.0.0", "", "1", False),  # where nobody operates, whatever the role
    ],
)
def test_who_operates_is_said_where_others_reach_the_server_and_nobody_has_chosen(
    address: str,
    role: str,
    demo: str,
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", role)
    monkeypatch.setenv("DIFFUSION_LAB_DEMO", demo)
    monkeypatch.setattr(st, "get_option", lambda name: address)
    with caplog.at_level(logging.WARNING, logger="dashboard.services.hosts"):
        hosts.report_roles()
    assert ("No role is set." in caplog.text) == said
