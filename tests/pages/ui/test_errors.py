"""Errors that nobody has foreseen: a sentence with a number on the page, all else in the log."""

from __future__ import annotations

import logging
import re
import tomllib

import pytest
from streamlit.testing.v1 import AppTest

import streamlit_app
from dashboard.ui import errors
from dashboard.ui.navigation import FOLDER

SENTENCE = r"Something went wrong \(error ([0-9a-f]{8})\)\. The log of the server says what\."


def test_the_page_shows_a_number_and_the_log_has_the_traceback_under_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def page() -> None:
        from dashboard.ui import errors

        try:
            raise OSError("/home/someone/secret")
        except OSError as error:
            assert errors.show(error)

    with caplog.at_level(logging.ERROR):
        app = AppTest.from_function(page).run()
    [shown] = app.error
    found = re.fullmatch(f"{SENTENCE} Reload the page to try again.", shown.value)
    assert found
    assert "secret" not in shown.value
    [record] = caplog.records
    assert found[1] in record.getMessage()
    assert record.exc_info
    assert "secret" in str(record.exc_info[1])


def test_the_server_shows_no_details_of_its_own() -> None:
    settings = tomllib.loads((FOLDER.parent / ".streamlit" / "config.toml").read_text())
    assert settings["client"]["showErrorDetails"] == "none"
    assert streamlit_app.app._on_script_error is errors.show
