"""HTTP: one front for both servers of a node, and the repo depot API."""
