"""How many files this process has open."""

from __future__ import annotations

import asyncio
import gc
import os


async def open_descriptors() -> int:
    """Count them, without those that only the garbage of earlier tests still holds."""
    gc.collect()
    return len(await asyncio.to_thread(os.listdir, "/proc/self/fd"))
