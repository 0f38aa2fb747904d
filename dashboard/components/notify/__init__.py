"""A mask painted on an image."""
