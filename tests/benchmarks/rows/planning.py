"""The plan of a large fleet: how long it takes to make, and what it takes to keep."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from random import Random
from typing import Final

from coordinator.replication.plan import plan
from coordinator.replication.values import Inventory, Plan, Policy, SledInventory
from depot.artifact import ArtifactHash, Generation
from tests.benchmarks.measure import MEBIBYTES, MIB, SECONDS, Row, alone, at_most
from tests.benchmarks.rig import Rig

TARGET_S: Final = 2.0
DATASETS: Final = 2

Holds = Callable[[int, int], bool]
"""Whether the n-th sled holds the n-th artifact."""


def planning(rig: Rig) -> list[Row]:
    """A fleet that has nothing, one that has half of everything, and one that has it all."""
    sleds, artifacts = rig.scale.sleds, rig.scale.fleet_artifacts
    # A seed, so that every run plans for the same fleet.
    luck = Random(sleds)
    empty = fleet_of(sleds, artifacts, lambda *_: False)
    half = fleet_of(sleds, artifacts, lambda *_: luck.random() < 0.5)
    full = fleet_of(sleds, artifacts, lambda *_: True)
    fleet = f"plan for {sleds:,} sleds, {artifacts:,} artifacts"
    return [
        _timed(rig, "plan", f"{fleet}: nobody has anything", empty),
        _timed(rig, "plan-half", f"{fleet}: half of it is missing", half),
        _timed(rig, "plan-full", f"{fleet}: nothing is missing", full),
        alone("plan-memory", f"{fleet}: memory, nobody has anything", (_peak(empty),), MEBIBYTES),
    ]


def _timed(rig: Rig, key: str, work: str, fleet: Inventory) -> Row:
    times_s = []
    for seed in range(rig.scale.rounds):
        began_s = time.perf_counter()
        _plan(fleet, seed)
        times_s.append(time.perf_counter() - began_s)
    return alone(key, work, times_s, SECONDS, target=at_most(TARGET_S, SECONDS))


def _peak(fleet: Inventory) -> float:
    tracemalloc.start()
    try:
        _plan(fleet, 0)
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def _plan(fleet: Inventory, seed: int) -> Plan:
    return plan(fleet, Policy(), Random(seed))


def fleet_of(sleds: int, artifacts: int, holds: Holds) -> Inventory:
    """A fleet whose artifacts are all wanted, and all staged."""
    wanted = [_artifact(number) for number in range(artifacts)]
    return Inventory(
        generation=Generation(1),
        sizes={artifact: (number % 64 + 1) * MIB for number, artifact in enumerate(wanted)},
        sleds=tuple(_sled(number, artifacts, holds) for number in range(sleds)),
        staged_here=frozenset(wanted),
    )


def _sled(number: int, artifacts: int, holds: Holds) -> SledInventory:
    # Hashes of its own, as they come out of each sled's answer.
    held = {_artifact(each): DATASETS for each in range(artifacts) if holds(number, each)}
    return SledInventory(id=f"sled-{number}", held=held)


def _artifact(number: int) -> ArtifactHash:
    return ArtifactHash.of(number.to_bytes(4, "big"))
