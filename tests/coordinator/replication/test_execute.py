"""What an executor keeps from one plan for the next, and what not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from structlog.testing import capture_logs

from coordinator.errors import DatabaseUnavailable
from coordinator.replication.execute import Executor, Outcome
from coordinator.replication.ports import FleetSnapshot
from coordinator.replication.request_log import RequestLog
from coordinator.replication.requests import Requests
from coordinator.replication.transfers import Transfers
from coordinator.replication.values import Inventory, Plan, Put
from depot.artifact import Generation
from tests.coordinator.replication.sim_fleet import SimFleet, SimStaging
from tests.coordinator.replication.virtual import run

NOW = Generation(1)
MIB = 1 << 20


@dataclass
class Asked:
    """A database that is asked for its generation, and answers when it is let."""

    began: asyncio.Event
    answer: asyncio.Future[Generation]

    async def generation(self) -> Generation:
        self.began.set()
        return await self.answer


def executor(fleet: SimFleet, database: Asked) -> Executor:
    staging = SimStaging("staging", fleet.network)
    staging.content.update(fleet.network.sizes)
    log = RequestLog()
    transfers = Transfers(Requests(fleet.network.agent_of, log), staging)
    return Executor(transfers, log, database.generation, max_concurrent=8)


async def do(executor: Executor, fleet: SimFleet, *puts: Put) -> Outcome:
    sleds = tuple(sled.row() for sled in fleet.sleds)
    return await executor.run(
        Plan(generation=NOW, puts=puts),
        FleetSnapshot(NOW, fleet.network.sizes, sleds),
        Inventory(generation=NOW, sizes=fleet.network.sizes, sleds=()),
    )


def test_what_fails_after_its_plan_has_ended_fails_no_later_plan() -> None:
    """The database was away when a job of an earlier pass asked it, and is back."""

    async def scenario() -> None:
        async with SimFleet(sleds=2) as fleet:
            (wanted,) = fleet.artifacts(1)
            is_ahead, is_well = fleet.sleds
            is_ahead.generation = Generation(7)
            is_well.generation, is_well.config = NOW, frozenset([wanted])
            database = Asked(asyncio.Event(), asyncio.get_running_loop().create_future())
            async with executor(fleet, database) as doing:
                first = asyncio.create_task(do(doing, fleet, Put(wanted, is_ahead.id)))
                await database.began.wait()
                doing.interrupt()
                assert (await first).interrupted
                with capture_logs() as lines:
                    database.answer.set_exception(DatabaseUnavailable("gone for a moment"))
                    await fleet.until(lambda: not doing.arriving(), within_s=5)
                    assert await do(doing, fleet, Put(wanted, is_well.id)) == Outcome(done=1)
                assert [line["error"] for line in lines if line["log_level"] == "warning"] == [
                    "gone for a moment"
                ]

    run(scenario())


def test_a_copy_whose_source_has_it_not_yet_is_put_off_and_no_failure() -> None:
    """Nothing went wrong, so the operator of a fleet that is well is told of no failed copy."""

    async def scenario() -> None:
        async with SimFleet(sleds=5) as fleet:
            for sled in fleet.sleds:
                sled.faults.offers_late = True
            coordinator = await fleet.coordinator()
            await coordinator.upload("1", fleet.artifacts(*[64 * MIB] * 3))
            await fleet.until_replicated(within_s=30)
            counts = fleet.database.counts
            await fleet.until(lambda: counts["put_ok"] + counts["copy_ok"] == 15, within_s=5)
            assert counts["copy_error"] == 0
            assert counts["deferred"] > 0

    run(scenario())
