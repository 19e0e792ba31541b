"""What this process has locked in memory, for tests of what is sent out of a mapping."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

from depot.dataset import page_cache
from tests.needs import Need, lack

MOST_BYTES: Final = 8 << 20
"""What an ordinary user may lock on Linux."""


def locked_bytes() -> int:
    """How much it is now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmLck:"))


def need_locked_memory() -> None:
    """Skip the test where nothing is sent out of a mapping; or fail it, see `lack`."""
    if not page_cache.available():
        lack(Need.PAGE_CACHE, "openat2 or cachestat are refused here")
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if os.geteuid() != 0 and any(0 <= limit < MOST_BYTES for limit in (soft, hard)):
        lack(Need.ROOT, "this user may not lock 8 MiB of memory, as on Linux by default")
