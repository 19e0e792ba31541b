"""Bytes on their way: where they come from, their blocks, hash, digests and pace."""
