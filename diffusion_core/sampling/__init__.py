"""From noise to images: what to sample, the solvers, edits, trajectories, series of files."""
