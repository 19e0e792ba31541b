from __future__ import annotations

from coordinator.database import generation, releases, staged
from coordinator.database.database import Database
from depot.artifact import Generation
from tests.coordinator.database.making import artifact, release, sha


async def test_each_coordinator_says_what_it_has_staged(database: Database) -> None:
    await database.run(staged.add, "c1", {sha("a"), sha("b")})
    await database.run(staged.add, "c1", {sha("b"), sha("c")})
    await database.run(staged.add, "c2", {sha("a")})
    assert await database.run(staged.by_coordinator) == {
        "c1": {sha("a"), sha("b"), sha("c")},
        "c2": {sha("a")},
    }


async def test_a_coordinator_that_starts_says_what_it_found(database: Database) -> None:
    await database.run(staged.add, "c1", {sha("a"), sha("b")})
    await database.run(staged.add, "c2", {sha("a")})
    await database.run(staged.replace, "c1", {sha("b"), sha("c")})
    assert await database.run(staged.by_coordinator) == {
        "c1": {sha("b"), sha("c")},
        "c2": {sha("a")},
    }


async def test_f2_what_is_staged_is_dropped_under_the_current_generation_only(
    database: Database,
) -> None:
    one = release("1.0", artifact("a"))
    await database.run(staged.add, "c1", {sha("a")})
    before = await database.run(generation.read)
    await database.run(releases.record, one)
    assert not await database.run(staged.drop, "c1", [sha("a")], before)
    assert await database.run(staged.by_coordinator) == {"c1": {sha("a")}}
    now = Generation(before + 1)
    assert await database.run(staged.drop, "c1", [sha("a"), sha("b")], now)
    assert await database.run(staged.by_coordinator) == {}


async def test_a_coordinator_that_is_gone_is_forgotten(database: Database) -> None:
    for name in ("c1", "c2"):
        await database.run(staged.add, name, {sha("a")})
    await database.run(staged.forget, "c1")
    assert await database.run(staged.by_coordinator) == {"c2": {sha("a")}}
