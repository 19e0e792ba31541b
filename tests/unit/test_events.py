"""The event log: numbering, durability, bounds, and what it does when the disk fails it."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.event_journal import Draft, Journal
from agent.events import FILE_NAME, MAX_FIELDS_BYTES, EventLog, EventPage

# Ends a hang. A test that waits for something waits for its signal.
PATIENCE_S = 30.0


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EventLog]:
    async with await EventLog.open(tmp_path) as log:
        yield log


class Lock:
    """Another writer's open transaction, behind which the log's own has to wait."""

    def __init__(self, path: Path) -> None:
        self._other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._other.execute("BEGIN IMMEDIATE")

    async def release(self) -> None:
        await asyncio.to_thread(self._other.close)


async def sql(path: Path, *statements: str) -> None:
    """Do something to a database behind the log's back."""

    def execute() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            for statement in statements:
                other.execute(statement)

    await asyncio.to_thread(execute)


async def read_to(log: EventLog, sequence: int) -> EventPage:
    """Wait until event number `sequence` is there, and read everything."""
    while (page := log.read(0, 10_000)).latest < sequence:
        await log.wait(page.latest, PATIENCE_S)
    return page


async def test_an_empty_log_has_zero_as_its_bounds(log: EventLog) -> None:
    page = log.read(0, 10)
    assert (page.oldest, page.latest, page.events) == (0, 0, ())


async def test_events_are_numbered_from_one_in_the_order_they_were_emitted(log: EventLog) -> None:
    for n in range(5):
        log.emit("put", {"n": n})
    page = await read_to(log, 5)
    assert [(e.sequence, e.fields["n"]) for e in page.events] == [(n + 1, n) for n in range(5)]
    assert {e.kind for e in page.events} == {"put"}


async def test_an_event_is_invisible_until_it_is_committed(tmp_path: Path, log: EventLog) -> None:
    lock = await asyncio.to_thread(Lock, tmp_path / FILE_NAME)
    log.emit("put")
    await log.wait(0, 0.01)
    assert log.read(0, 10).latest == 0
    await lock.release()
    assert (await read_to(log, 1)).latest == 1


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [(0, 3, [1, 2, 3]), (3, 10, [4, 5]), (4, 1, [5]), (5, 10, []), (99, 10, []), (0, 0, [])],
)
async def test_read_gives_the_first_events_after_a_number(
    log: EventLog, after: int, limit: int, expected: list[int]
) -> None:
    for _ in range(5):
        log.emit("put")
    await read_to(log, 5)
    assert [event.sequence for event in log.read(after, limit).events] == expected


async def test_events_epoch_and_numbers_survive_a_restart(tmp_path: Path) -> None:
    async with await EventLog.open(tmp_path) as log:
        log.emit("put", {"sha256": "ab"})
        before = await read_to(log, 1)
    async with await EventLog.open(tmp_path) as log:
        assert log.read(0, 10) == before
        log.emit("deleted")
        after = await read_to(log, 2)
    assert (after.epoch, after.events[1].kind) == (before.epoch, "deleted")


async def test_close_commits_what_is_queued(tmp_path: Path) -> None:
    async with await EventLog.open(tmp_path) as log:
        for _ in range(600):
            log.emit("put")
    async with await EventLog.open(tmp_path) as log:
        assert log.read(0, 1).latest == 600


@pytest.mark.parametrize("persistent", [True, False])
async def test_the_oldest_events_go_first_when_the_log_is_full(
    tmp_path: Path, persistent: bool
) -> None:
    state_dir = tmp_path if persistent else tmp_path / "file"
    (tmp_path / "file").touch()
    async with await EventLog.open(state_dir, max_entries=3) as log:
        for _ in range(7):
            log.emit("put")
        page = await read_to(log, 7)
        assert (page.oldest, [e.sequence for e in page.events]) == (5, [5, 6, 7])
        assert log.read(5, 1).events[0].sequence == 6


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_is_no_longer_in_memory_is_read_from_the_database(
    tmp_path: Path, restarted: bool
) -> None:
    async with await EventLog.open(tmp_path, max_entries=8, recent=3) as log:
        for n in range(10):
            log.emit("put", {"n": n})
        await read_to(log, 10)
        if not restarted:
            await whole_log(log)
    if restarted:
        async with await EventLog.open(tmp_path, max_entries=8, recent=3) as log:
            await whole_log(log)


async def whole_log(log: EventLog) -> None:
    assert len(log.read(0, 100).events) == 3
    page = await log.page(0, 100)
    assert (page.oldest, page.latest) == (3, 10)
    assert [event.sequence for event in page.events] == list(range(3, 11))
    assert [event.fields["n"] for event in page.events] == list(range(2, 10))
    for after in range(12):
        expected = [number for number in range(3, 11) if number > after][:2]
        assert [each.sequence for each in (await log.page(after, 2)).events] == expected
    assert log.health().oldest == 3


async def test_behind_a_stream_of_events_the_next_is_written_without_another(
    tmp_path: Path,
) -> None:
    async with await EventLog.open(tmp_path) as log:
        for _ in range(10):
            log.emit("put")
        await read_to(log, 10)
        log.emit("put")
        assert (await read_to(log, 11)).latest == 11


async def test_older_events_that_cannot_be_read_leave_those_in_memory(tmp_path: Path) -> None:
    async with await EventLog.open(tmp_path, recent=2) as log:
        for _ in range(5):
            log.emit("put")
        await read_to(log, 5)
        await sql(tmp_path / FILE_NAME, "ALTER TABLE event RENAME TO elsewhere")
        page = await log.page(0, 10)
        assert (page.oldest, [each.sequence for each in page.events]) == (4, [4, 5])


async def test_the_numbers_of_a_new_epoch_are_not_mixed_with_older_events(tmp_path: Path) -> None:
    async with await EventLog.open(tmp_path, recent=2) as log:
        for _ in range(5):
            log.emit("put")
        before = await read_to(log, 5)
        await sql(tmp_path / FILE_NAME, "ALTER TABLE event RENAME TO elsewhere")
        log.emit("put")
        while (page := await log.page(0, 10)).epoch == before.epoch:
            await log.wait(5, PATIENCE_S)
        assert (page.oldest, [each.sequence for each in page.events]) == (2, [2, 3])


async def test_a_number_is_not_used_again_after_its_event_was_removed(tmp_path: Path) -> None:
    async with await EventLog.open(tmp_path, max_entries=1) as log:
        for _ in range(4):
            log.emit("put")
        await read_to(log, 4)
    await sql(tmp_path / FILE_NAME, "DELETE FROM event")
    async with await EventLog.open(tmp_path) as log:
        log.emit("put")
        assert (await read_to(log, 1)).oldest == 5


KILLED = """
import os, signal, sys
from pathlib import Path
from agent.event_journal import Draft, Journal

journal = Journal(Path(sys.argv[1]), 100)
print(journal.append([Draft(0.0, "put", "{}")] * 3)[-1].sequence, flush=True)
journal._db.execute("BEGIN IMMEDIATE")
journal._db.execute("INSERT INTO event (time, kind, fields) VALUES (0.0, 'put', '{}')")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_number_is_used_twice_when_the_process_is_killed_between_and_in_commits(
    tmp_path: Path,
) -> None:
    path = tmp_path / FILE_NAME
    runs = [
        subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True) for _ in range(3)
    ]
    assert [run.returncode for run in runs] == [-signal.SIGKILL] * 3
    assert [int(run.stdout) for run in runs] == [3, 6, 9]
    with closing(Journal(path, 100)) as journal:
        assert [event.sequence for event in journal.recovered] == list(range(1, 10))


async def test_a_corrupt_database_is_moved_aside_and_a_new_epoch_begins(tmp_path: Path) -> None:
    async with await EventLog.open(tmp_path) as log:
        log.emit("put")
        before = await read_to(log, 1)
    rotten = b"rotten" * 1000
    await asyncio.to_thread((tmp_path / FILE_NAME).write_bytes, rotten)
    async with await EventLog.open(tmp_path) as log:
        health = log.health()
        assert health.persistent
        assert health.epoch != before.epoch
        assert "was corrupt" in str(health.last_error)
        kept = tmp_path / f"{FILE_NAME}.corrupt"
        assert await asyncio.to_thread(kept.read_bytes) == rotten


def fill_and_rot(path: Path) -> None:
    with closing(Journal(path, 1000)) as journal:
        journal.append([Draft(0.0, "put", '{"x": "' + "y" * 500 + '"}')] * 100)
    content = bytearray(path.read_bytes())
    content[-8192:] = bytes(8192)
    path.write_bytes(content)


async def test_a_page_of_rot_inside_the_database_is_found_when_it_is_opened(tmp_path: Path) -> None:
    await asyncio.to_thread(fill_and_rot, tmp_path / FILE_NAME)
    async with await EventLog.open(tmp_path) as log:
        assert "was corrupt" in str(log.health().last_error)


async def test_an_unreadable_event_counts_as_corruption(tmp_path: Path) -> None:
    async with await EventLog.open(tmp_path):
        pass
    insert = "INSERT INTO event (time, kind, fields) VALUES (0, 'put', '{')"
    await sql(tmp_path / FILE_NAME, insert)
    async with await EventLog.open(tmp_path) as log:
        assert log.health().persistent
        assert "was corrupt" in str(log.health().last_error)


async def test_a_database_of_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    await sql(path, "PRAGMA user_version=2")
    before = await asyncio.to_thread(path.read_bytes)
    async with await EventLog.open(tmp_path) as log:
        assert not log.health().persistent
        assert "its format is 2" in str(log.health().last_error)
    assert await asyncio.to_thread(path.read_bytes) == before


async def test_events_are_kept_in_memory_when_the_state_dir_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with await EventLog.open(tmp_path / "file") as log:
        log.emit("put")
        page = log.read(0, 10)
        assert [event.sequence for event in page.events] == [1]
        assert not log.health().persistent
        assert str(tmp_path) in str(log.health().last_error)


async def test_a_database_that_fails_later_costs_no_event_and_begins_a_new_epoch(
    tmp_path: Path, log: EventLog
) -> None:
    log.emit("put")
    before = await read_to(log, 1)
    await sql(tmp_path / FILE_NAME, "DROP TABLE event")
    log.emit("copied")
    log.emit("deleted")
    page = await read_to(log, 3)
    assert [(e.sequence, e.kind) for e in page.events] == [
        (1, "put"),
        (2, "copied"),
        (3, "deleted"),
    ]
    assert page.epoch != before.epoch
    assert (log.health().persistent, log.health().dropped) == (False, 0)


async def test_none_are_lost_in_memory_that_were_too_many_for_the_disk(tmp_path: Path) -> None:
    async with await EventLog.open(tmp_path, max_queued=2) as log:
        lock = await asyncio.to_thread(Lock, tmp_path / FILE_NAME)
        for _ in range(2):
            log.emit("put")
        log._go_on_in_memory("on purpose", [])
        for _ in range(5):
            log.emit("copied")
        assert log.counts() == {"put": 2, "copied": 5}
        assert log.health().dropped == 0
        await lock.release()


async def test_events_that_do_not_fit_in_the_queue_are_counted_in_an_event(tmp_path: Path) -> None:
    async with await EventLog.open(tmp_path, max_queued=2) as log:
        lock = await asyncio.to_thread(Lock, tmp_path / FILE_NAME)
        # The writer may hold one batch already; what is above both is lost for certain.
        for _ in range(20):
            log.emit("put")
        lost = log.health().dropped
        assert lost > 0
        await lock.release()
        page = await read_to(log, 20 - lost + 1)
    assert (page.events[-1].kind, page.events[-1].fields) == ("events_dropped", {"count": lost})
    assert log.counts() == {"put": 20 - lost, "events_dropped": 1}


async def test_an_event_too_large_keeps_its_kind_and_loses_its_fields(log: EventLog) -> None:
    log.emit("put", {"x": "y" * MAX_FIELDS_BYTES})
    (event,) = (await read_to(log, 1)).events
    assert list(event.fields) == ["omitted_bytes"]


async def test_fields_that_are_not_json_or_not_utf8_are_recorded_as_text(log: EventLog) -> None:
    log.emit("put", {"path": Path("/x"), "name": "\udcff"})
    (event,) = (await read_to(log, 1)).events
    assert event.fields == {"path": "/x", "name": "?"}


async def test_a_reader_who_knows_another_epoch_does_not_wait(log: EventLog) -> None:
    await log.wait(99, 10 * PATIENCE_S)


async def test_shutdown_ends_waiting(log: EventLog) -> None:
    log.stop_waiting()
    await log.wait(0, 10 * PATIENCE_S)


async def test_an_event_after_close_is_counted_as_lost(log: EventLog) -> None:
    await log.close()
    log.emit("put")
    assert log.health().dropped == 1
