"""Content-addressed storage of artifacts on mirrored datasets, and the repo depot API."""
