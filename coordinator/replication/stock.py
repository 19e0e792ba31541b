"""What the reports of all sleds come to: the inventory that the plan is made from. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from coordinator.replication.ports import FleetSnapshot
from coordinator.replication.report import SledReport
from coordinator.replication.values import Inventory, SledInventory
from depot.artifact import ArtifactHash

NOTHING: Final[frozenset[ArtifactHash]] = frozenset()


def take_stock(
    snapshot: FleetSnapshot,
    reports: Mapping[str, SledReport],
    *,
    staged_here: frozenset[ArtifactHash],
    staged_elsewhere: frozenset[ArtifactHash],
    arriving: Mapping[str, frozenset[ArtifactHash]],
    slow: Collection[str],
    paces: Mapping[str, float],
    before: Mapping[str, SledInventory],
) -> Inventory:
    """Put together what is where.

    Args:
        snapshot: the database.
        reports: of each sled in it.
        staged_here: what lies in this coordinator's staging.
        staged_elsewhere: what lies in that of others.
        arriving: by sled, what this coordinator is bringing it since an earlier pass.
        slow: sleds that nobody should have to wait for.
        paces: by sled, bytes per second of its fastest copies.
        before: the last inventory's sleds, by id.
    """
    return Inventory(
        generation=snapshot.generation,
        sizes=snapshot.sizes,
        sleds=tuple(
            _sled(
                snapshot,
                reports[sled.id],
                arriving.get(sled.id, NOTHING),
                before.get(sled.id),
                slow=sled.id in slow,
                pace=paces.get(sled.id),
            )
            for sled in snapshot.sleds
        ),
        staged_here=staged_here,
        staged_elsewhere=staged_elsewhere,
    )


def _sled(
    snapshot: FleetSnapshot,
    report: SledReport,
    arriving: frozenset[ArtifactHash],
    before: SledInventory | None,
    *,
    slow: bool,
    pace: float | None,
) -> SledInventory:
    if report.verdict is not None:
        held = {} if before is None else before.held
        return SledInventory(
            id=report.sled_id,
            held={artifact: held[artifact] for artifact in held if artifact in snapshot.sizes},
            set_aside=report.verdict.reason,
        )
    return SledInventory(
        id=report.sled_id,
        held=report.held,
        arriving=(arriving | report.copying) & snapshot.sizes.keys() - report.held.keys(),
        relays=report.relays and not slow,
        pace_bytes_per_s=pace,
        datasets=_datasets(report, before),
        unwell=report.unwell,
    )


def _datasets(report: SledReport, before: SledInventory | None) -> int:
    """How many copies of each artifact the sled keeps: it says so, or once had so many of one."""
    most = max(report.held.values(), default=0)
    return max(
        1, most, report.datasets, 0 if before is None or not before.held else before.datasets
    )
