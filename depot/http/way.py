"""How large bodies leave."""

from __future__ import annotations

from enum import StrEnum


class Way(StrEnum):
    """How large bodies leave, where nothing has to look at the bytes."""

    AUTO = "auto"
    """As SPLICE; to a lone client of the same machine out of a mapping (`window.py`)."""
    COPY = "copy"
    """By whoever has the file open: read into memory, and sent from there."""
    SPLICE = "splice"
    """By whoever has the file open: references to the page cache, through a pipe of its own."""
    PIPE = "pipe"
    """By this process, from a pipe that whoever has the file open fills: no socket is lent."""
