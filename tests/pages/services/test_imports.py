"""What a server has imported: each of these takes seconds, or 25 to 160 MB that nobody may need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dashboard.ui.addresses import PAGES

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


LIGHT = """
import sys
from streamlit.testing.v1 import AppTest
from dashboard.ui.navigation import FOLDER
app = AppTest.from_file(str(FOLDER.parent / "dashboard" / "shell.py"), default_timeout=60)
app.query_params["t"] = "7"
app.switch_page(str(FOLDER / sys.argv[1])).run()
assert not app.exception and app.title, app.exception
print("torch" in sys.modules, [each.value for each in app.sidebar.caption])
"""


@pytest.mark.long
@pytest.mark.parametrize("file", [page.file for page in PAGES if page.light])
def test_a_light_page_is_shown_before_pytorch_is_there(file: str, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", LIGHT, file],
        capture_output=True,
        text=True,
        env=os.environ | {"DIFFUSION_LAB_RUNS_DIR": str(tmp_path)},
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "False ['Device: PyTorch is loading …']"
