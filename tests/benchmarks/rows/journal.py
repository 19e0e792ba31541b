"""The journal: how fast it is appended to, if that grows with it, and how long a proof takes."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from pathlib import Path
from typing import Final

from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.journal.journal import Journal
from coordinator.values import Told
from tests.benchmarks.long_journal import make
from tests.benchmarks.measure import (
    MILLISECONDS,
    REQUESTS_PER_S,
    Row,
    Sample,
    Target,
    alone,
    alternate,
    at_most,
    versus,
)
from tests.benchmarks.rig import Rig

SHORT: Final = 1_000
AT_ONCE: Final = 500
TARGET_MS: Final = 5.0
# Two runs of the same work differ by as much.
TARGET_APPEND: Final = Target(0.8)


def journal(rig: Rig) -> list[Row]:
    """A short journal and a long one on the same disk, in SQLite."""
    entries = rig.scale.journal_entries
    short, long = _Side(rig.directory / "short", SHORT), _Side(rig.directory / "long", entries)
    rounds, events = rig.scale.rounds, rig.scale.journal_events
    name = f"a journal of {entries:,} entries"
    runs = alternate(rounds, lambda: long.append(events, 1), lambda: short.append(events, 1))
    many = [long.append(events * 10, AT_ONCE) for _ in range(rounds)]
    return [
        versus(
            "journal-append",
            f"append to {name}, one after the other, each durable",
            runs,
            f"the same with {SHORT:,} entries",
            unit=REQUESTS_PER_S,
            target=TARGET_APPEND,
        ),
        alone(
            "journal-append-many",
            f"append to {name}, {AT_ONCE} at once",
            [each.rate for each in many],
            REQUESTS_PER_S,
        ),
        alone(
            "journal-proof",
            f"prove an entry of {name}: the median of {events}",
            [long.proof_ms(events, seed) for seed in range(rounds)],
            MILLISECONDS,
            target=at_most(TARGET_MS, MILLISECONDS),
        ),
    ]


class _Side:
    """One journal."""

    def __init__(self, directory: Path, entries: int) -> None:
        directory.mkdir()
        self._keys, self._entries = directory / "keys", entries
        self._url = asyncio.run(make(directory / "journal.sqlite3", self._keys, entries))

    def append(self, events: int, at_once: int) -> Sample:
        return asyncio.run(self._append(events, at_once))

    def proof_ms(self, proofs: int, seed: int) -> float:
        return asyncio.run(self._proof_ms(proofs, random.Random(seed)))

    async def _append(self, events: int, at_once: int) -> Sample:
        async with await Database.open(self._url) as database:
            journal = await Journal.open(database, self._keys)
            await self._tell(database, journal, 1)
            began_s = time.perf_counter()
            turns = -(-events // at_once)
            for _ in range(turns):
                await self._tell(database, journal, at_once)
            return Sample(turns * at_once, time.perf_counter() - began_s)

    async def _tell(self, database: Database, journal: Journal, count: int) -> None:
        async def tell(tx: Transaction) -> None:
            await tx.tell(*(Told("fleet.bench", data={"n": number}) for number in range(count)))

        await database.run(tell)
        await journal.number()

    async def _proof_ms(self, proofs: int, rng: random.Random) -> float:
        async with await Database.open(self._url) as database:
            journal = await Journal.open(database, self._keys)
            await journal.checkpoint()
            times_ms = []
            for _ in range(proofs):
                began_s = time.perf_counter()
                await journal.proof(rng.randrange(self._entries))
                times_ms.append(1000 * (time.perf_counter() - began_s))
            return statistics.median(times_ms)
