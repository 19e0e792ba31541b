"""What the directories of a fleet must hold: names of files against names that are wanted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tests import ondisk


def names(directory: Path) -> frozenset[str]:
    """The artifacts that have a file in a dataset; none when it is just being lost."""
    try:
        return frozenset(ondisk.artifact_files(directory))
    except FileNotFoundError:
        return frozenset()


def astray(expected: Mapping[Path, frozenset[str]]) -> list[str]:
    """Say of each dataset what it lacks, and what it has and should not (F1)."""
    return [
        f"{path.parent.name}/{path.name} lacks {some(here - found)}, has still {some(found - here)}"
        for path, here in expected.items()
        if (found := names(path)) != here
    ]


def nowhere(wanted: frozenset[str], found: Iterable[frozenset[str]]) -> frozenset[str]:
    """What is wanted and has no file in any of the directories (F2)."""
    return wanted.difference(*found)


def damaged(datasets: Iterable[Path]) -> list[str]:
    """Name each file whose bytes are not those of its name (B1)."""
    return [f"{path}/{name[:8]}" for path in datasets for name in ondisk.wrong_bytes(path)]


def some(hashes: Collection[str]) -> str:
    """How many, and the first of them."""
    return f"{len(hashes)} {[sha256[:8] for sha256 in sorted(hashes)[:4]]}"
