"""Releases on their way in: received, verified, staged, recorded."""
