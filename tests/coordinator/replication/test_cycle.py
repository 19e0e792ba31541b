"""Whole passes over simulated sleds, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.replication.compose import ReplicationOptions
from coordinator.values import SledState
from tests.coordinator.replication.sim_fleet import SimFleet
from tests.coordinator.replication.virtual import run

MIB = 1 << 20


def test_f1_an_uploaded_release_gets_onto_every_sled_and_leaves_staging() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=6) as fleet:
            coordinator = await fleet.coordinator()
            await coordinator.upload("1", fleet.artifacts(*[MIB] * 10))
            await fleet.until_replicated(within_s=30)
            await fleet.until(lambda: not coordinator.staging.content, within_s=5)
            assert fleet.database.staged == {"coordinator": frozenset()}
            counts = fleet.database.counts
            await fleet.until(lambda: counts["put_ok"] + counts["copy_ok"] == 60, within_s=5)
            assert counts["put_error"] + counts["copy_error"] + counts["deferred"] == 0

    run(scenario())


def test_f1_a_removed_release_leaves_every_sled() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            both, one, other = fleet.artifacts(MIB, MIB, MIB)
            await coordinator.upload("1", [both, one])
            await coordinator.upload("2", [both, other])
            await fleet.until_replicated()
            await coordinator.remove("1")
            await fleet.until_replicated()
            assert all(sled.held.keys() == {both, other} for sled in fleet.sleds)

    run(scenario())


def test_nothing_happens_by_itself_when_activation_is_manual() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator(options=ReplicationOptions(manual=True))
            await coordinator.upload("1", fleet.artifacts(MIB))
            await asyncio.sleep(600)
            assert all(not sled.asked for sled in fleet.sleds)
            assert coordinator.cycle is not None
            coordinator.cycle.activate()
            await fleet.until_replicated(within_s=20)
            await fleet.until(lambda: not coordinator.staging.content, within_s=5)

    run(scenario())


def test_a_pass_begins_every_period() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=1) as fleet:
            await fleet.coordinator()
            await asyncio.sleep(3600)
            assert 58 <= fleet.sleds[0].asked.count("put_config") <= 62

    run(scenario())


def test_a_lost_disk_is_made_good_from_the_others() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            artifacts = fleet.artifacts(*[MIB] * 5)
            await coordinator.upload("1", artifacts)
            await fleet.until_replicated()
            fleet.sleds[2].lose(artifacts)
            await fleet.until_replicated(within_s=90)

    run(scenario())


def test_what_nobody_has_makes_its_releases_incomplete_until_it_is_uploaded_again() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            lost, kept = fleet.artifacts(MIB, MIB)
            await coordinator.upload("1", [lost, kept])
            await coordinator.upload("2", [kept])
            await fleet.until(lambda: not fleet.missing() and not coordinator.staging.content)
            for sled in fleet.sleds:
                sled.lose([lost])
            await fleet.until(lambda: fleet.database.incomplete == {"1"}, within_s=90)
            await coordinator.upload("1", [lost, kept])
            await fleet.until(lambda: not fleet.missing() and not fleet.database.incomplete)

    run(scenario())


def test_nothing_is_lost_while_a_sled_that_may_have_it_cannot_be_asked() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=2) as fleet:
            coordinator = await fleet.coordinator()
            (artifact,) = fleet.artifacts(MIB)
            await coordinator.upload("1", [artifact])
            await fleet.until(lambda: not fleet.missing() and not coordinator.staging.content)
            fleet.sleds[0].lose([artifact])
            fleet.sleds[1].faults.down = True
            await asyncio.sleep(600)
            assert fleet.database.incomplete == set()
            fleet.sleds[1].faults.down = False
            await fleet.until_replicated(within_s=90)

    run(scenario())


def test_what_a_sled_has_pinned_stays_there_until_it_is_unpinned() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            old, new = fleet.artifacts(MIB, MIB)
            await coordinator.upload("1", [old])
            await fleet.until_replicated()
            fleet.sleds[1].pinned = {"boot": frozenset([old])}
            await coordinator.remove("1")
            await coordinator.upload("2", [new])
            await fleet.until_replicated(within_s=30)
            assert fleet.database.kept["sled-1"] == {old}
            assert fleet.network.holders(old) == ["sled-1"]
            await fleet.until(lambda: fleet.state("sled-1") is SledState.OK, within_s=5)
            fleet.sleds[1].pinned.clear()
            await fleet.until(lambda: not fleet.network.holders(old), within_s=130)

    run(scenario())


def test_an_expunged_sled_is_left_alone() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            gone = fleet.sleds[3]
            gone.faults.bytes_per_s = 1 << 10
            await coordinator.upload("1", fleet.artifacts(MIB))
            await asyncio.sleep(20)
            fleet.database.expunged.add(gone.id)
            coordinator.wake()
            await fleet.until(lambda: not fleet.missing() and not coordinator.staging.content)
            gone.asked.clear()
            await asyncio.sleep(600)
            assert gone.asked == []

    run(scenario())


@pytest.mark.parametrize("manual", [False, True])
def test_what_is_under_way_to_a_sled_ends_soon_when_it_is_expunged(manual: bool) -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator(options=ReplicationOptions(manual=manual))
            cycle = coordinator.cycle
            assert cycle is not None
            fleet.sleds[3].faults.bytes_per_s = 1 << 10
            await coordinator.upload("1", fleet.artifacts(*[MIB] * 3))
            cycle.activate()
            await fleet.until(lambda: bool(cycle.arriving().get("sled-3")))
            fleet.database.expunged.add("sled-3")
            coordinator.wake()
            await fleet.until(lambda: "sled-3" not in cycle.arriving(), within_s=10)

    run(scenario())


def test_a_database_that_is_away_for_a_while_costs_no_more_than_that_while() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            await coordinator.upload("1", fleet.artifacts(*[MIB] * 5))
            await asyncio.sleep(0.05)
            fleet.database.down = True
            await asyncio.sleep(300)
            fleet.database.down = False
            await fleet.until_replicated(within_s=70)
            await fleet.until(
                lambda: fleet.database.counts["put_ok"] + fleet.database.counts["copy_ok"] == 20
            )

    run(scenario())


def test_what_no_release_wants_leaves_staging_after_a_while() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            orphan, wanted = fleet.artifacts(MIB, MIB)
            coordinator.staging.content.add(orphan)
            await coordinator.upload("1", [wanted])
            await fleet.until(lambda: not coordinator.staging.content, within_s=150)

    run(scenario())


def test_a_release_is_marked_although_one_sled_always_answers_late() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            (artifact,) = fleet.artifacts(MIB)
            await coordinator.upload("1", [artifact])
            await fleet.until(lambda: not fleet.missing() and not coordinator.staging.content)
            fleet.sleds[0].faults.latency_s = 5.0
            for sled in fleet.sleds:
                sled.lose([artifact])
            await fleet.until(lambda: fleet.database.incomplete == {"1"}, within_s=400)

    run(scenario())
