"""What a pass costs the database does not grow with the fleet."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

from sqlalchemy import event

from coordinator.database.database import PATIENCE_S, Database
from coordinator.database.engine import make_engine, parse_url
from tests.benchmarks.one_pass import passes
from tests.coordinator.running import migrated


async def statements(path: Path, *, sleds: int, artifacts: int, rounds: int) -> Counter[str]:
    """What the database was told while a fleet was recorded, and passes were made."""
    await asyncio.to_thread(path.write_bytes, await asyncio.to_thread(migrated))
    url = parse_url(f"sqlite+aiosqlite:///{path}")
    engine = await asyncio.to_thread(make_engine, url, PATIENCE_S)
    told: Counter[str] = Counter()

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def tell(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        told[statement.split("VALUES")[0]] += 1

    async with Database(engine, patience_s=PATIENCE_S, rng=random.Random(0)) as database:
        await passes(database, sleds, artifacts, rounds)
    return told


async def of_one_pass(path: Path, *, sleds: int, artifacts: int) -> Counter[str]:
    """What the second pass over a fleet that has everything tells the database."""
    size = {"sleds": sleds, "artifacts": artifacts}
    both = await statements(path.with_suffix(".both"), **size, rounds=2)
    return both - await statements(path.with_suffix(".first"), **size, rounds=1)


async def test_an_idle_pass_tells_the_database_as_much_whatever_the_fleets_size(
    tmp_path: Path,
) -> None:
    small = await of_one_pass(tmp_path / "small", sleds=2, artifacts=3)
    large = await of_one_pass(tmp_path / "large", sleds=40, artifacts=60)

    assert small
    assert large == small
