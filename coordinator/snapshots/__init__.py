"""Snapshots of the fleet's database: taken while it is in use, and put back."""
