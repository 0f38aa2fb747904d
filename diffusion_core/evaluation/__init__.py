"""How good the images of a run are: metrics with intervals, and their results in the run."""
