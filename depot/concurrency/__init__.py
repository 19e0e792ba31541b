"""Threads, locks and turns: what waits for what, and for how long."""
