"""A small run, sampled in the browser as the hand moves."""
