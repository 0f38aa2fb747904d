"""The sinusoidal embedding of the timestep of the page, as curves and as numbers.

The browser computes it from the size and the base, so that it follows t without the server.
"""

from __future__ import annotations

from pathlib import Path

from dashboard.components.assemble import component

HTML = """
<div class="sinusoids">
  <div class="plot"></div>
  <div class="numbers" tabindex="0" role="region" aria-label="The numbers of the row">
    <table>
      <thead><tr><th>i</th><th>frequency f<sub>i</sub></th><th>sin(t f<sub>i</sub>)</th>
        <th>cos(t f<sub>i</sub>)</th></tr></thead>
      <tbody></tbody>
    </table>
  </div>
</div>
"""
HEIGHT = 380  # pixels, kept free before it is there


def show_row(size: int, base: float, key: str) -> None:
    """The row of the timestep that the page's slider has, out of an embedding of this size."""
    data = {"size": size, "base": base}
    component(Path(__file__), HTML)(key=key, data=data, height="content")
