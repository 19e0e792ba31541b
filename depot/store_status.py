"""The store's status as one value, for people, dashboards and metrics. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from depot.artifact import ArtifactHash
from depot.config.keeper import LedgerKeeper
from depot.config.ledger import Standing
from depot.healing.assemble import remains_of
from depot.healing.progress import HealingStatus, Progress
from depot.healing.todo import Todo
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.quarantine.keeper import QuarantineKeeper
from depot.scrub.report import ScrubStatus
from depot.writing.arriving import RelayStatus

MAX_TROUBLES_NAMED: Final = 20
"""Artifacts that could not be healed; of one disk, a hundred thousand may be (S1)."""
_LEDGER_WARNINGS = {
    Standing.CONFLICTED: "the datasets hold different configs of the same generation: nothing is "
    "written or deleted until a higher generation arrives",
    Standing.BEHIND: "a newer config was accepted than any dataset here holds: nothing is written "
    "or deleted until the missing dataset returns or a higher generation arrives",
    Standing.UNKNOWN: "no ledger can be read: a first config is refused until every dataset is "
    "present ('sled-agent init --force' overrides)",
}


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """One dataset; sizes in bytes.

    Attributes:
        device: `major:minor` of its filesystem.
        full: the last write found no room.
        available_bytes: what a write could still reserve: the quota's rest or the disk's.
        artifacts: files named by a hash, wanted or not.
        quarantined: damaged copies that were set aside; their bytes are not among the used ones.
        in_doubt: those of them that do not count before they were verified again.
        worker_pid: the process that works on it; None: there is none, or no process is used.
        worker_hangs: a call to the device has had its time and has not ended.
        left_behind: processes that were given up, and hang in the kernel.
    """

    path: str
    dataset_id: str | None
    device: str | None
    mounted: bool
    state: Literal["healthy", "suspect", "missing", "released"]
    full: bool
    last_error: str | None
    quota_bytes: int
    used_bytes: int
    reserved_bytes: int
    available_bytes: int
    artifacts: int
    quarantined: int = 0
    quarantined_bytes: int = 0
    in_doubt: int = 0
    worker_pid: int | None = None
    worker_hangs: bool = False
    left_behind: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The whole store.

    Attributes:
        epoch: of the ledger; raised by each reset.
        generation: the highest that was accepted; None: none in this epoch.
        generation_certain: no dataset that is away can know a higher one.
        warnings: sentences for an operator.
        missing: artifacts of the config without any good copy.
        deletions_held_until_s: Unix time before which nothing is deleted (D4); 0: no such time.
        scrub: how the background verification is.
        relay: what is read while it arrives.
    """

    sled_id: str | None
    epoch: int
    generation: int | None
    config_digest: str | None
    ledger: Literal["clear", "empty", "conflicted", "behind", "unknown"]
    generation_certain: bool
    datasets: tuple[DatasetStatus, ...]
    under_replicated: tuple[ArtifactHash, ...]
    warnings: tuple[str, ...]
    puts_running: int
    missing: tuple[ArtifactHash, ...] = ()
    deletions_held_until_s: float = 0.0
    scrub: ScrubStatus | None = None
    healing: HealingStatus = field(default_factory=HealingStatus)
    relay: RelayStatus = field(default_factory=RelayStatus)


def status_of(
    mirrors: MirrorSet,
    keeper: LedgerKeeper,
    todo: Todo,
    progress: Progress,
    quarantine: QuarantineKeeper,
    puts_running: int,
    scrub: ScrubStatus,
    relay: RelayStatus,
) -> StoreStatus:
    """Collect the status from memory; no I/O."""
    resolved = keeper.resolved
    floor = resolved.floor
    lacks = todo.lacks()
    return StoreStatus(
        sled_id=mirrors.sled_id,
        epoch=floor.epoch,
        generation=None if floor.generation < 0 else floor.generation,
        config_digest=None if floor.digest is None else str(floor.digest),
        ledger=resolved.standing.value,
        generation_certain=resolved.certain,
        datasets=tuple(_dataset_status(mirror, quarantine) for mirror in mirrors.all),
        under_replicated=lacks.some,
        warnings=(*_warnings(mirrors, keeper, progress, quarantine), *scrub.warnings),
        puts_running=puts_running,
        missing=lacks.all,
        deletions_held_until_s=keeper.deletions_held_until_s(),
        scrub=scrub,
        healing=progress.status(),
        relay=relay,
    )


def _dataset_status(mirror: Mirror, quarantine: QuarantineKeeper) -> DatasetStatus:
    quota = mirror.quota
    dataset = mirror.dataset if mirror.readable else None
    free_bytes = mirror.space.free_bytes if mirror.space else 0
    return DatasetStatus(
        path=str(mirror.path),
        dataset_id=dataset.marker.dataset_id if dataset else None,
        device=_device_name(dataset.device_id) if dataset else None,
        mounted=dataset is not None,
        state="released" if mirror.released else mirror.state.value,
        full=mirror.full,
        last_error=mirror.last_error,
        quota_bytes=quota.limit_bytes,
        used_bytes=quota.used_bytes,
        reserved_bytes=quota.reserved_bytes,
        available_bytes=min(quota.available_bytes, free_bytes),
        artifacts=len(mirror.artifacts),
        quarantined=quarantine.count(mirror),
        quarantined_bytes=quarantine.used_bytes(mirror),
        in_doubt=len(mirror.doubts),
        worker_pid=mirror.host.pid,
        worker_hangs=mirror.host.hangs(),
        left_behind=mirror.host.left_behind,
    )


def _device_name(device_id: int) -> str:
    return f"{os.major(device_id)}:{os.minor(device_id)}"


def _warnings(
    mirrors: MirrorSet, keeper: LedgerKeeper, progress: Progress, quarantine: QuarantineKeeper
) -> Iterator[str]:
    if warning := _LEDGER_WARNINGS.get(keeper.resolved.standing):
        yield warning
    if not keeper.resolved.certain:
        yield "a dataset that is away may know a higher generation"
    yield from keeper.problems
    if mirrors.share_a_device():
        yield "two datasets are on one device: its failure takes both copies"
    for mirror in mirrors.readable():
        if quarantine.used_bytes(mirror) > quarantine.limit_bytes:
            yield (
                f"the quarantine of {mirror.path} is over its bound: it keeps the last copies of "
                "artifacts that nobody has a good copy of"
            )
    yield from _troubles(progress, mirrors, quarantine)


def _troubles(
    progress: Progress, mirrors: MirrorSet, quarantine: QuarantineKeeper
) -> Iterator[str]:
    troubles, more = progress.troubles(MAX_TROUBLES_NAMED)
    for artifact, reason, is_lost in troubles:
        if is_lost:
            is_left = remains_of(artifact, mirrors, quarantine)
            left = "; what is left of it stays in quarantine" if is_left else ""
            yield f"{artifact} is lost: {reason}{left}"
        else:
            yield f"{artifact} cannot be re-mirrored: {reason}"
    if more:
        yield f"{more} more artifacts are lost or cannot be re-mirrored"
