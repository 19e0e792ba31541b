"""The `depot-coordinator` command."""
