"""The fleet's database into an archive: a copy, checked and published. Blocking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.snapshots.archive import Archive
from agent.snapshots.errors import SnapshotError
from agent.snapshots.publish import OnProgress, publish
from agent.snapshots.retention import keep_newest
from agent.snapshots.values import Head, Version
from coordinator.database.engine import parse_url
from coordinator.settings import CoordinatorSettings
from coordinator.snapshots.copying import Order, copied, workshop


@dataclass(frozen=True, slots=True)
class Published:
    """What was published, and which older versions left the archive for it.

    Attributes:
        head: of the new version.
        left: which left.
        not_left: why others did not that should have; the new version is there all the same.
    """

    head: Head
    left: tuple[Version, ...]
    not_left: SnapshotError | OSError | None = None


def order_of(settings: CoordinatorSettings, name: str | None = None) -> Order:
    """What the configuration says is to be published.

    Raises:
        DatabaseUnavailable: its database is of a kind that is not known.
    """
    table = settings.snapshot
    return Order(parse_url(settings.database_url), name or table.name, compressed=table.zstd)


def publish_database(
    archive: Archive,
    order: Order,
    *,
    directory: Path,
    keep: int,
    line: Callable[[str], None],
    progress: OnProgress,
    check: Callable[[], None] = lambda: None,
) -> Published:
    """Publish the database as it is at a moment from now.

    Args:
        archive: where to.
        order: what, and how.
        directory: to copy it in.
        keep: how many versions stay, with this one.
        line: told each step.
        progress: told how many bytes of the copy were sent; what it raises ends it.
        check: called now and then before that; what it raises ends it.

    Raises:
        SnapshotRunning: another one is being made in that directory.
        LibraryMissing: a program of PostgreSQL's is not installed.
        Unfit: the database cannot be copied, or the copy is damaged.
        SnapshotError: the archive did not take it.
        OSError: a file cannot be read or written.
    """
    with workshop(directory) as place:
        publication = copied(order, place, check)
        line(f"Copied: {publication.path.stat().st_size} bytes, whole by the database's own check")
        head = publish(archive, publication, line=line, progress=progress)
    try:
        return Published(head, tuple(keep_newest(archive, order.name, keep)))
    except (SnapshotError, OSError) as error:
        return Published(head, (), error)
