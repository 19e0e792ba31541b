from __future__ import annotations

import pytest

from coordinator.database import coordinators, staged
from coordinator.database.database import Database
from coordinator.errors import CoordinatorActive, CoordinatorNotFound
from coordinator.values import KnownCoordinator
from tests.coordinator.database.making import sha


async def test_a_coordinator_is_known_from_when_it_was_first_there_to_when_it_last_was(
    database: Database,
) -> None:
    assert await database.run(coordinators.note, "c1", "host-a", 100.0)
    assert not await database.run(coordinators.note, "c1", "host-b", 250.0)
    assert await database.run(coordinators.every) == (
        KnownCoordinator("c1", "host-b", 100.0, 250.0),
    )


async def test_one_that_only_staged_something_is_known_as_well(database: Database) -> None:
    await database.run(coordinators.note, "c2", "host", 100.0)
    await database.run(staged.add, "c1", {sha("a"), sha("b")})
    assert [each.id for each in await database.run(coordinators.every)] == ["c1", "c2"]
    forgotten = await database.run(coordinators.forget, "c1", gone_since_s=0.0)
    assert forgotten == KnownCoordinator("c1", None, None, None)
    assert [each.id for each in await database.run(coordinators.every)] == ["c2"]


async def test_what_a_forgotten_one_has_staged_counts_no_more_and_that_of_others_does(
    database: Database,
) -> None:
    for name in ("c1", "c2"):
        await database.run(coordinators.note, name, "host", 100.0)
        await database.run(staged.add, name, {sha("a")})
    await database.run(coordinators.forget, "c1", gone_since_s=100.0)
    assert await database.run(staged.by_coordinator) == {"c2": {sha("a")}}
    assert [each.id for each in await database.run(coordinators.every)] == ["c2"]


async def test_one_that_was_there_since_is_not_forgotten_unless_nobody_asks(
    database: Database,
) -> None:
    await database.run(coordinators.note, "c1", "host", 100.0)
    await database.run(staged.add, "c1", {sha("a")})
    with pytest.raises(CoordinatorActive, match="'c1' on 'host'"):
        await database.run(coordinators.forget, "c1", gone_since_s=99.0)
    assert await database.run(staged.by_coordinator) == {"c1": {sha("a")}}
    await database.run(coordinators.forget, "c1")
    assert await database.run(staged.by_coordinator) == {}


async def test_one_that_is_there_after_all_is_new(database: Database) -> None:
    await database.run(coordinators.note, "c1", "host", 100.0)
    await database.run(coordinators.forget, "c1")
    assert await database.run(coordinators.note, "c1", "host", 200.0)


async def test_a_coordinator_that_nobody_knows_is_not_found(database: Database) -> None:
    with pytest.raises(CoordinatorNotFound, match="'nobody'"):
        await database.run(coordinators.forget, "nobody")
