"""The trainer: one step, the loop, checkpoints and strips beside it, several processes."""
