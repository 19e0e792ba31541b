"""All that a pass over the fleet goes by, read in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from coordinator.database import generation, pins, releases, sleds, snapshots, staged, target
from coordinator.database.transaction import Transaction
from coordinator.values import FleetSnapshot, Release, Sled
from depot.artifact import ArtifactHash, Generation


@dataclass(frozen=True, slots=True)
class DatabaseSnapshot:
    """What the database said at one instant.

    Attributes:
        generation: of the sets of artifacts below.
        wanted: on every sled, because a release has it or a snapshot is it; with its size in bytes.
        kept: by sled, what only that sled is to hold besides: it has pinned it.
        staged: by coordinator.
        sleds: in service, by their ids.
        releases: by their versions.
        target: the version of the target release.
        snapshots: all versions of all of them, newest first.
    """

    generation: Generation
    wanted: Mapping[ArtifactHash, int]
    kept: Mapping[str, frozenset[ArtifactHash]]
    staged: Mapping[str, frozenset[ArtifactHash]]
    sleds: tuple[Sled, ...]
    releases: tuple[Release, ...]
    target: str | None
    snapshots: tuple[FleetSnapshot, ...]


async def read(
    tx: Transaction, every: Callable[[Transaction], Awaitable[tuple[Release, ...]]] = releases.every
) -> DatabaseSnapshot:
    """Read all of it; `every` reads the releases."""
    recorded, held = await every(tx), await snapshots.every(tx)
    wanted = {
        artifact.sha256: artifact.size_bytes
        for release in recorded
        for artifact in release.artifacts
    } | {each.sha256: each.size_bytes for each in held}
    kept = {sled_id: its - wanted.keys() for sled_id, its in (await pins.every(tx)).items()}
    return DatabaseSnapshot(
        generation=await generation.read(tx),
        wanted=wanted,
        kept={sled_id: its for sled_id, its in kept.items() if its},
        staged=await staged.by_coordinator(tx),
        sleds=await sleds.in_service(tx),
        releases=recorded,
        target=await target.read(tx),
        snapshots=tuple(held),
    )
