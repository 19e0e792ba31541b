"""Plans that follow each other go on with what the earlier ones began."""

from __future__ import annotations

import asyncio
from random import Random

from coordinator.replication.compose import ReplicationOptions, replication
from coordinator.replication.plan import plan
from coordinator.replication.values import Inventory, Plan, Policy
from tests.coordinator.replication.sim_database import SimRecords
from tests.coordinator.replication.sim_fleet import SimFleet, SimStaging
from tests.coordinator.replication.virtual import run


def test_passes_of_one_generation_draw_the_same_order_and_the_next_one_another() -> None:
    draws: list[tuple[int, float]] = []

    def planner(inventory: Inventory, policy: Policy, rng: Random) -> Plan:
        draws.append((int(inventory.generation), rng.random()))
        return plan(inventory, policy, rng)

    async def scenario() -> None:
        async with (
            SimFleet() as fleet,
            replication(
                records=SimRecords(fleet.database, "a"),
                staging=SimStaging("a", fleet.network),
                agent_of=fleet.network.agent_of,
                planner=planner,
                options=ReplicationOptions(),
                rng=Random(1),
                clock=asyncio.get_running_loop().time,
            ) as cycle,
        ):
            await cycle.once()
            await cycle.once()
            fleet.database.generation += 1
            await cycle.once()

    run(scenario())
    (one, first), (same, second), (other, third) = draws
    assert (one == same, first == second) == (True, True)
    assert (one == other, first == third) == (False, False)
