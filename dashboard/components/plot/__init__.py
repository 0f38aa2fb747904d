"""Small figures that components draw themselves, and their downloads."""
