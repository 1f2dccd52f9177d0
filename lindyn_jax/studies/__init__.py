"""Studies: each is a trial function, its default grid, its summary and its figure."""
