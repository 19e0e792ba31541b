"""Fleets and plans as tables of text: what is where, one sled a line, and what is to be done.

    os:64 app:1     an artifact's name and its size in MiB
a   2     .         good copies; none
b   >     1         arriving; a copy on one dataset of two
c-  .     .         a sled that does not relay
d!  2     .         a sled that is set aside
+   x     .         staged here
&   .     x         staged by another coordinator
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

from coordinator.replication.plan import plan
from coordinator.replication.values import (
    MIB,
    Copy,
    Inventory,
    Plan,
    Policy,
    SledInventory,
    Start,
)
from depot.artifact import ArtifactHash, Generation

GENERATION = Generation(7)


class InOrder(random.Random):
    """Leaves every choice between equals to the order of the sleds."""

    def shuffle(self, x: Any) -> None:
        pass

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return 0 if stop is None else start


def artifact(name: str) -> ArtifactHash:
    return ArtifactHash.of(name.encode())


def inventory(table: str) -> Inventory:
    """Read a fleet."""
    header, *lines = [line.split() for line in dedent(table).splitlines() if line.strip()]
    sizes = {artifact(name): int(mib) * MIB for name, mib in (cell.split(":") for cell in header)}
    rows = {name: dict(zip(sizes, cells, strict=True)) for name, *cells in lines}
    staged = {
        place: frozenset(each for each, cell in rows.pop(place, {}).items() if cell == "x")
        for place in "+&"
    }
    return Inventory(
        generation=GENERATION,
        sizes=sizes,
        sleds=tuple(_sled(name, cells) for name, cells in rows.items()),
        staged_here=staged["+"],
        staged_elsewhere=staged["&"],
    )


def _sled(name: str, cells: dict[ArtifactHash, str]) -> SledInventory:
    return SledInventory(
        id=name.rstrip("-!~"),
        held={each: int(cell) for each, cell in cells.items() if cell.isdigit()},
        arriving=frozenset(each for each, cell in cells.items() if cell == ">"),
        relays="-" not in name,
        pace_bytes_per_s=MIB if "~" in name else 100 * MIB,
        set_aside="it does not answer" if "!" in name else None,
    )


def planned(table: str, **policy: int) -> list[str]:
    """What is to be done for a fleet, a line each."""
    header = dedent(table).split("\n")[1]
    names = {artifact(name): name for name in (cell.split(":")[0] for cell in header.split())}
    return list(_rows(plan(inventory(table), Policy(**policy), InOrder()), names))


def lines(text: str) -> list[str]:
    return dedent(text).strip().splitlines()


def _rows(plan: Plan, names: dict[ArtifactHash, str]) -> Iterator[str]:
    yield from (f"put {names[put.artifact]} to {put.target}" for put in plan.puts)
    yield from (f"copy {names[copy.artifact]} {_copy(copy)}" for copy in plan.copies())
    for sled, artifacts in plan.healing.items():
        yield f"{sled} heals {' '.join(sorted(names[each] for each in artifacts))}"
    for kind in ("lost", "out_of_reach", "awaited", "droppable", "unwanted"):
        if found := getattr(plan, kind):
            yield f"{kind} {' '.join(sorted(names[each] for each in found))}"


def _copy(copy: Copy) -> str:
    when = "" if copy.start is Start.NOW else f" when {copy.after} {copy.start}"
    return f"to {copy.target} from {','.join(copy.sources)}{when}"
