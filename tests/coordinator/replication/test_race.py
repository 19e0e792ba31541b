"""Several coordinators, standing still and crashing at the worst of times (F2).

`SimFleet` checks each deletion: the last place that holds what a release refers to keeps it.
"""

from __future__ import annotations

import asyncio

import pytest

from coordinator.replication.compose import ReplicationOptions
from tests.coordinator.replication.sim_fleet import SimFleet
from tests.coordinator.replication.virtual import run

MIB = 1 << 20


@pytest.mark.parametrize("call", ["snapshot", "list_artifacts"])
def test_f2_a_coordinator_that_stood_still_deletes_nothing_that_was_uploaded_meanwhile(
    call: str,
) -> None:
    """A has the list of generation N and stands still; B uploads at N+1; A goes on."""

    async def scenario() -> None:
        async with SimFleet() as fleet:
            a, b = await fleet.coordinator("a"), await fleet.coordinator("b")
            old, new = fleet.artifacts(MIB, MIB)
            await a.upload("1", [old])
            await fleet.until_replicated()
            await fleet.until(lambda: not a.staging.content, within_s=5)
            # A's next pass has read the database, or what a sled has, when it stops.
            a.stalling.stop_after = call
            await fleet.until(lambda: a.stalling.stands_still, within_s=130)
            generation = fleet.database.generation
            await b.upload("2", [new])
            assert fleet.database.generation == generation + 1
            await fleet.until_replicated(within_s=60)
            await fleet.until(lambda: not b.staging.content, within_s=60)
            await asyncio.sleep(300)
            a.stalling.go_on()
            await asyncio.sleep(200)
            assert not fleet.missing()

    run(scenario())


@pytest.mark.parametrize("call", ["put_config", "list_artifacts", "strike_staged", "drop"])
def test_f2_an_old_request_that_arrives_late_deletes_nothing(call: str) -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            a, b = await fleet.coordinator("a"), await fleet.coordinator("b")
            old, new = fleet.artifacts(MIB, MIB)
            a.stalling.stop_before = call
            await a.upload("1", [old])
            await fleet.until(lambda: a.stalling.stands_still, within_s=130)
            await b.upload("2", [old, new])
            await fleet.until(lambda: not fleet.missing(), within_s=5)
            await fleet.until(lambda: not b.staging.content, within_s=5)
            a.stalling.go_on()
            await asyncio.sleep(200)
            assert not fleet.missing()
            assert not a.staging.content

    run(scenario())


@pytest.mark.parametrize("stalled_after_s", [n / 1000 for n in range(0, 60, 5)])
def test_f2_wherever_in_its_pass_a_coordinator_stands_still(stalled_after_s: float) -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=3) as fleet:
            a, b = await fleet.coordinator("a"), await fleet.coordinator("b")
            one, two, three = fleet.artifacts(MIB, MIB, MIB)
            await a.upload("1", [one, two])
            await asyncio.sleep(stalled_after_s)
            a.stalling.stop()
            await b.upload("2", [two, three])
            await b.remove("1")
            await asyncio.sleep(70)
            await b.upload("3", [one])
            await fleet.until_replicated(within_s=60)
            a.stalling.go_on()
            await asyncio.sleep(130)
            assert not fleet.missing()
            assert not fleet.left_over()

    run(scenario())


def test_f2_what_is_uploaded_again_is_not_dropped_by_a_pass_that_began_before() -> None:
    """The sleds had it, lost it, and it was supplied again, all while the pass stood still."""

    async def scenario() -> None:
        async with SimFleet(sleds=1) as fleet:
            a = await fleet.coordinator("a", ReplicationOptions(manual=True))
            (artifact,) = fleet.artifacts(MIB)
            await a.upload("1", [artifact])
            assert a.cycle is not None
            a.stalling.stop_before = "strike_staged"
            a.cycle.activate()
            # The sled has listed it, and staging is about to let go of it.
            await fleet.until(lambda: a.stalling.stands_still)
            assert artifact in fleet.sleds[0].held
            fleet.sleds[0].lose([artifact])
            await a.upload("1", [artifact])
            a.stalling.go_on()
            await asyncio.sleep(5)
            assert fleet.places(artifact)
            a.cycle.activate()
            await fleet.until_replicated(within_s=20)

    run(scenario())


@pytest.mark.parametrize("killed_after_s", [n / 1000 for n in range(0, 200, 25)])
def test_f5_an_acknowledged_upload_survives_a_crash_at_any_time(killed_after_s: float) -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=3) as fleet:
            coordinator = await fleet.coordinator()
            await coordinator.upload("1", fleet.artifacts(*[MIB] * 5))
            await asyncio.sleep(killed_after_s)
            await coordinator.kill()
            for sled in fleet.sleds:
                await sled.restart()
            await asyncio.sleep(10)
            await coordinator.start()
            await fleet.until_replicated(within_s=70)
            await fleet.until(lambda: not coordinator.staging.content, within_s=130)

    run(scenario())


def test_f2_what_a_coordinator_that_is_away_has_staged_is_not_taken_for_lost() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            await fleet.coordinator("a")
            b = await fleet.coordinator("b")
            for sled in fleet.sleds:
                sled.faults.full = True
            await b.upload("1", fleet.artifacts(MIB))
            await asyncio.sleep(5)
            await b.kill()
            await asyncio.sleep(300)
            assert fleet.database.incomplete == set()
            for sled in fleet.sleds:
                sled.faults.full = False
            await b.start()
            await fleet.until_replicated(within_s=70)

    run(scenario())
