"""Sleds are sent the journal's checkpoints, and none of them keeps the others waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.checkpoints import KeptCheckpoint, taken
from coordinator.database.database import Database
from coordinator.journal.checkpoints import Checkpoint, opened, signed
from coordinator.journal.journal import Journal
from coordinator.journal.keys import KeyDirectory
from coordinator.journal.witnessing import Witnesses
from coordinator.values import Sled
from depot.errors import InvalidRequest, Refused, Unreachable
from tests.coordinator.database.making import add_sled
from tests.coordinator.journal.telling import tell

BEGUN = 3
"""Two sleds were added, and something was told."""


class Keeper:
    """A sled, as it keeps checkpoints."""

    def __init__(self) -> None:
        self.kept: tuple[KeptCheckpoint, ...] = ()
        self.asked = 0
        self.fails: Exception | None = None

    async def put_checkpoint(self, note: str) -> None:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        try:
            self.kept = taken(self.kept, KeptCheckpoint.parse(note))
        except InvalidRequest as error:
            raise Refused("http://s1", 400, remote_code=error.code) from error

    @property
    def sizes(self) -> list[int]:
        return [each.size for each in self.kept]


class Fleet(dict[str, Keeper]):
    def __call__(self, sled: Sled) -> Keeper:
        return self[sled.id]


@pytest.fixture
async def fleet(database: Database, journal: Journal) -> Fleet:
    for sled_id in ("s1", "s2"):
        await database.run(add_sled, sled_id)
    await tell(database, "a")
    await journal.checkpoint()
    return Fleet(s1=Keeper(), s2=Keeper())


async def test_each_sled_is_sent_a_checkpoint_once(database: Database, fleet: Fleet) -> None:
    witnesses = Witnesses(database, fleet)
    await witnesses.round()
    await witnesses.round()
    assert [(sled.sizes, sled.asked) for sled in fleet.values()] == [([BEGUN], 1), ([BEGUN], 1)]


async def test_a_sled_that_was_away_is_sent_it_later(database: Database, fleet: Fleet) -> None:
    witnesses = Witnesses(database, fleet)
    fleet["s1"].fails = Unreachable("away")
    await witnesses.round()
    assert (fleet["s1"].sizes, fleet["s2"].sizes) == ([], [BEGUN])
    fleet["s1"].fails = None
    await witnesses.round()
    assert fleet["s1"].sizes == [BEGUN]


async def test_how_a_sealed_shard_ended_is_sent_as_well(
    database: Database, journal: Journal, fleet: Fleet
) -> None:
    witnesses = Witnesses(database, fleet)
    await witnesses.round()
    made = await journal.rotate()
    await tell(database, "b")
    _, then = await journal.checkpoint()
    await witnesses.round()
    assert made.sealed is not None
    assert fleet["s1"].sizes == [BEGUN, made.sealed.size, then.size]
    for note, shard in zip(fleet["s1"].kept, (made.sealed, made.sealed, made.active), strict=True):
        assert opened(note.note, shard.key).size == note.size


async def test_a_checkpoint_that_is_refused_keeps_none_of_another_shard_away(
    database: Database, journal: Journal, keys: Path, fleet: Fleet
) -> None:
    # As after the database was put back: the sled has more of the sealed shard than there is.
    made = await journal.rotate()
    assert made.sealed is not None
    key = await asyncio.to_thread(KeyDirectory(keys).load, made.sealed.id)
    note = signed(Checkpoint(key.verifier.name, 99, bytes(32)), key)
    await fleet["s1"].put_checkpoint(note)
    await tell(database, "b")
    _, then = await journal.checkpoint()
    witnesses = Witnesses(database, fleet)
    await witnesses.round()
    assert fleet["s1"].sizes == [99, then.size]
    asked = fleet["s1"].asked
    await witnesses.round()
    assert fleet["s1"].asked == asked


async def test_a_sled_that_was_told_something_else_refuses_and_keeps_that(
    database: Database, fleet: Fleet, journal: Journal
) -> None:
    (note,) = [(await journal.checkpoint())[1].note]
    lines = note.split("\n")
    other = KeptCheckpoint.parse("\n".join([lines[0], "5", *lines[2:]]))
    fleet["s1"].kept = (other,)
    await Witnesses(database, fleet).round()
    assert (fleet["s1"].kept, fleet["s2"].sizes) == ((other,), [BEGUN])
