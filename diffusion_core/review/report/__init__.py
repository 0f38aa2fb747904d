"""Reports of runs as one file, HTML or PDF, that opens anywhere without a network."""
