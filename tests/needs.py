"""What some tests need of the machine: where it is missing they are skipped, or fail.

`TESTS_MUST_RUN` names what must be there, such as "postgresql root": a test that asks for one of
these and cannot have it fails. `.ci/run` sets it, so that what only such tests prove is never left
unproved without anybody noticing.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Final, NoReturn

import pytest

from depot.dataset import page_cache
from depot.dataset.filesystem import has_page_cache

VARIABLE: Final = "TESTS_MUST_RUN"


class Need(StrEnum):
    """What not every machine has."""

    POSTGRESQL = "postgresql"
    ROOT = "root"
    PAGE_CACHE = "page-cache"
    """Temporary files on a filesystem of which a kernel tells what it has in memory."""
    MOUNTS = "mounts"
    """Filesystems of the tests' own: on loop devices, or through FUSE."""


def lack(need: Need, reason: str) -> NoReturn:
    """Skip the test that cannot have what it needs; fail it where that must be there.

    Raises:
        ValueError: the variable has a word that is none of the needs.
    """
    if need in map(Need, os.environ.get(VARIABLE, "").split()):
        pytest.fail(f"{VARIABLE} says that {need} is here: {reason}", pytrace=False)
    pytest.skip(reason)


def need_page_cache(directory: Path) -> None:
    """Skip the test where the kernel does not tell what it has in memory of a directory's files.

    Or fail it, see `lack`.
    """
    if not has_page_cache(directory):
        lack(Need.PAGE_CACHE, f"{directory}: no ext4 or btrfs of Linux 6.5, nor xfs of 6.12")
    if not page_cache.available():
        lack(Need.PAGE_CACHE, "openat2 or cachestat are refused here")
