"""F3 with two coordinators that change the fleet at once, in an order nobody knows."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from coordinator.database import pins, releases, snapshot
from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from depot.artifact import ArtifactHash, Generation
from depot.errors import DepotError
from tests.coordinator.database.making import add_sled, artifact, config_of, opened, release, sha

Seen = tuple[Generation, tuple[frozenset[ArtifactHash], ...]]
SLEDS = ("s1", "s2")


async def look(tx: Transaction) -> Seen:
    found = await snapshot.read(tx)
    return found.generation, tuple(config_of(found, sled).artifacts for sled in SLEDS)


async def change(tx: Transaction, seed: str) -> Seen:
    rng = random.Random(seed)  # What is tried again is to do the same again.
    version, name = rng.choice("123"), rng.choice("abc")
    match rng.randrange(4):
        case 0:
            await releases.remove(tx, version)
        case 1:
            await pins.keep(tx, rng.choice(SLEDS), [sha(name), sha("x")])
        case _:
            await releases.record(tx, release(version, artifact(name), artifact(f"of {version}")))
    return await look(tx)


async def work(database: Database, seed: int) -> list[Seen]:
    seen = []
    for number in range(12):
        with suppress(DepotError):
            seen.append(await database.run(change, f"{seed}-{number}"))
    return seen


@pytest.mark.parametrize("seed", [1, 2])
async def test_f3_whoever_changes_it_a_generation_is_of_one_set_for_each_sled(
    database: Database, database_url: str, seed: int
) -> None:
    for sled_id in SLEDS:
        await database.run(add_sled, sled_id)
    async with await opened(database_url) as other:
        seen = await asyncio.gather(work(database, seed), work(other, seed + 100))
    assert all(len(its) > 2 for its in seen)
    assert all(its == sorted(its, key=lambda each: each[0]) for its in seen)
    everything = {generation: configs for its in seen for generation, configs in its}
    assert all(everything[generation] == configs for its in seen for generation, configs in its)
    last = await database.run(look)
    assert last[0] == max(everything)
    assert last[1] == everything[last[0]]
