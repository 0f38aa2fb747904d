"""The controls of a film: slider, play button, speed and loop."""

from __future__ import annotations


def controls(label: str, more: str = "") -> str:
    """The HTML of the controls: `label` is the slider's accessible name, `more` follows it."""
    return f"""
  <div class="controls">
    <button type="button" class="play" aria-label="Play the film" title="Play the film">
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path class="start" d="M4 2v12l10-6z"/><path class="halt" d="M3 2h4v12H3zM9 2h4v12H9z"/>
      </svg>
    </button>
    <input type="range" min="0" step="1" aria-label="{label}">
    <output></output>
    {more}
    <label>Speed <select class="speed">
      <option value="3">slow</option>
      <option value="8" selected>normal</option>
      <option value="20">fast</option>
      <option value="60">fastest</option>
    </select></label>
    <label><input type="checkbox" class="loop" checked> Loop</label>
  </div>
"""
