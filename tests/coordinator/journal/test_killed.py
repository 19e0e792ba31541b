"""A coordinator that is killed in the middle: what it acknowledged is there, and nothing is torn.

`JOURNAL_KILLS` says how often (200 were asked for), `JOURNAL_SEED` how it begins.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import pytest

from coordinator.database.database import Database
from coordinator.journal.checking import Checker
from coordinator.journal.journal import Journal
from tests.coordinator.journal.telling import check, names

KILLS = int(os.environ.get("JOURNAL_KILLS", "6"))
SEED = int(os.environ.get("JOURNAL_SEED", str(random.randrange(2**32))))


async def lives(url: str, keys: Path) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.coordinator.journal.lives",
        url,
        str(keys),
        str(KILLS),
        str(SEED),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    lines = map(str.split, said.decode().splitlines())
    return [name for first, *rest in lines if first == "told" for name in rest]


@pytest.mark.timeout(600 + 20 * KILLS)  # each life begins with a database to open
async def test_what_was_acknowledged_before_a_kill_is_there_once_and_everything_verifies(
    database: Database, database_url: str, keys: Path
) -> None:
    acknowledged = await lives(database_url, keys)
    print(f"seed {SEED}: {len(acknowledged)} acknowledged in {KILLS} lives")  # noqa: T201
    journal = await Journal.open(database, keys)
    await journal.checkpoint()
    entries = await journal.entries(0, 10**6)
    assert [entry.index for entry in entries] == list(range(len(entries)))
    told = [name for name in await names(journal) if not name.startswith("journal.")]
    assert len(told) == len(set(told))
    # What was told and not acknowledged in time may be there: nobody was told that it is not.
    assert set(acknowledged) <= set(told)
    checker = Checker()
    async for record in journal.export():
        checker.feed(record)
    checked = checker.end()
    assert checked.findings == []
    assert checked.entries == len(entries)
    for entry in entries[:: max(1, len(entries) // 20)]:
        check(await journal.proof(entry.index))
