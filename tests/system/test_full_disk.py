"""A filesystem that is really full, read-only, gone, or out of inodes, under a real agent.

Each dataset is a small ext4 of its own on a loop device; skipped where those cannot be had.
"""
