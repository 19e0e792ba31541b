from __future__ import annotations

import pytest

from coordinator.database import generation, pins, releases
from coordinator.database.database import Database
from coordinator.errors import SledNotFound
from depot.artifact import ArtifactHash
from tests.coordinator.database.making import add_sled, artifact, release, sha


@pytest.fixture
async def database(database: Database) -> Database:
    await database.run(add_sled, "s1")
    await database.run(add_sled, "s2")
    await database.run(releases.record, release("1.0", artifact("a")))
    return database


async def keep(database: Database, sled_id: str, *pinned: ArtifactHash) -> frozenset[ArtifactHash]:
    return await database.run(pins.keep, sled_id, pinned)


async def test_f3_a_pin_outside_the_releases_is_kept_in_a_new_generation(
    database: Database,
) -> None:
    assert await keep(database, "s1", sha("a"), sha("x")) == {sha("x")}
    assert await database.run(pins.every) == {"s1": {sha("x")}}
    assert await database.run(generation.read) == 3


async def test_a_pin_of_what_a_release_has_makes_no_difference(database: Database) -> None:
    assert await keep(database, "s1", sha("a")) == frozenset()
    assert await database.run(pins.every) == {}
    assert await database.run(generation.read) == 2


async def test_pins_that_did_not_change_lead_to_no_new_generation(database: Database) -> None:
    for _ in range(3):
        await keep(database, "s1", sha("x"), sha("y"))
    assert await database.run(generation.read) == 3


async def test_f3_what_is_unpinned_is_not_kept_any_more(database: Database) -> None:
    await keep(database, "s1", sha("x"), sha("y"))
    await keep(database, "s2", sha("x"))
    assert await keep(database, "s1", sha("y")) == {sha("y")}
    assert await database.run(pins.every) == {"s1": {sha("y")}, "s2": {sha("x")}}
    assert await database.run(generation.read) == 5


async def test_f3_what_was_pinned_when_its_release_was_removed_is_kept(database: Database) -> None:
    await keep(database, "s1", sha("a"))
    await database.run(releases.remove, "1.0")
    assert await keep(database, "s1", sha("a")) == {sha("a")}
    assert await database.run(generation.read) == 4


async def test_a_pin_that_a_release_came_to_have_is_kept_until_it_is_unpinned(
    database: Database,
) -> None:
    await keep(database, "s1", sha("x"))
    await database.run(releases.record, release("2.0", artifact("x")))
    before = await database.run(generation.read)
    assert await keep(database, "s1", sha("x")) == {sha("x")}
    assert await database.run(generation.read) == before
    assert await keep(database, "s1") == frozenset()


async def test_pins_of_a_sled_that_does_not_exist_are_refused(database: Database) -> None:
    with pytest.raises(SledNotFound, match="s9"):
        await keep(database, "s9", sha("x"))
