"""What is done by itself: numbers, checkpoints, new shards."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from coordinator.database.database import Database
from coordinator.errors import JournalKeyMissing
from coordinator.journal.journal import Journal
from coordinator.journal.keeping import UNSIGNED_S, JournalKeeper, ShardLimits
from tests.coordinator.journal.telling import tell

LIMITS = ShardLimits(max_entries=3, max_age_s=3600.0, checkpoint_s=10.0)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def journal(database: Database, keys: Path, clock: Clock) -> Journal:
    return await Journal.open(database, keys, clock=clock)


async def test_what_was_told_is_numbered_and_signed(
    journal: Journal, database: Database, clock: Clock
) -> None:
    await tell(database, "a")
    await JournalKeeper(journal, LIMITS, clock=clock).look()
    active, signed = await journal.standing()
    assert signed is not None
    assert (active.size, signed.size) == (1, 1)


async def test_it_is_signed_again_after_a_while_when_there_is_more(
    journal: Journal, database: Database, clock: Clock
) -> None:
    keeper = JournalKeeper(journal, LIMITS, clock=clock)
    sizes = []
    for name, later_s in (("a", 0.0), ("b", 1.0), (None, 10.0), (None, 10.0)):
        clock.now_s += later_s
        if name is not None:
            await tell(database, name)
        await keeper.look()
        signed = (await journal.standing())[1]
        assert signed is not None
        sizes.append((signed.size, signed.time_s))
    assert sizes == [(1, 1000.0), (1, 1000.0), (2, 1011.0), (2, 1011.0)]


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_it_is_signed_although_what_was_dropped_cannot_be_deleted(
    journal: Journal, database: Database, sqlite_file: Path, clock: Clock
) -> None:
    await tell(database, "dropped")
    sealed = (await journal.rotate()).sealed
    assert sealed is not None
    await journal.drop(sealed.id, sealed.size, sealed.edge.root)
    await asyncio.to_thread(keep_nodes, sqlite_file)
    with pytest.raises(IntegrityError, match="nothing leaves here"):
        await JournalKeeper(journal, LIMITS, clock=clock).look()
    signed = (await journal.standing())[1]
    assert signed is not None
    assert signed.size == 2


def keep_nodes(database: Path) -> None:
    """Have a database refuse to delete any hash."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "CREATE TRIGGER kept BEFORE DELETE ON journal_nodes "
            "BEGIN SELECT RAISE(ABORT, 'nothing leaves here'); END"
        )


async def test_a_shard_that_is_full_is_sealed(
    journal: Journal, database: Database, clock: Clock
) -> None:
    keeper = JournalKeeper(journal, LIMITS, clock=clock)
    await tell(database, "a", "b", "c")
    await keeper.look()
    await keeper.look()
    assert [shard.size for shard in await journal.shards()] == [4, 0]


async def test_a_shard_that_is_old_is_sealed_and_an_empty_one_never_is(
    journal: Journal, database: Database, clock: Clock
) -> None:
    keeper = JournalKeeper(journal, LIMITS, clock=clock)
    await tell(database, "a")
    await keeper.look()
    for _ in range(2):
        clock.now_s += 3600.0
        await keeper.look()
    assert [shard.size for shard in await journal.shards()] == [2, 0]


async def test_without_the_key_it_is_left_to_whoever_has_it_but_not_for_ever(
    journal: Journal, database: Database, keys: Path, clock: Clock
) -> None:
    (shard,) = await journal.shards()
    await asyncio.to_thread((keys / f"{shard.id}.key").unlink)
    keeper = JournalKeeper(await Journal.open(database, keys, clock=clock), LIMITS, clock=clock)
    await tell(database, "a")
    await keeper.look()
    clock.now_s += UNSIGNED_S + 1.0
    with pytest.raises(JournalKeyMissing):
        await keeper.look()
