"""One dataset: everything that touches its files."""
