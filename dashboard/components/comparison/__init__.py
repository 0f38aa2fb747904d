"""A table with a column for each of a few things that are compared."""
