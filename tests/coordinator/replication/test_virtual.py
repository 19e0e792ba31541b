"""Virtual time stands still while something real is under way."""

from __future__ import annotations

import asyncio
import time

from tests.coordinator.replication.virtual import run

REAL_S = 0.05


def test_no_time_passes_while_a_thread_works() -> None:
    async def scenario() -> tuple[float, float]:
        began_s = asyncio.get_running_loop().time()
        timer = asyncio.create_task(asyncio.sleep(5))
        await asyncio.to_thread(time.sleep, REAL_S)
        worked_s = asyncio.get_running_loop().time() - began_s
        await timer
        return worked_s, asyncio.get_running_loop().time() - began_s

    assert run(scenario()) == (0.0, 5.0)
