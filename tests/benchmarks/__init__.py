"""Measured ratios: the agent beside the programs and the raw operations it is compared with."""
