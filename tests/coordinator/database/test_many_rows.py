"""A release of some ten thousand artifacts keeps nobody else from having a turn."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from sqlalchemy import event

from coordinator.database import generation, releases, staged
from coordinator.database.database import PATIENCE_S, Database
from coordinator.database.engine import make_engine, parse_url
from coordinator.database.transaction import ROWS_AT_ONCE
from tests.coordinator.database.making import artifact, release
from tests.coordinator.running import migrated


async def test_many_rows_are_written_some_at_a_time_and_f3_the_generation_rises_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fleet.sqlite3"
    await asyncio.to_thread(path.write_bytes, await asyncio.to_thread(migrated))
    url = parse_url(f"sqlite+aiosqlite:///{path}")
    engine = await asyncio.to_thread(make_engine, url, PATIENCE_S)
    at_once: list[int] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def tell(_connection: Any, _cursor: Any, _said: str, rows: Any, _: Any, many: bool) -> None:
        at_once.append(len(rows) if many else 1)

    count = 2 * ROWS_AT_ONCE + 1
    large = release("1", *(artifact(str(number)) for number in range(count)))
    wanted = {each.sha256 for each in large.artifacts}
    async with Database(engine, patience_s=PATIENCE_S, rng=random.Random(0)) as database:
        before = await database.run(generation.read)
        await database.run(releases.record, large)
        await database.run(staged.replace, "c1", wanted)
        assert await database.run(staged.by_coordinator) == {"c1": wanted}
        assert len((await database.run(releases.get, "1")).artifacts) == count
        assert await database.run(generation.read) == int(before) + 1
    assert max(at_once) == ROWS_AT_ONCE
