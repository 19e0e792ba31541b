"""Coordinators that work on a journal and are killed, one after the other: a program of its own.

    python -m tests.coordinator.journal.lives URL KEYS COUNT SEED

It prints what was acknowledged before the kill, `told` and a name on each line. Each life is a fork
of this process, which has imported everything and opened nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from coordinator.database.database import Database
from coordinator.errors import ShardInUse
from coordinator.journal.journal import Journal
from tests.coordinator.database.making import opened
from tests.coordinator.journal.telling import tell

LONGEST_S = 0.1
MOST_TOLD = 12


async def live(url: str, keys: Path, life: int, seed: int, acknowledged: int) -> None:
    """Tell, number, rotate and undo for ever; whatever was told is written to a descriptor."""
    rng = random.Random(f"{seed}-{life}")
    async with await opened(url) as database:
        journal = await Journal.open(database, keys)
        os.write(acknowledged, b"begun\n")
        number = 0
        while True:
            await _work(journal, database, rng, f"{life}.{number}", acknowledged)
            number += 1


async def _work(
    journal: Journal, database: Database, rng: random.Random, name: str, acknowledged: int
) -> None:
    match rng.randrange(8):
        case 0:
            await journal.rotate()
        case 1:
            with suppress(ShardInUse):
                await journal.undo_rotation()
        case 2 | 3:
            await journal.number()
        case 4:
            await journal.checkpoint()
        case _:
            await tell(database, name)
            os.write(acknowledged, f"{name}\n".encode())


def killed(url: str, keys: Path, life: int, seed: int) -> list[str]:
    """Have one life, kill it at a random moment, and say what it has acknowledged."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.close(reading)
        try:
            asyncio.run(live(url, keys, life, seed, writing))
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as lines:
        rng = random.Random(f"{seed}-{life}-kill")
        first, *found = [lines.readline() for _ in range(rng.randint(1, MOST_TOLD))]
        # Some milliseconds are a transaction, and what follows it.
        time.sleep(rng.uniform(0.0, LONGEST_S))
        os.kill(child, signal.SIGKILL)
        found += lines.readlines()
    _, status = os.waitpid(child, 0)
    if first != "begun\n" or os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise SystemExit(f"life {life} of seed {seed} ended by itself")
    return [line.strip() for line in found]


def main() -> None:
    """See above."""
    url, keys, count, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    for life in range(count):
        for name in killed(url, keys, life, seed):
            print(f"told {name}")  # noqa: T201
    sys.stdout.flush()


if __name__ == "__main__":
    main()
