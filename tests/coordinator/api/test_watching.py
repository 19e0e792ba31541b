from __future__ import annotations

from coordinator.api.watching import FleetWatch
from coordinator.assembly import Coordinator
from coordinator.database import sleds
from coordinator.values import SledPolicy, SledSighting, SledState


async def test_a_sled_that_another_coordinator_expunged_adds_or_moves_is_noticed_once(
    running: Coordinator,
) -> None:
    changes: list[str] = []
    database = running.database
    watch = FleetWatch(database, lambda: changes.append("changed"))

    async def noticed() -> bool:
        changes.clear()
        await watch.look()
        return bool(changes)

    await database.run(sleds.upsert, "s1", "http://a:1", "http://a:2")
    assert [await noticed(), await noticed()] == [False, False]
    await database.run(sleds.note, [SledSighting("s1", SledState.OK, seen_at_s=1.0)])
    assert not await noticed()
    await database.run(sleds.upsert, "s1", "http://b:1", "http://a:2")
    assert [await noticed(), await noticed()] == [True, False]
    await database.run(sleds.set_policy, "s1", SledPolicy.EXPUNGED)
    assert [await noticed(), await noticed()] == [True, False]
