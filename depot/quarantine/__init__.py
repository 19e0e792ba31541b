"""Damaged copies that were set aside: kept, listed, restored, let go."""
