"""Verifying every copy in the background, and what was found out about each."""
