"""One coordinator that appends for as long as it is told to: a program, or a thread's work.

    python -m tests.coordinator.journal.appender URL KEYS NAME

Each line that it reads begins or ends a stretch. At the end of one it writes a line of JSON: what
it has told, and how many seconds each took, until its index was known.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import IO

from coordinator.database.database import Database
from coordinator.journal.journal import Journal
from tests.coordinator.database.making import opened
from tests.coordinator.journal.telling import tell


async def work(url: str, keys: Path, name: str, orders: IO[str], report: IO[str]) -> None:
    """Append in stretches, until there are no orders any more."""
    async with await opened(url) as database:
        journal = await Journal.open(database, keys)
        number = 0
        while await asyncio.to_thread(orders.readline):
            ending = asyncio.create_task(asyncio.to_thread(orders.readline))
            took: dict[str, float] = {}
            while not ending.done():
                took[f"{name}{number}"] = await append(journal, database, f"{name}{number}")
                number += 1
            await ending
            await asyncio.to_thread(print, json.dumps(took), file=report, flush=True)


async def append(journal: Journal, database: Database, name: str) -> float:
    """Tell one thing and have it numbered; how long that took, seconds."""
    begun = time.monotonic()
    await tell(database, name)
    await journal.number()
    return time.monotonic() - begun


if __name__ == "__main__":
    # What is logged is not to be among what is reported.
    report, sys.stdout = sys.stdout, sys.stderr
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.stdin, report))
