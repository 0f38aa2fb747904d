"""Looking at many runs together: an index of all runs of a folder, filters, order and groups."""
