"""The releases, and under which names each has its artifacts.

What sleds are to hold is the artifacts of all releases together; so recording a release and
removing one each lead to a new generation (F3).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, delete, exists, func, insert, select, true, update

from coordinator.database import generation
from coordinator.database.naming import (
    Name,
    artifact_of,
    hash_of,
    name_of,
    named,
    require_compatible,
    require_same,
)
from coordinator.database.tables import artifacts, release_artifacts, releases, target_releases
from coordinator.database.target import read as read_target
from coordinator.database.transaction import Transaction
from coordinator.errors import ReleaseNotFound, TargetRelease
from coordinator.values import Release, ReleaseArtifact, ReleaseState, Told
from depot.artifact import ArtifactHash, Generation

PAGE_ARTIFACTS: Final = 20_000
"""What a page has, unless one release alone has more: some 10 MiB of JSON, which a client takes."""
_EVERY: Final = true()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A release as it is recorded, and whether that was done just now."""

    release: Release
    inserted: bool


async def record(tx: Transaction, release: Release) -> Recorded:
    """Record a release whose artifacts are staged.

    Of one that is recorded already, only the state changes: its artifacts were supplied again.

    Raises:
        ReleaseConflict: its version, or the name of one of its artifacts, is taken by other
            contents.
    """
    # In threads: there may be some ten thousand artifacts.
    sent = await asyncio.to_thread(named, release.version, release.artifacts)
    hashes = {name: artifact.sha256 for name, artifact in sent.items()}
    if (known := await _find(tx, release.version)) is not None:
        await asyncio.to_thread(_require_same, known, hashes)
        await _set_state(tx, release.version, ReleaseState.COMPLETE)
        await tx.tell(_about("fleet.release_uploaded", known, {"again": True}))
        return Recorded(replace(known, state=ReleaseState.COMPLETE), inserted=False)
    await _insert(tx, release, sent)
    await _check_against_others(tx, release.version, hashes)
    recorded = await get(tx, release.version)
    await tx.tell(
        _about(
            "fleet.release_uploaded",
            recorded,
            {"allowed_expired": True} if release.allowed_expired else {},
        )
    )
    return Recorded(recorded, inserted=True)


async def get(tx: Transaction, version: str) -> Release:
    """Raises ReleaseNotFound when none of this version is recorded."""
    if (release := await _find(tx, version)) is None:
        raise ReleaseNotFound(f"no release {version!r} is recorded")
    return release


async def every(tx: Transaction) -> tuple[Release, ...]:
    """All releases, by their versions."""
    return await _read(tx, _EVERY)


async def without_artifacts(
    tx: Transaction, which: ColumnElement[bool] = _EVERY
) -> tuple[Release, ...]:
    """Releases by their versions, as if they had no artifacts: those take longest to read."""
    found = map(_release, await tx.rows(select(releases).where(which)))
    return tuple(sorted(found, key=lambda release: release.version))


async def artifacts_of(
    tx: Transaction, which: ColumnElement[bool]
) -> Mapping[str, tuple[ReleaseArtifact, ...]]:
    """The artifacts of releases, by version; a release without any is left out."""
    names = (
        select(release_artifacts, artifacts.c.size_bytes)
        .join(artifacts)
        .join(releases)
        .where(which)
        .order_by(release_artifacts.c.position)
    )
    found: dict[str, list[ReleaseArtifact]] = defaultdict(list)
    async for some in tx.batches(names):
        for row in some:
            name = Name(row.name, row.version, row.qualifier)
            found[row.release_version].append(artifact_of(name, row.sha256, row.size_bytes))
    return {version: tuple(its) for version, its in found.items()}


async def page(
    tx: Transaction, after: str | None, limit: int, *, most_artifacts: int = PAGE_ARTIFACTS
) -> tuple[tuple[Release, ...], str | None]:
    """Some releases in the order of their versions, and what to go on after; None at the end.

    A page ends before the release with which it would have more than `most_artifacts`, but has at
    least one.
    """
    versions = select(releases.c.version).order_by(releases.c.version).limit(limit + 1)
    if after is not None:
        versions = versions.where(releases.c.version > after)
    found = [row.version for row in await tx.rows(versions)]
    on_it = _that_fit(found[:limit], await _counts(tx, found[:limit]), most_artifacts)
    some = await _read(tx, releases.c.version.in_(on_it))
    in_this_order = {version: at for at, version in enumerate(found)}
    ordered = tuple(sorted(some, key=lambda release: in_this_order[release.version]))
    return ordered, on_it[-1] if len(found) > len(on_it) else None


async def _counts(tx: Transaction, versions: Collection[str]) -> Mapping[str, int]:
    """By version, how many artifacts a release names."""
    version = release_artifacts.c.release_version
    counted = select(version, func.count().label("named")).where(version.in_(versions))
    return {row[0]: row.named for row in await tx.rows(counted.group_by(version))}


def _that_fit(versions: Sequence[str], counts: Mapping[str, int], most: int) -> Sequence[str]:
    """The first of them, as many as have no more artifacts than that together; at least one."""
    together = accumulate(counts.get(version, 0) for version in versions)
    fitting = sum(1 for so_far in together if so_far <= most)
    return versions[: max(1, fitting)]


async def remove(tx: Transaction, version: str, *, pruned: bool = False) -> Release:
    """Forget a release; what no other one has is no longer wanted.

    Args:
        tx: the transaction.
        version: of the release.
        pruned: nobody asked for this one by its name.

    Raises:
        ReleaseNotFound: none of this version is recorded.
        TargetRelease: it is the target.
    """
    release = await get(tx, version)
    if await read_target(tx) == version:
        raise TargetRelease(f"release {version!r} is the fleet's target; choose another one first")
    await tx.write(delete(target_releases).where(target_releases.c.version == version))
    await tx.write(delete(release_artifacts).where(release_artifacts.c.release_version == version))
    await tx.write(delete(releases).where(releases.c.version == version))
    referenced = exists().where(release_artifacts.c.sha256 == artifacts.c.sha256)
    await tx.write(delete(artifacts).where(~referenced))
    await tx.tell(_about("fleet.release_pruned" if pruned else "fleet.release_removed", release))
    return release


async def mark(
    tx: Transaction, *, incomplete: Collection[str] = (), complete: Collection[str] = ()
) -> None:
    """Say which releases have an artifact that is nowhere, and which have none such (any more).

    A release that is not recorded any more is left out.
    """
    wanted = dict.fromkeys(complete, ReleaseState.COMPLETE)
    wanted |= dict.fromkeys(incomplete, ReleaseState.INCOMPLETE)
    for row in await tx.rows(select(releases.c.version, releases.c.state)):
        state = wanted.get(row.version, ReleaseState(row.state))
        if row.state != state.value:
            await _set_state(tx, row.version, state)


async def _insert(tx: Transaction, release: Release, sent: dict[Name, ReleaseArtifact]) -> None:
    await tx.write(
        insert(releases).values(
            version=release.version,
            sha256=release.sha256,
            file_name=release.file_name,
            time_created=release.time_created_s,
            allowed_expired=release.allowed_expired,
            state=release.state.value,
            generation=0,
        )
    )
    sizes = {artifact.sha256: artifact.size_bytes for artifact in sent.values()}
    known = {row.sha256 for row in await tx.rows(select(artifacts.c.sha256))}
    await tx.write(
        insert(artifacts),
        (
            {"sha256": sha256, "size_bytes": size_bytes}
            for sha256, size_bytes in sizes.items()
            if sha256 not in known
        ),
    )
    await tx.write(
        insert(release_artifacts),
        (
            {
                **name._asdict(),
                "name_sha256": hash_of(name),
                "release_version": release.version,
                "position": position,
                "sha256": artifact.sha256,
            }
            for position, (name, artifact) in enumerate(sent.items())
        ),
    )
    # Only now: what is wanted has changed with the rows above, and that raised it.
    now = int(await generation.read(tx))
    await tx.write(
        update(releases).where(releases.c.version == release.version).values(generation=now)
    )


async def _check_against_others(
    tx: Transaction, version: str, sent: dict[Name, ArtifactHash]
) -> None:
    """Compare a release that was just inserted with all others; what is raised undoes that."""
    its, theirs = release_artifacts.alias("its"), release_artifacts.alias("theirs")
    different = (
        select(theirs)
        .join(its, its.c.name_sha256 == theirs.c.name_sha256)
        .where(
            its.c.release_version == version,
            theirs.c.release_version != version,
            theirs.c.sha256 != its.c.sha256,
        )
    )
    others: dict[str, dict[Name, ArtifactHash]] = defaultdict(dict)
    for row in await tx.rows(different):
        others[row.release_version][Name(row.name, row.version, row.qualifier)] = row.sha256
    for other in sorted(others):
        require_compatible(version, other, others[other], sent)


async def _set_state(tx: Transaction, version: str, state: ReleaseState) -> None:
    await tx.write(update(releases).where(releases.c.version == version).values(state=state.value))


async def _find(tx: Transaction, version: str) -> Release | None:
    return next(iter(await _read(tx, releases.c.version == version)), None)


async def _read(tx: Transaction, which: ColumnElement[bool]) -> tuple[Release, ...]:
    names = await artifacts_of(tx, which)
    return tuple(
        replace(release, artifacts=names.get(release.version, ()))
        for release in await without_artifacts(tx, which)
    )


def _release(row: Row[Any]) -> Release:
    return Release(
        version=row.version,
        sha256=row.sha256,
        file_name=row.file_name,
        time_created_s=row.time_created,
        allowed_expired=row.allowed_expired,
        state=ReleaseState(row.state),
        artifacts=(),
        generation=Generation(row.generation),
    )


def _about(kind: str, release: Release, more: Mapping[str, object] = MappingProxyType({})) -> Told:
    return Told(
        kind,
        release=release.version,
        artifacts=tuple(artifact.sha256 for artifact in release.artifacts),
        data={"sha256": str(release.sha256), "file_name": release.file_name, **more},
    )


def _require_same(known: Release, sent: Mapping[Name, ArtifactHash]) -> None:
    recorded = {name_of(artifact): artifact.sha256 for artifact in known.artifacts}
    require_same(known.version, recorded, sent)
