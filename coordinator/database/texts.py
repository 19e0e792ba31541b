"""Text that others wrote, in a form that every database takes."""

from __future__ import annotations

from typing import Final

MAX_CHARACTERS: Final = 2_000


def shortened(text: str | None) -> str | None:
    """Text of bounded length, without what PostgreSQL or UTF-8 has no room for."""
    if text is None:
        return None
    cut = text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
    return cut.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
