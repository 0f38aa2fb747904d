"""Frames under one slider."""
