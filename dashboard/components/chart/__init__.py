"""Plotly figures that change in the browser."""
