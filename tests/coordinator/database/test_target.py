from __future__ import annotations

import pytest

from coordinator.database import generation, releases, target
from coordinator.database.database import Database
from coordinator.errors import ReleaseNotFound, ReleaseUnusable
from tests.coordinator.database.making import artifact, release


@pytest.fixture
async def database(database: Database) -> Database:
    for version in ("1", "2", "3"):
        one = release(version, artifact(version))
        await database.run(releases.record, one)
    return database


async def choose(database: Database, version: str) -> None:
    await database.run(target.choose, version, 1.0)


async def test_a_fleet_has_no_target_until_one_is_chosen(database: Database) -> None:
    assert await database.run(target.read) is None
    await choose(database, "2")
    assert await database.run(target.read) == "2"


async def test_earlier_targets_are_remembered_newest_first(database: Database) -> None:
    for version in ("1", "2", "2", "3", "1"):
        await choose(database, version)
    assert await database.run(target.recent) == ("1", "3", "2")


async def test_a_release_that_is_unknown_removed_or_incomplete_cannot_be_the_target(
    database: Database,
) -> None:
    await choose(database, "1")
    await database.run(releases.remove, "2")
    await database.run(releases.mark, incomplete={"3"})
    for version in ("9", "2"):
        with pytest.raises(ReleaseNotFound, match=version):
            await choose(database, version)
    with pytest.raises(ReleaseUnusable, match="upload it again"):
        await choose(database, "3")
    assert await database.run(target.read) == "1"


async def test_the_target_changes_nothing_of_what_sleds_hold(database: Database) -> None:
    before = await database.run(generation.read)
    await choose(database, "1")
    assert await database.run(generation.read) == before
