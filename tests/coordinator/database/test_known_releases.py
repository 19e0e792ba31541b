"""What releases name is read once, and again for whatever another coordinator has changed."""

from __future__ import annotations

from coordinator.database import releases
from coordinator.database.database import Database
from coordinator.database.known_releases import READ_AT_ONCE, KnownReleases
from coordinator.database.transaction import Transaction
from coordinator.values import ReleaseState
from tests.coordinator.database.making import artifact, opened, release


async def test_only_what_was_not_known_is_read(database: Database) -> None:
    known = KnownReleases()
    await database.run(releases.record, release("1.0", artifact("a"), artifact("b")))
    (first,) = await database.run(known.every)
    await database.run(releases.record, release("2.0", artifact("a"), artifact("c")))
    again, second = await database.run(known.every)
    assert again.artifacts is first.artifacts
    assert (again, second) == await database.run(releases.every)


async def test_what_another_coordinator_changes_is_read_anew(
    database: Database, database_url: str
) -> None:
    known = KnownReleases()
    for version in ("1.0", "2.0", "3.0"):
        await database.run(releases.record, release(version, artifact("a"), artifact(version)))
    before = await database.run(known.every)
    async with await opened(database_url) as elsewhere:
        await elsewhere.run(releases.remove, "1.0")
        await elsewhere.run(releases.mark, incomplete=["2.0"])
        # Of the same file, and named otherwise: only the database knows that it is another one.
        await elsewhere.run(releases.remove, "3.0")
        await elsewhere.run(releases.record, release("3.0", artifact("b"), artifact("c")))
        found = await database.run(known.every)
        assert found == await elsewhere.run(releases.every)
    assert [each.state for each in found] == [ReleaseState.INCOMPLETE, ReleaseState.COMPLETE]
    assert found[0].artifacts is before[1].artifacts


async def test_what_was_forgotten_and_comes_again_is_read_again(database: Database) -> None:
    known = KnownReleases()
    for artifacts in ((artifact("a"),), (artifact("b"), artifact("a")), ()):
        await database.run(releases.record, release("1.0", *artifacts))
        assert await database.run(known.every) == await database.run(releases.every)
        await database.run(releases.remove, "1.0")
    assert await database.run(known.every) == ()


async def test_more_than_one_query_asks_for_are_read(database: Database) -> None:
    async def fill(tx: Transaction) -> None:
        for number in range(READ_AT_ONCE + 3):
            await releases.record(tx, release(f"{number}.0", artifact("a")))

    await database.run(fill)
    found = await database.run(KnownReleases().every)
    assert found == await database.run(releases.every)
    assert len(found) == READ_AT_ONCE + 3
