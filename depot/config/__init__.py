"""Which config is in force, and what it allows."""
