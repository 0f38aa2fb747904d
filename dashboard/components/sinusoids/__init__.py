"""One row of the sinusoidal embedding, which follows the timestep in the browser."""
