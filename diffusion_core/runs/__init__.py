"""Run folders: settings, status, checkpoints, curves; starting, stopping and queueing runs."""
