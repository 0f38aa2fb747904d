"""A table of all coefficients of schedules at the timestep of the page."""
