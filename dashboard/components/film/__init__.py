"""Sample strips of several runs under one slider."""
