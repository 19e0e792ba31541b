"""Three coordinators append, while the shard is rotated again and again and others read and verify.

On PostgreSQL they are processes, on SQLite threads. `JOURNAL_ROTATIONS` says how many rotations.
With 50 it is the long form: appends enough for a 99th percentile, which is judged then.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

from coordinator.database.database import Database
from coordinator.journal.checking import Checker
from coordinator.journal.journal import Journal
from tests.coordinator.database.making import opened
from tests.coordinator.journal.appender import work
from tests.coordinator.journal.telling import check, names
from tests.coordinator.postgres import PostgresServer

ROTATIONS = int(os.environ.get("JOURNAL_ROTATIONS", "3"))
APPENDERS = 3
BEFORE = 10
LONG = 50
ENOUGH = 1000
"""Appends in each stretch of the long form: ten of them took longer than the 99th percentile."""
MOST_TIMES = 3.0
"""So many times as long an append may take while shards are rotated: the 99th percentile."""

Orders = tuple[IO[str], IO[str]]


@contextmanager
def process(url: str, keys: Path, name: str) -> Iterator[Orders]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.coordinator.journal.appender", url, str(keys), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        yield running.stdin, running.stdout


@contextmanager
def thread(url: str, keys: Path, name: str) -> Iterator[Orders]:
    (reading, orders), (said, report) = os.pipe(), os.pipe()
    with open(reading) as its, open(report, "w") as told, open(said) as heard:
        worker = threading.Thread(target=lambda: asyncio.run(work(url, keys, name, its, told)))
        worker.start()
        with open(orders, "w") as ours:
            yield ours, heard
        worker.join()


async def order(appenders: Sequence[Orders]) -> None:
    """Have each begin a stretch, or end it."""
    for orders, _ in appenders:
        await asyncio.to_thread(print, "now", file=orders, flush=True)


async def took(appenders: Sequence[Orders]) -> dict[str, float]:
    """What was told in the stretch that ended, and how long each took."""
    found: dict[str, float] = {}
    for _, report in appenders:
        found |= json.loads(await asyncio.to_thread(report.readline))
    return found


async def read(journal: Journal, done: asyncio.Event, rng: random.Random) -> int:
    """Fetch and verify random entries: every index that was ever there."""
    end, count = 1, 0
    while not done.is_set():
        index = rng.randrange(end)
        proof = await journal.proof(index)
        assert proof.entry.index == index
        check(proof)
        end = max(end, (await journal.shards())[-1].end_index)
        count += 1
    return count


def p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[len(seconds) * 99 // 100]


@pytest.fixture
def appenders(
    server: PostgresServer | None, database: Database, database_url: str, keys: Path
) -> Iterator[list[Orders]]:
    begun = thread if server is None else process
    with ExitStack() as stack:
        yield [stack.enter_context(begun(database_url, keys, name)) for name in "abc"[:APPENDERS]]


@pytest.mark.timeout(1800)  # three processes, on a machine that may be busy
async def test_nobody_notices_that_the_shard_is_rotated(
    journal: Journal, database_url: str, keys: Path, appenders: list[Orders]
) -> None:
    async with await opened(database_url) as other:
        reader, done = await Journal.open(other, keys), asyncio.Event()
        await order(appenders)
        size = 0
        while size < BEFORE:  # they are all there, and at it
            size = (await journal.shards())[-1].size
        reading = asyncio.create_task(read(reader, done, random.Random(7)))
        quiet_end = BEFORE + (ENOUGH if ROTATIONS >= LONG else 10 * ROTATIONS)
        while size < quiet_end:
            size = (await journal.shards())[-1].end_index
        await order(appenders)
        quiet = await took(appenders)
        await order(appenders)
        # Two entries of each shard are the journal's own.
        rotated, each = 0, 3 + ENOUGH // ROTATIONS if ROTATIONS >= LONG else 0
        while rotated < ROTATIONS:
            rotated += (await journal.rotate()).done
            next_at = size + each
            while size < next_at:  # each shard is appended to before it is sealed
                size = (await journal.shards())[-1].end_index
        await order(appenders)
        stormy = await took(appenders)
        done.set()
        read_count = await reading
    told = quiet | stormy
    ratio = p99(list(stormy.values())) / p99(list(quiet.values()))
    print(  # noqa: T201
        f"{len(quiet)} appends without and {len(stormy)} during {rotated} rotations, "
        f"{read_count} reads; p99 {p99(list(quiet.values())):.3f} s and {ratio:.2f} times that"
    )
    if ROTATIONS >= LONG:
        assert min(len(quiet), len(stormy)) >= ENOUGH
        assert ratio <= MOST_TIMES
    entries = await journal.entries(0, 10**6)
    assert [entry.index for entry in entries] == list(range(len(entries)))
    assert sorted(name for name in await names(journal) if not name.startswith("journal.")) == (
        sorted(told)
    )
    assert len(await journal.shards()) == ROTATIONS + 1
    checker = Checker()
    async for record in journal.export():
        checker.feed(record)
    assert checker.end().findings == []
    assert read_count > 0
