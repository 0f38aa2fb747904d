"""A table with a column for each of a few things that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dashboard.components.assemble import component

HTML = """
<div class="comparison" role="region" tabindex="0"><table></table></div>
<div class="about" aria-hidden="true" hidden></div>
"""


@dataclass(frozen=True)
class Line:
    """A row of the table. Cells are text, of the things in their order."""

    name: str
    text: str  # what it means, shown on the pointer, the keyboard's focus or a tap
    cells: Sequence[str]
    marked: Sequence[bool] = ()  # of each cell, whether it stands out


def show_table(
    names: Sequence[str], parts: dict[str, list[Line]], label: str, key: str, corner: str
) -> None:
    """`names` of the things, whose colours are those of their curves; `parts`: lines by titles.

    `label` says what the table is, `corner` what stands above the names of the lines.
    """
    data = {
        "names": names,
        "parts": [
            {"title": title, "lines": [asdict(line) for line in lines]}
            for title, lines in parts.items()
            if lines
        ],
        "label": label,
        "corner": corner,
    }
    component(Path(__file__), HTML)(key=key, data=data)
