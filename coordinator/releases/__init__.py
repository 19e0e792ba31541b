"""Signed releases, read and verified: a library without database, server or command line."""
