from __future__ import annotations

from coordinator.database import counters
from coordinator.database.database import Database


async def test_counters_add_up_over_the_life_of_the_fleet(database: Database) -> None:
    await database.run(counters.add, {"put_ok": 3, "copy_error": 1, "list_ok": 0})
    await database.run(counters.add, {"put_ok": 4})
    assert await database.run(counters.read) == {"copy_error": 1, "put_ok": 7}
