"""Snapshots that the sleds themselves hold: the catalogue of `fleet+http://`.

A version is one artifact, the stored form of the snapshot, and what its publisher said of it. It
belongs to what sleds are to hold, so that recording one and letting go of one each lead to a new
generation (F3). The newest is the one that was recorded last, whatever clocks say.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row, delete, func, insert, select

from coordinator.database.tables import snapshots
from coordinator.database.transaction import Transaction
from coordinator.errors import SnapshotConflict, SnapshotNotFound
from coordinator.values import FleetSnapshot, Told
from depot.artifact import ArtifactHash


async def record(tx: Transaction, snapshot: FleetSnapshot, *, keep: int) -> list[FleetSnapshot]:
    """Record a version whose artifact is staged, as the newest; those that leave for it.

    Recording it again, with the same content, changes nothing.

    Args:
        tx: the transaction.
        snapshot: the version.
        keep: how many versions of that name stay, with this one; at least 1.

    Raises:
        SnapshotConflict: that version is recorded with other content.
    """
    known = {each.version: each for each in await versions(tx, snapshot.name)}
    if (same := known.get(snapshot.version)) is not None:
        if same.sha256 != snapshot.sha256:
            raise SnapshotConflict(
                f"version {snapshot.version!r} of snapshot {snapshot.name!r} is {same.sha256}"
            )
    else:
        await _insert(tx, snapshot)
    leaving = (await versions(tx, snapshot.name))[max(keep, 1) :]
    for each in leaving:
        await _delete(tx, each)
    return leaving


async def versions(tx: Transaction, name: str) -> list[FleetSnapshot]:
    """All versions of a snapshot, newest first."""
    query = select(snapshots).where(snapshots.c.name == name)
    return [_of(row) for row in await tx.rows(query.order_by(snapshots.c.ordinal.desc()))]


async def newest(tx: Transaction, name: str) -> FleetSnapshot:
    """The newest version.

    Raises:
        SnapshotNotFound: there is none.
    """
    found = await versions(tx, name)
    if not found:
        raise SnapshotNotFound(f"no snapshot {name!r} is recorded")
    return found[0]


async def names(tx: Transaction) -> list[str]:
    """Every name that there is a version of, sorted."""
    return sorted(row.name for row in await tx.rows(select(snapshots.c.name).distinct()))


async def remove(tx: Transaction, name: str, version: str) -> None:
    """Let go of one version; one that is gone is fine.

    Raises:
        SnapshotConflict: it is the newest.
    """
    found = await versions(tx, name)
    if found and found[0].version == version:
        raise SnapshotConflict(f"version {version!r} is the newest of snapshot {name!r}")
    for each in found:
        if each.version == version:
            await _delete(tx, each)


async def wanted(tx: Transaction) -> dict[ArtifactHash, int]:
    """The artifacts of all versions, with their sizes in bytes."""
    rows = await tx.rows(select(snapshots.c.sha256, snapshots.c.size_bytes))
    return {row.sha256: row.size_bytes for row in rows}


async def _insert(tx: Transaction, snapshot: FleetSnapshot) -> None:
    row = await tx.first(select(func.max(snapshots.c.ordinal).label("last")))
    last = 0 if row is None or row.last is None else row.last
    await tx.write(
        insert(snapshots).values(
            ordinal=last + 1,
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
