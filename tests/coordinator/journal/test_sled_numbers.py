"""The numbers of each sled's events go on in the journal, or an entry says which are missing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, update

from coordinator.database.database import Database
from coordinator.database.journal_tables import journal_cursors
from coordinator.journal.checking import Checker
from coordinator.journal.findings import Finding
from coordinator.journal.gathering import Gatherer
from coordinator.journal.journal import Journal
from coordinator.journal.sled_numbers import SledNumbers
from tests.coordinator.database.making import add_sled, opened
from tests.coordinator.journal.event_logs import Fleet, Log, rename_sled


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    await database.run(add_sled, "s1")
    return Fleet(s1=Log("e1", [1, 2, 3]))


@pytest.fixture
def gatherer(database: Database, fleet: Fleet) -> Gatherer:
    return Gatherer(database, fleet)


async def found(journal: Journal, shard_id: str | None = None) -> list[str]:
    checker = Checker()
    async for record in journal.export(shard_id):
        checker.feed(json.loads(json.dumps(record)))
    return [finding.line for finding in checker.end().findings]


async def move_cursor(database: Database, to: int) -> None:
    """What somebody does who can write to the database, and wants the next events unsaid."""
    await database.run(lambda tx: tx.write(update(journal_cursors).values(sequence=to)))


async def drop_the_first_shard(journal: Journal) -> None:
    await journal.rotate()
    first, *_ = await journal.shards()
    await journal.drop(first.id, first.size, first.edge.root)


async def test_events_that_a_moved_cursor_left_out_are_found_by_what_comes_after_them(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    await move_cursor(database, 5)
    fleet["s1"].add(4, 5, 6)
    await gatherer.round()
    last = (await journal.entries(0, 100))[-1]
    assert (last.kind, json.loads(last.content)["source"]["sequence"]) == ("sled.put", 6)
    assert await found(journal) == [
        f"entry {last.index} comes after events 4 to 5 of sled s1, which were left out"
    ]


async def test_events_that_a_moved_cursor_leaves_out_are_found_before_anything_comes_after_them(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    await move_cursor(database, 1000)
    fleet["s1"].add(4)
    await gatherer.round()
    left_out = "events 4 to 1000 of sled s1 count as told, and no entry tells of them"
    assert await found(journal) == [left_out]


async def test_events_from_the_begin_of_a_log_are_found_to_be_left_out(
    journal: Journal, database: Database, gatherer: Gatherer
) -> None:
    # By another id that is no sled's, so that the sled's own is as it was.
    row = {"sled_id": "gone", "epoch": "e1", "sequence": 2, "time": 0.0}
    await database.run(lambda tx: tx.write(insert(journal_cursors).values(**row)))
    await gatherer.round()
    (finding,) = await found(journal)
    assert "comes after events 1 to 2 of sled s1, which were left out" in finding


async def test_what_is_told_again_is_found(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    await move_cursor(database, 2)
    await rename_sled(database, fleet)
    await gatherer.round()
    (finding,) = await found(journal)
    assert "tells event 3 of sled renamed once more" in finding


async def test_nothing_is_found_where_a_gap_or_another_log_says_what_is_missing(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    fleet["s1"] = Log("e1", [5, 6])
    await gatherer.round()
    fleet["s1"] = Log("e1", [9])
    await gatherer.round()
    fleet["s1"] = Log("e2", [1])
    await gatherer.round()
    await journal.rotate()
    fleet["s1"] = Log("e1", [9, 10])
    await gatherer.round()
    await rename_sled(database, fleet)
    fleet["s1"].add(11)
    await gatherer.round()
    assert await found(journal) == []
    for shard in await journal.shards():
        assert await found(journal, shard.id) == []


async def test_what_a_dropped_shard_had_is_not_found_to_be_left_out(
    journal: Journal, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    await drop_the_first_shard(journal)
    assert await found(journal) == []
    fleet["s1"].add(4, 5)
    await gatherer.round()
    assert await found(journal) == []


async def test_what_is_left_out_behind_a_dropped_shard_is_found(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    await drop_the_first_shard(journal)
    fleet["s1"].add(4)
    await gatherer.round()
    await move_cursor(database, 6)
    (finding,) = await found(journal)
    assert finding.startswith("events 5 to 6 of sled s1 count as told")
    fleet["s1"].add(5, 6, 7)
    await gatherer.round()
    (finding,) = await found(journal)
    assert "comes after events 5 to 6 of sled s1, which were left out" in finding


async def test_a_database_that_was_put_back_is_told_again_what_it_lost_and_no_more(
    sqlite_file: Path, keys: Path
) -> None:
    url = f"sqlite+aiosqlite:///{sqlite_file}"
    fleet = Fleet(s1=Log("e1", [1, 2, 3]))
    async with await opened(url) as database:
        await Journal.open(database, keys)
        await database.run(add_sled, "s1")
        await Gatherer(database, fleet).round()
    copy = await asyncio.to_thread(sqlite_file.read_bytes)
    fleet["s1"].add(4, 5)
    async with await opened(url) as database:
        await Gatherer(database, fleet).round()
        await (await Journal.open(database, keys)).number()
    await asyncio.to_thread(sqlite_file.write_bytes, copy)
    async with await opened(url) as database:
        journal = await Journal.open(database, keys)
        await journal.note_restore({})
        fleet["s1"].add(6)
        await Gatherer(database, fleet).round()
        assert await found(journal) == []
        told = [entry.content for entry in await journal.entries(0, 100)]
        assert sum('"source"' in content for content in told) == 6
        await move_cursor(database, 8)
        fleet["s1"].add(7, 8, 9)
        await Gatherer(database, fleet).round()
        (finding,) = await found(journal)
        assert "comes after events 7 to 8 of sled s1" in finding


# ---- and of any order, and any hole


def entry(number: int) -> str:
    said = {"source": {"epoch": "e", "sequence": number}, "sled": "s1"}
    return json.dumps(said, separators=(",", ":"))


def findings_of(numbers: list[int]) -> list[Finding]:
    checked = SledNumbers()
    for index, number in enumerate(numbers):
        checked.take(index, entry(number))
    return list(checked.end(()))


@given(st.permutations(range(1, 9)))
def test_the_order_makes_no_hole_and_each_number_that_is_not_there_does(order: list[int]) -> None:
    assert findings_of(order) == []
    for left_out in range(1, 8):
        (hole,) = findings_of([number for number in order if number != left_out])
        assert hole.what == f"comes after event {left_out} of sled s1, which were left out"


@pytest.mark.parametrize(
    "content",
    [
        '"source":{',
        '[{"source":{}}]',
        '{"source":{"epoch":1,"sequence":2}}',
        '{"source":{"epoch":"e","sequence":-2}}',
        '{"kind":"journal.gap","data":{"epoch":"e","first":9,"last":2}}',
        '{"kind":"other","data":{"epoch":"journal.gap","first":1,"last":2}}',
        '"journal.gap"',
    ],
)
def test_what_somebody_has_changed_into_something_else_tells_no_number(content: str) -> None:
    checked = SledNumbers()
    checked.take(0, content)
    checked.take(1, entry(1))
    assert list(checked.end(())) == []


@pytest.mark.parametrize("end", [{"told": [1]}, {"told": [{}]}, {"told": 7}, []])
def test_an_end_that_is_none_is_refused(end: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Checker().feed({"end": end})
