"""The lecture as a notebook: each of its cells runs, and their checks hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "lecture.ipynb"


def kinds_of_output(notebook: Any) -> list[list[str]]:
    """What each cell of code shows: "stream" for text, "execute_result" for a value."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[output.output_type for output in cell.outputs] for cell in cells]


@pytest.mark.long
def test_the_notebook_runs_and_shows_what_it_was_saved_with() -> None:
    saved = nbformat.read(NOTEBOOK, as_version=4)
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(fresh, timeout=600, kernel_name="python3", resources=folder).execute()
    assert kinds_of_output(saved) == kinds_of_output(fresh)
    assert ["execute_result"] in kinds_of_output(fresh)
