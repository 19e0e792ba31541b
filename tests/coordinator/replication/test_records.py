"""The database as a pass sees it. What each statement does is tested with the database itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from coordinator.database import counters, history, pins, releases, sleds, snapshot
from coordinator.database.database import Database
from coordinator.database.known_releases import KnownReleases
from coordinator.database.tables import staged_artifacts
from coordinator.database.transaction import ROWS_AT_ONCE, Transaction
from coordinator.replication.ports import Records
from coordinator.replication.records import DatabaseRecords
from coordinator.values import ReleaseState, RequestRecord, SledPolicy, SledSighting, SledState
from depot.artifact import Generation
from tests.coordinator.database.making import add_sled, artifact, config_of, release, sha

OLD, NEW = artifact("old"), artifact("new")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with await Database.open(f"sqlite+aiosqlite:///{tmp_path}/fleet.sqlite3") as database:
        yield database


async def fill(tx: Transaction) -> None:
    for sled_id in ("sled-a", "sled-b", "sled-c"):
        await add_sled(tx, sled_id)
    await sleds.set_policy(tx, "sled-c", SledPolicy.EXPUNGED)
    await releases.record(tx, release("1", OLD))
    await releases.record(tx, release("2", OLD, NEW))


async def test_a_pass_reads_one_instant(database: Database) -> None:
    here: Records = DatabaseRecords(database, "here", KnownReleases())
    there = DatabaseRecords(database, "there", KnownReleases())
    await database.run(fill)
    await here.write_staged(lambda: frozenset([NEW.sha256]))
    await there.write_staged(lambda: frozenset([OLD.sha256]))
    await here.write_states(incomplete={"1": []}, complete=[])
    seen = await here.snapshot()

    assert seen.generation == await here.generation()
    assert seen.sizes == {OLD.sha256: OLD.size_bytes, NEW.sha256: NEW.size_bytes}
    assert [sled.id for sled in seen.sleds] == ["sled-a", "sled-b"]
    assert seen.staged_here == {NEW.sha256}
    assert seen.staged_elsewhere == {OLD.sha256}
    assert seen.releases == {"1": {OLD.sha256}, "2": {OLD.sha256, NEW.sha256}}
    assert seen.incomplete == {"1"}


async def test_f3_a_sled_is_told_what_the_database_alone_says(database: Database) -> None:
    records = DatabaseRecords(database, "here", KnownReleases())
    await database.run(fill)
    before = await records.generation()
    pinned = frozenset([OLD.sha256, sha("pinned")])
    await records.keep_pins("sled-b", pinned)
    await records.keep_pins("sled-b", pinned)
    seen = await records.snapshot()

    assert seen.generation == before + 1
    wanted = {OLD.sha256, NEW.sha256}
    assert seen.config("sled-a").artifacts == wanted
    assert seen.config("sled-b").artifacts == wanted | {sha("pinned")}
    found = await database.run(snapshot.read)
    for sled_id in ("sled-a", "sled-b"):
        assert seen.config(sled_id) == config_of(found, sled_id)


async def test_the_pins_of_a_sled_that_is_gone_meanwhile_are_nobodys(database: Database) -> None:
    records = DatabaseRecords(database, "here", KnownReleases())
    before = await records.generation()
    await records.keep_pins("nobody", frozenset([OLD.sha256]))
    assert await records.generation() == before
    assert await database.run(pins.every) == {}


async def test_f2_what_is_staged_is_struck_at_the_generation_of_the_lists_alone(
    database: Database,
) -> None:
    records = DatabaseRecords(database, "here", KnownReleases())
    await database.run(fill)
    await records.write_staged(lambda: frozenset([OLD.sha256, NEW.sha256]))
    now = await records.generation()

    assert not await records.strike_staged([OLD.sha256], Generation(now - 1))
    assert (await records.snapshot()).staged_here == {OLD.sha256, NEW.sha256}
    assert await records.strike_staged([OLD.sha256], now)
    assert (await records.snapshot()).staged_here == {NEW.sha256}
    assert await records.generation() == now


async def test_what_was_asked_and_how_sleds_fared_is_written_down(database: Database) -> None:
    records = DatabaseRecords(database, "here", KnownReleases())
    await database.run(fill)
    record = RequestRecord(5.0, "sled-a", "put", Generation(3), OLD.sha256, "staging", "no room")
    await records.write_requests([record], {"put_error": 1})
    await records.write_requests([], {"put_error": 2})
    await records.write_sightings([SledSighting("sled-a", SledState.AHEAD, "is ahead")])
    await records.write_sightings([])

    assert await database.run(history.read) == (record,)
    assert await database.run(counters.read) == {"put_error": 3}
    seen = (await records.snapshot()).sleds[0]
    assert (seen.state, seen.last_error) == (SledState.AHEAD, "is ahead")


async def test_a_release_is_marked_and_unmarked(database: Database) -> None:
    records = DatabaseRecords(database, "here", KnownReleases())
    await database.run(fill)
    await records.write_states(incomplete={"1": [], "gone": []}, complete=["2"])
    assert (await database.run(releases.get, "1")).state is ReleaseState.INCOMPLETE
    await records.write_states(incomplete={}, complete=["1"])
    assert (await records.snapshot()).incomplete == frozenset()


async def test_many_rows_are_read_some_at_a_time(database: Database) -> None:
    many = frozenset(sha(str(number)) for number in range(3 * ROWS_AT_ONCE + 1))
    records = DatabaseRecords(database, "here", KnownReleases())
    await records.write_staged(lambda: many)
    sizes: list[int] = []

    async def read(tx: Transaction) -> None:
        sizes.extend([len(some) async for some in tx.batches(select(staged_artifacts))])

    await database.run(read)
    assert sizes == [ROWS_AT_ONCE] * 3 + [1]
    assert (await records.snapshot()).staged_here == many


async def test_what_is_said_of_a_sled_and_a_release_that_are_gone_costs_nothing_of_the_rest(
    database: Database,
) -> None:
    records = DatabaseRecords(database, "here", KnownReleases())
    await database.run(fill)
    await database.run(sleds.remove, "sled-c")
    await database.run(releases.remove, "2")
    await records.write_sightings(
        [SledSighting(sled_id, SledState.OK, seen_at_s=9.0) for sled_id in ("sled-a", "sled-c")]
    )
    asked = [
        RequestRecord(time_s, sled_id, "put", Generation(3), NEW.sha256, "staging")
        for time_s, sled_id in ((1.0, "sled-c"), (2.0, "sled-a"))
    ]
    await records.write_requests(asked, {"put_ok": 2})
    await records.write_states(incomplete={"1": [], "2": []}, complete=[])
    await records.keep_pins("sled-c", frozenset([NEW.sha256]))

    assert await database.run(history.read) == (asked[1], asked[0])
    seen = await records.snapshot()
    assert [(sled.id, sled.state) for sled in seen.sleds] == [
        ("sled-a", SledState.OK),
        ("sled-b", None),
    ]
    assert seen.incomplete == {"1"}


async def test_a_release_that_was_supplied_again_meanwhile_is_not_marked(
    database: Database,
) -> None:
    here = DatabaseRecords(database, "here", KnownReleases())
    there = DatabaseRecords(database, "there", KnownReleases())
    await database.run(fill)
    await there.write_staged(lambda: frozenset([OLD.sha256]))
    await here.write_states(incomplete={"1": [OLD.sha256], "2": [NEW.sha256]}, complete=[])
    assert (await here.snapshot()).incomplete == {"2"}
