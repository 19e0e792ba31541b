"""Sizes as people read them, for the daemon and the commands alike. Pure."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size(count_bytes: int) -> str:
    """721 B, 12.8 KiB, 1.0 MiB, 20.0 GiB."""
    if count_bytes < 1024:
        return f"{count_bytes} B"
    # One step early where rounding would print 1024.0 of the smaller unit.
    steps = next((n for n in range(1, len(_UNITS)) if count_bytes / 1024**n < 1023.95), len(_UNITS))
    return f"{count_bytes / 1024**steps:.1f} {_UNITS[steps - 1]}"
