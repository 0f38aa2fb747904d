"""What the collection of garbage, every few seconds, goes through, and what memory goes back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_runs import write_run

# In a process of its own, as a server is.
SCRIPT = """
import gc
from dashboard.services.garbage import import_all_and_spare_it
import_all_and_spare_it()
from tests.pages.app import open_page
for page in ("unet.py", "sampling.py"):
    app = open_page(page)
    assert not app.exception, page
[generate] = [button for button in app.button if button.label == "Generate"]
generate.click().run()
assert app.session_state["jobs"]["generate"].wait(60)
app.run()
assert not app.exception
gc.collect()
print(len(gc.get_objects()))
"""


@pytest.mark.long
def test_pages_leave_few_objects_to_go_through(runs_dir: Path) -> None:
    write_run(runs_dir, "tiny", 20)
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    # PyTorch and its compiler are 280,000; the pages and this test's own tools 16,000.
    assert int(found.stdout) < 40_000


# Pieces of 4 kB, the last of which holds the heap together.
PIECES = """
import psutil
from dashboard.services.garbage import give_back
pieces = [bytes(4096) for _ in range(25_000)]
del pieces[:-1]
before = psutil.Process().memory_info().rss
give_back()
print(before - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other heaps")
def test_what_was_freed_goes_back_to_the_system() -> None:
    found = subprocess.run([sys.executable, "-c", PIECES], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 50 * 2**20
