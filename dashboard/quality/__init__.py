"""The parts of the Quality tab."""
