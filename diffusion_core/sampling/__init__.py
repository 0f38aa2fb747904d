"""Sampling: requests and what is wrong with them, samplers, edits, recordings, series of files."""
