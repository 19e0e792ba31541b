"""Where files are kept that no disk has to take."""

from __future__ import annotations

import os
from pathlib import Path


def memory_dir() -> Path | None:
    """A directory in memory; None: there is none, and the usual temporary directory must do."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else None
