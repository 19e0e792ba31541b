"""Snapshots that the sleds themselves hold: the catalogue of `fleet+http://`.

A version is one artifact, the stored form of the snapshot, and what its publisher said of it. It
belongs to what sleds are to hold, so that recording one and letting go of one each lead to a new
generation (F3). The newest is the one that was recorded last, whatever clocks say.
"""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import Row, Select, delete, func, insert, select

from coordinator.database.tables import snapshots
from coordinator.database.transaction import Transaction
from coordinator.errors import SnapshotConflict, SnapshotNotFound, TooMany
from coordinator.values import FleetSnapshot, Told

MAX_VERSIONS: Final = 10_000
"""Of all names together; each is an artifact on every sled."""


async def record(tx: Transaction, snapshot: FleetSnapshot) -> FleetSnapshot:
    """Record a version whose artifact is staged, as the newest; as it is recorded then.

    Recording it again, with the same content, changes nothing.

    Raises:
        SnapshotConflict: that version is recorded with other content.
        TooMany: there are as many versions as may be.
    """
    for known in await versions(tx, snapshot.name):
        if known.version == snapshot.version:
            if (known.sha256, known.said) != (snapshot.sha256, snapshot.said):
                raise SnapshotConflict(
                    f"version {snapshot.version!r} of snapshot {snapshot.name!r} is recorded with "
                    "other content"
                )
            return known
    await _insert(tx, snapshot)
    return snapshot


async def versions(tx: Transaction, name: str) -> list[FleetSnapshot]:
    """All versions of a snapshot, newest first."""
    return await _read(tx, select(snapshots).where(snapshots.c.name == name))


async def every(tx: Transaction) -> list[FleetSnapshot]:
    """All versions of all snapshots, newest first."""
    return await _read(tx, select(snapshots))


async def existing(tx: Transaction, name: str) -> list[FleetSnapshot]:
    """All versions of a snapshot that there is, newest first.

    Raises:
        SnapshotNotFound: there is none.
    """
    if not (found := await versions(tx, name)):
        raise SnapshotNotFound(f"no snapshot {name!r} is recorded")
    return found


async def remove(tx: Transaction, name: str, version: str) -> bool:
    """Let go of one version; False when it is not there.

    Raises:
        SnapshotConflict: it is the newest.
    """
    found = await versions(tx, name)
    if found and found[0].version == version:
        raise SnapshotConflict(f"version {version!r} is the newest of snapshot {name!r}")
    for each in found:
        if each.version == version:
            await _delete(tx, each)
            return True
    return False


async def remove_every(tx: Transaction, name: str) -> list[FleetSnapshot]:
    """Let go of a snapshot, the newest version included; those that leave, newest first.

    Raises:
        SnapshotNotFound: there is none.
    """
    found = await existing(tx, name)
    for each in found:
        await _delete(tx, each)
    return found


async def _read(tx: Transaction, query: Select[Any]) -> list[FleetSnapshot]:
    return [_of(row) for row in await tx.rows(query.order_by(snapshots.c.ordinal.desc()))]


async def _insert(tx: Transaction, snapshot: FleetSnapshot) -> None:
    last = await tx.first(select(func.max(snapshots.c.ordinal).label("ordinal")))
    count = await tx.first(select(func.count().label("versions")).select_from(snapshots))
    assert last is not None
    assert count is not None
    if count.versions >= MAX_VERSIONS:
        raise TooMany(f"there are {count.versions} versions of snapshots; remove some first")
    await tx.write(
        insert(snapshots).values(
            ordinal=(last.ordinal or 0) + 1,
            name=snapshot.name,
            version=snapshot.version,
            sha256=snapshot.sha256,
            size_bytes=snapshot.size_bytes,
            time_created=snapshot.time_created_s,
            said=json.dumps(dict(snapshot.said), sort_keys=True),
        )
    )
    await tx.tell(_about("fleet.snapshot_added", snapshot))


async def _delete(tx: Transaction, snapshot: FleetSnapshot) -> None:
    its = (snapshots.c.name == snapshot.name) & (snapshots.c.version == snapshot.version)
    await tx.write(delete(snapshots).where(its))
    await tx.tell(_about("fleet.snapshot_removed", snapshot))


def _about(kind: str, snapshot: FleetSnapshot) -> Told:
    data = {"name": snapshot.name, "version": snapshot.version}
    return Told(kind, artifacts=(snapshot.sha256,), data=data)


def _of(row: Row[Any]) -> FleetSnapshot:
    return FleetSnapshot(
        name=row.name,
        version=row.version,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        time_created_s=row.time_created,
        said=json.loads(row.said),
    )
