"""SIGTERM while requests run (S3): no new work, the running ones end well, and the exit is 0."""
