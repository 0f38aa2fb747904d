"""An image drawn by hand."""
