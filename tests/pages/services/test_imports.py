"""What an idle server has imported: each of these takes 25 to 160 MB that nobody may need."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import streamlit.web.bootstrap
from dashboard.services.garbage import import_all_and_spare_it
import_all_and_spare_it()
late = "av pandas pyarrow sympy torch._dynamo torchvision triton sklearn scipy".split()
print([name for name in late if name in sys.modules])
"""


@pytest.mark.long
def test_an_idle_server_has_not_imported_what_only_some_pages_need() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (found.returncode, found.stdout.strip()) == (0, "[]"), found.stderr


HOME = """
import sys
from tests.pages.app import open_page
assert "pandas" not in sys.modules
assert not open_page("home.py").exception
print("pandas" in sys.modules)
"""


@pytest.mark.long
def test_the_first_visit_imports_pandas_before_another_can_make_a_figure() -> None:
    found = subprocess.run([sys.executable, "-c", HOME], capture_output=True, text=True)
    assert (found.returncode, found.stdout.strip()) == (0, "True"), found.stderr
