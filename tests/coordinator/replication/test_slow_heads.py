"""A slow sled, wherever it stands in the order by which chains go."""

from __future__ import annotations

import pytest

from tests.coordinator.replication.sim_fleet import SimFleet
from tests.coordinator.replication.virtual import run

MIB = 1 << 20


@pytest.mark.parametrize("slow", range(4))
def test_f4_a_sled_on_which_no_put_ends_in_time_does_not_stand_first_again(slow: int) -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=4) as fleet:
            coordinator = await fleet.coordinator()
            fleet.sleds[slow].faults.bytes_per_s = MIB // 4
            await coordinator.upload("1", fleet.artifacts(*[64 * MIB] * 6))
            slow_id = fleet.sleds[slow].id
            await fleet.until(
                lambda: all(sled_id == slow_id for sled_id, _ in fleet.missing()), within_s=450
            )

    run(scenario())
