"""F3: the generation in the database rises whenever the wanted set changes, whoever changes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Delete, Insert, Update, delete, insert, update
from sqlalchemy.exc import IntegrityError

from coordinator.database import generation, pins, releases, snapshot
from coordinator.database.database import Database
from coordinator.database.tables import (
    artifacts,
    metadata,
    release_artifacts,
    sled_pins,
    sleds,
)
from coordinator.database.tables import releases as release_table
from coordinator.database.transaction import Transaction
from tests.coordinator.database.making import add_sled, artifact, release, sha

FIRST = release("1.0", artifact("a"), artifact("b"))


@pytest.fixture
async def database(database: Database) -> Database:
    async def fill(tx: Transaction) -> None:
        await add_sled(tx, "s1")
        await releases.record(tx, FIRST)
        await releases.record(tx, release("2.0", artifact("c")))
        await pins.keep(tx, "s1", [sha("x"), sha("y")])

    await database.run(fill)
    return database


CHANGES = {
    "an artifact is added": insert(release_artifacts).values(
        release_version="2.0",
        position=7,
        name="z",
        version="1",
        qualifier="{}",
        name_sha256=sha("z"),
        sha256=sha("a"),
    ),
    "an artifact is another one": update(release_artifacts)
    .where(release_artifacts.c.name == "b")
    .values(sha256=sha("a")),
    "artifacts are removed": delete(release_artifacts),
    "a pin is added": insert(sled_pins).values(sled_id="s1", sha256=sha("z")),
    "a pin is another one": update(sled_pins)
    .where(sled_pins.c.sha256 == sha("x"))
    .values(sha256=sha("z")),
    "pins are removed": delete(sled_pins),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_f3_no_statement_changes_what_is_wanted_without_a_new_generation(
    database: Database, change: Insert | Update | Delete
) -> None:
    before = await database.run(snapshot.read)
    await database.run(Transaction.write, change)
    after = await database.run(snapshot.read)
    assert replace(before, generation=after.generation) != after
    assert after.generation == before.generation + 1


@pytest.mark.parametrize(
    "nothing",
    [
        delete(release_artifacts).where(release_artifacts.c.sha256 == sha("nobody's")),
        delete(sled_pins).where(sled_pins.c.sha256 == sha("nobody's")),
    ],
    ids=["releases", "pins"],
)
async def test_a_statement_that_changes_no_row_leaves_the_generation_alone(
    database: Database, nothing: Delete
) -> None:
    before = await database.run(generation.read)
    await database.run(Transaction.write, nothing)
    assert await database.run(generation.read) == before


async def test_f3_many_changes_in_one_transaction_are_one_new_generation(
    database: Database,
) -> None:
    before = await database.run(generation.read)

    async def change(tx: Transaction) -> list[int]:
        seen = []
        for verb in (
            releases.remove(tx, "2.0"),
            releases.record(tx, release("3.0", artifact("d"))),
            pins.keep(tx, "s1", []),
        ):
            await verb
            seen.append(int(await generation.read(tx)))
        return seen

    assert await database.run(change) == [before + 1] * 3
    assert await database.run(generation.read) == before + 1


async def test_f3_a_change_that_is_rolled_back_takes_its_generation_with_it(
    database: Database,
) -> None:
    before = await database.run(snapshot.read)

    async def change(tx: Transaction) -> None:
        await releases.remove(tx, "1.0")
        assert await generation.read(tx) == before.generation + 1
        raise KeyError("an error of the caller's")

    with pytest.raises(KeyError):
        await database.run(change)
    assert await database.run(snapshot.read) == before


@pytest.mark.parametrize(
    "parent",
    [
        delete(release_table).where(release_table.c.version == "1.0"),
        delete(artifacts).where(artifacts.c.sha256 == sha("a")),
        delete(sleds).where(sleds.c.id == "s1"),
    ],
    ids=["release", "artifact", "sled"],
)
async def test_f3_what_is_wanted_does_not_go_with_a_row_that_it_refers_to(
    database: Database, parent: Delete
) -> None:
    with pytest.raises(IntegrityError):
        await database.run(Transaction.write, parent)


def test_f3_no_foreign_key_changes_rows_behind_a_statement() -> None:
    keys = [key for table in metadata.sorted_tables for key in table.foreign_key_constraints]
    assert keys
    assert not [key for key in keys if key.ondelete or key.onupdate]
