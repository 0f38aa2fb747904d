"""A package, so that one of this name among the installed packages is not found before it."""
