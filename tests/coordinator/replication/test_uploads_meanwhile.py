"""Uploads that end while a pass is on its way."""

from __future__ import annotations

import asyncio

import pytest

from tests.coordinator.replication.sim_database import QUERY_S
from tests.coordinator.replication.sim_fleet import SimFleet
from tests.coordinator.replication.virtual import run


@pytest.mark.parametrize("quarters", range(24))
def test_a_release_that_is_recorded_while_a_pass_reads_the_database_is_not_taken_for_lost(
    quarters: int,
) -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=2) as fleet:
            coordinator = await fleet.coordinator()
            await asyncio.sleep(30)
            assert coordinator.cycle is not None
            coordinator.cycle.activate()
            # Each time at another point of the pass.
            await asyncio.sleep(quarters / 4 * QUERY_S)
            upload = asyncio.create_task(coordinator.upload("1", fleet.artifacts(1 << 20)))
            while fleet.missing() or not upload.done():
                await asyncio.sleep(QUERY_S / 2)
                assert not fleet.database.incomplete
            await upload

    run(scenario())
