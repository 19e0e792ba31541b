"""The release that the fleet is to run, and those that were it before."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from coordinator.database.tables import releases, target_releases
from coordinator.database.transaction import Transaction
from coordinator.errors import ReleaseNotFound, ReleaseUnusable
from coordinator.values import ReleaseState, Told


async def read(tx: Transaction) -> str | None:
    """The target's version, or None when none was ever chosen."""
    return next(iter(await recent(tx)), None)


async def recent(tx: Transaction) -> tuple[str, ...]:
    """The target's version, and then those of earlier targets that are recorded, newest first."""
    rows = await tx.rows(
        select(target_releases.c.version).order_by(target_releases.c.ordinal.desc())
    )
    return tuple(row.version for row in rows)


async def choose(tx: Transaction, version: str, now_s: float) -> None:
    """Make a release the target; for the one that is it, nothing changes.

    Raises:
        ReleaseNotFound: it is not recorded, or not any more.
        ReleaseUnusable: one of its artifacts is nowhere.
    """
    release = await tx.first(select(releases.c.state).where(releases.c.version == version))
    if release is None:
        raise ReleaseNotFound(f"no release {version!r} is recorded")
    if ReleaseState(release.state) is ReleaseState.INCOMPLETE:
        raise ReleaseUnusable(f"release {version!r} has lost an artifact; upload it again first")
    before = await read(tx)
    if before == version:
        return
    ordinals = await tx.rows(select(target_releases.c.ordinal))
    await tx.write(delete(target_releases).where(target_releases.c.version == version))
    await tx.write(
        insert(target_releases).values(
            version=version,
            ordinal=1 + max((row.ordinal for row in ordinals), default=0),
            time_set=now_s,
        )
    )
    data = {} if before is None else {"before": before}
    await tx.tell(Told("fleet.target_set", release=version, data=data))
