"""How many requests to sleds a coordinator makes at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordinator.replication.compose import ReplicationOptions
from coordinator.replication.ports import Agent
from tests.coordinator.replication.sim_fleet import SimFleet
from tests.coordinator.replication.sim_sleds import SimSled
from tests.coordinator.replication.virtual import run

MIB = 1 << 20


class Counter:
    """Counts the requests to all sleds that run at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def around(self, sled: SimSled) -> Agent:
        return _Counted(sled, self)


class _Counted:
    def __init__(self, sled: SimSled, counter: Counter) -> None:
        self._sled = sled
        self._counter = counter

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._sled, name)

        async def call(*args: Any, **named: Any) -> Any:
            counter = self._counter
            counter.now += 1
            counter.most = max(counter.most, counter.now)
            try:
                return await method(*args, **named)
            finally:
                counter.now -= 1

        return call


@pytest.mark.parametrize(
    ("options", "most"),
    [(ReplicationOptions(), 8), (ReplicationOptions(max_concurrent_requests=3), 3)],
)
def test_a_coordinator_makes_so_many_requests_at_once_and_no_more(
    options: ReplicationOptions, most: int
) -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=40) as fleet:
            counter = Counter()
            fleet.network.around = counter.around
            coordinator = await fleet.coordinator(options=options)
            await coordinator.upload("1", fleet.artifacts(*[8 * MIB] * 20))
            await fleet.until_replicated(within_s=3600)
            await asyncio.sleep(2 * options.period_s)
            assert counter.most == most

    run(scenario())
