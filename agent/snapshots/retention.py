"""Which versions of a snapshot stay."""

from __future__ import annotations

from agent.snapshots.archive import Archive
from agent.snapshots.values import Version


def keep_newest(archive: Archive, name: str, keep: int) -> list[Version]:
    """Delete all but the newest `keep` versions, at least 1; those that left.

    Raises:
        Unreachable, Refused: the archive cannot be asked; what was deleted until then is.
    """
    leaving = [each.version for each in archive.versions(name)[max(keep, 1) :]]
    for version in leaving:
        archive.delete(version)
    return leaving
