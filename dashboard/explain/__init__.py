"""The parts of the pages that explain, one module per page: its controls, figures and tables."""
