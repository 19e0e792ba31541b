"""Removing releases that nobody needs any more: which ones, and doing it.

Rules kept here:
- The target release, so many earlier ones, and so many of the newest uploads stay.
- A release with an artifact that a sled has pinned stays. So does, while a sled in service does not
  say what it has pinned, whatever was recorded when it last confirmed a config: nothing else can be
  pinned there. An operator who knows better expunges the sled, or removes the release.
- Nothing is removed while an upload runs here: it may be of what would go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from coordinator.database import releases, sleds, target
from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.errors import UploadRunning
from coordinator.replication.agents import Agents
from coordinator.replication.cycle import Cycle
from coordinator.uploads.desk import UploadDesk
from coordinator.values import Release, Sled
from depot.artifact import ArtifactHash
from depot.errors import DepotError

INTERVAL_S: Final = 300.0
_ASK_TIMEOUT_S: Final = 15.0
_MAX_ASKED: Final = 16

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """How many releases stay beside the target: earlier targets, and newest uploads."""

    previous_targets: int
    newest: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, and why the others stay; versions, newest uploads first."""

    removed: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]


def judge(
    recorded: Collection[Release],
    targets: Sequence[str],
    pinned: Collection[ArtifactHash],
    retention: Retention,
    silent: Collection[Sled] = (),
) -> Pruned:
    """Decide which releases go.

    Args:
        recorded: all of them.
        targets: the target's version, and then those of earlier ones, newest first.
        pinned: by any sled.
        retention: how many stay.
        silent: sleds in service that did not say what they have pinned.
    """
    # Not by their times: these are of the coordinators' clocks, which need not agree.
    ordered = sorted(recorded, key=lambda each: (-each.generation, each.version))
    reasons: dict[str, str] = {}
    for version in targets[1 : 1 + retention.previous_targets]:
        reasons[version] = "an earlier target"
    for release in ordered[: retention.newest]:
        reasons.setdefault(release.version, "among the newest uploads")
    for release in ordered:
        if any(artifact.sha256 in pinned for artifact in release.artifacts):
            reasons.setdefault(release.version, "a sled has pinned an artifact of it")
        elif (sled := _may_have_pinned(silent, release)) is not None:
            reasons.setdefault(
                release.version, f"sled {sled.id!r} does not say whether it has pinned any of it"
            )
    for version in targets[:1]:
        reasons[version] = "the target"
    versions = [release.version for release in ordered]
    return Pruned(
        removed=tuple(version for version in versions if version not in reasons),
        kept=tuple((version, reasons[version]) for version in versions if version in reasons),
    )


def _may_have_pinned(silent: Collection[Sled], release: Release) -> Sled | None:
    """A sled that had the release in its config, and so could pin of it."""
    had = (
        sled
        for sled in silent
        if sled.generation is not None and release.generation <= sled.generation
    )
    return next(had, None)


class PruneDesk:
    """Removes releases by a retention."""

    def __init__(self, database: Database, desk: UploadDesk, cycle: Cycle, agents: Agents) -> None:
        self._database = database
        self._desk = desk
        self._cycle = cycle
        self._agents = agents

    async def prune(self, retention: Retention, *, dry_run: bool = False) -> Pruned:
        """Remove what may go, or only say what would.

        Raises:
            UploadRunning: it is to be tried later.
            DatabaseUnavailable.
        """
        if self._desk.running:
            raise UploadRunning("an upload is running, which may be of what would be removed")
        pinned = await self._pinned(await self._database.run(sleds.in_service))
        work = partial(_prune, said=pinned, retention=retention, dry_run=dry_run)
        pruned = await self._database.run(work)
        if pruned.removed and not dry_run:
            _log.info("releases pruned", versions=list(pruned.removed))
            self._cycle.wake()
        return pruned

    async def _pinned(self, asked: Sequence[Sled]) -> dict[str, frozenset[ArtifactHash]]:
        """What each sled has pinned, by id; those that did not say are left out."""
        slots = asyncio.Semaphore(_MAX_ASKED)

        async def pins_of(sled: Sled) -> frozenset[ArtifactHash] | None:
            async with slots:
                return await self._pins_of(sled)

        said = await asyncio.gather(*map(pins_of, asked))
        return {sled.id: its for sled, its in zip(asked, said, strict=True) if its is not None}

    async def _pins_of(self, sled: Sled) -> frozenset[ArtifactHash] | None:
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                pins = await self._agents(sled).pins()
        except (DepotError, TimeoutError) as error:
            _log.warning("a sled did not say what it has pinned", sled=sled.id, error=str(error))
            return None
        return frozenset().union(*pins.values())


async def _prune(
    tx: Transaction,
    *,
    said: Mapping[str, frozenset[ArtifactHash]],
    retention: Retention,
    dry_run: bool,
) -> Pruned:
    pruned = judge(
        await releases.every(tx),
        await target.recent(tx),
        frozenset().union(*said.values()),
        retention,
        # Also those that came while the others were asked.
        [sled for sled in await sleds.in_service(tx) if sled.id not in said],
    )
    for version in () if dry_run else pruned.removed:
        await releases.remove(tx, version, pruned=True)
    return pruned
