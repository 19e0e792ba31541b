"""How large everything is: as the targets have it, or as small as shows that it still works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.benchmarks.measure import MIB

TARGET_BYTES: Final = 512 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The sizes of one run.

    Attributes:
        size_bytes: of the large artifact.
        rounds: pairs of runs of each row.
        small_puts: artifacts of 1 KiB in one run.
        load_s: how long small GETs are asked for.
        max_nodes: that pass an artifact around.
        fan_out_bytes: of the artifact that they pass around.
        idle, slow: connections beside a normal GET.
        artifacts: that an agent starts with.
        sleds, fleet_artifacts: of the fleet that a coordinator looks after.
        journal_entries: of the long journal.
        journal_events: that are appended in one run.
    """

    size_bytes: int
    rounds: int
    small_puts: int
    fan_out_bytes: int
    artifacts: int
    load_s: int = 2
    max_nodes: int = 32
    idle: int = 500
    slow: int = 200
    sleds: int = 1_000
    fleet_artifacts: int = 1_000
    journal_entries: int = 1_000_000
    journal_events: int = 500


def full(size_bytes: int, rounds: int) -> Scale:
    """As the targets have it; with a smaller large artifact, fewer small ones as well."""
    share = min(1.0, size_bytes / TARGET_BYTES)
    return Scale(
        size_bytes=size_bytes,
        rounds=rounds,
        small_puts=max(100, int(10_000 * share)),
        fan_out_bytes=min(size_bytes, 128 * MIB),
        artifacts=max(100, int(100_000 * share)),
        journal_entries=max(10_000, int(1_000_000 * share)),
    )


def tiny() -> Scale:
    """As small as shows that it works; no number of it means anything."""
    return Scale(
        size_bytes=2 * MIB,
        rounds=1,
        small_puts=100,
        load_s=1,
        max_nodes=2,
        fan_out_bytes=2 * MIB,
        idle=20,
        slow=5,
        artifacts=200,
        sleds=20,
        fleet_artifacts=20,
        journal_entries=3_000,
        journal_events=20,
    )
