"""Where a run took place: what a reader needs to judge its numbers."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

import psutil

from tests.benchmarks.programs import version_of

IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def filesystem(path: Path) -> str:
    """The type of the filesystem that holds `path`."""
    resolved = path.resolve()
    holders = [
        partition
        for partition in psutil.disk_partitions(all=True)
        if resolved.is_relative_to(partition.mountpoint)
    ]
    return max(holders, key=lambda one: len(one.mountpoint)).fstype if holders else "unknown"


def describe(directory: Path) -> dict[str, object]:
    """What stands above the table."""
    nginx, curl = version_of("nginx", "-v"), version_of("curl")
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "python": platform.python_version(),
        "filesystem": filesystem(directory),
        "nginx": nginx.partition(": ")[2] or nginx or "not found",
        "curl": " ".join(curl.split()[:2]) or "not found",
        "sha256sum": version_of("sha256sum").rpartition(" ")[2] or "not found",
        "load_before": round(os.getloadavg()[0], 2),
    }
