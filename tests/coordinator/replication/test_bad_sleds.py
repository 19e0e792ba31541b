"""F4: one bad sled, in whichever way it is bad, never stops the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from coordinator.replication.job_queue import PUTS_PER_SLED
from coordinator.values import SledState
from depot.artifact import Generation
from tests.coordinator.replication.sim_fleet import SimFleet, artifact
from tests.coordinator.replication.sim_sleds import SimSled, refused
from tests.coordinator.replication.virtual import run

MIB = 1 << 20
GIB = 1 << 30


def down(sled: SimSled) -> None:
    sled.faults.down = True


def hangs(sled: SimSled) -> None:
    sled.faults.hangs = True


def slow(sled: SimSled) -> None:
    sled.faults.latency_s = 4.0


def refuses(sled: SimSled) -> None:
    sled.faults.refusal = lambda: refused(400, "InvalidRequest")


def without_datasets(sled: SimSled) -> None:
    sled.faults.refusal = lambda: refused(503, "NoDataset")


def ahead(sled: SimSled) -> None:
    sled.generation = Generation(1000)


def other_contents(sled: SimSled) -> None:
    sled.generation, sled.config = Generation(2), frozenset([artifact(99)])


def full(sled: SimSled) -> None:
    sled.faults.full = True


def busy(sled: SimSled) -> None:
    sled.faults.busy = 10**9


def forgets(sled: SimSled) -> None:
    sled.faults.forgets = True


def stands_still(sled: SimSled) -> None:
    sled.faults.copies_stand_still = True


def creeps(sled: SimSled) -> None:
    sled.faults.bytes_per_s = 1000


def cannot_copy(sled: SimSled) -> None:
    sled.faults.copies_fail = 10**9


BAD = [
    (down, SledState.UNREACHABLE),
    (hangs, SledState.UNREACHABLE),
    (slow, SledState.OK),
    (refuses, SledState.REFUSED),
    (without_datasets, SledState.REFUSED),
    (ahead, SledState.AHEAD),
    (other_contents, SledState.REFUSED),
    (full, SledState.OK),
    (busy, SledState.OK),
    (forgets, SledState.OK),
    (stands_still, SledState.OK),
    (creeps, SledState.OK),
    (cannot_copy, SledState.OK),
]


@pytest.mark.parametrize(("bad", "state"), BAD, ids=[bad.__name__ for bad, _ in BAD])
def test_f4_the_others_get_everything_and_the_bad_one_is_shown(
    bad: Callable[[SimSled], None], state: SledState
) -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=5) as fleet:
            bad(fleet.sleds[0])
            coordinator = await fleet.coordinator()
            await asyncio.sleep(30)
            await coordinator.upload("1", fleet.artifacts(*[MIB] * 20))
            others = {sled.id for sled in fleet.sleds[1:]}
            await fleet.until(
                lambda: not others & {sled_id for sled_id, _ in fleet.missing()}, within_s=20
            )
            await asyncio.sleep(60)
            await fleet.until(lambda: fleet.state("sled-0") is state, within_s=120)

    run(scenario())


@pytest.mark.parametrize(
    "bad", [down, hangs, slow, refuses, full, busy, stands_still, creeps, cannot_copy, forgets]
)
def test_f1_a_sled_that_recovers_gets_everything(bad: Callable[[SimSled], None]) -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            sled = fleet.sleds[0]
            bad(sled)
            await coordinator.upload("1", fleet.artifacts(*[MIB] * 20))
            await asyncio.sleep(200)
            sled.faults = type(sled.faults)()
            await sled.restart()
            await fleet.until_replicated(within_s=1200)

    run(scenario())


def test_a_sled_that_always_answers_late_gets_everything_as_well() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            fleet.sleds[0].faults.latency_s = 5.0
            await coordinator.upload("1", fleet.artifacts(*[MIB] * 5))
            await fleet.until_replicated(within_s=300)

    run(scenario())


def test_f4_a_rack_that_is_down_delays_the_others_by_no_more_than_seconds() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=40) as fleet:
            coordinator = await fleet.coordinator()
            await asyncio.sleep(5)
            for sled in fleet.sleds[:20]:
                sled.faults.down = True
            await asyncio.sleep(200)
            await coordinator.upload("1", fleet.artifacts(*[MIB] * 5))
            rest = {sled.id for sled in fleet.sleds[20:]}
            await fleet.until(
                lambda: not rest & {sled_id for sled_id, _ in fleet.missing()}, within_s=6
            )

    run(scenario())


def test_a_slow_transfer_of_an_older_release_keeps_no_newer_one_waiting() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            fleet.sleds[0].faults.bytes_per_s = 3 * MIB
            await coordinator.upload("1", fleet.artifacts(GIB))
            await asyncio.sleep(20)
            await coordinator.upload("2", fleet.artifacts(MIB, first=1))
            await fleet.until(lambda: len(fleet.network.holders(artifact(1))) == 4, within_s=10)
            assert "sled-0" not in fleet.network.holders(artifact(0))
            await fleet.until_replicated(within_s=500)
            assert fleet.database.counts["put_error"] + fleet.database.counts["copy_error"] == 0

    run(scenario())


def test_a_put_of_two_gib_takes_the_minutes_that_it_needs_while_its_bytes_move() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=1) as fleet:
            coordinator = await fleet.coordinator()
            fleet.sleds[0].faults.bytes_per_s = 3 * MIB
            await coordinator.upload("1", fleet.artifacts(2 * GIB))
            assert await fleet.until_replicated(within_s=800) > 60.0
            await fleet.until(lambda: fleet.database.counts["put_ok"] == 1, within_s=5)
            assert fleet.database.counts["put_error"] == 0

    run(scenario())


def test_a_busy_sled_is_asked_again_until_it_takes_the_artifact() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=1) as fleet:
            coordinator = await fleet.coordinator()
            fleet.sleds[0].faults.busy = 3
            await asyncio.sleep(5)
            await coordinator.upload("1", fleet.artifacts(MIB))
            assert await fleet.until_replicated(within_s=20) >= 7.0
            await fleet.until(lambda: fleet.database.counts["deferred"] == 3, within_s=5)

    run(scenario())


def test_a_busy_sled_is_asked_again_when_it_said_and_about_nothing_else_before() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=1) as fleet:
            coordinator = await fleet.coordinator()
            sled = fleet.sleds[0]
            sled.faults.busy, sled.faults.retry_after_s = 10**9, 12
            await asyncio.sleep(5)
            await coordinator.upload("1", fleet.artifacts(*[MIB] * 20))
            await fleet.until(lambda: "put" in sled.asked, within_s=5)
            await asyncio.sleep(11)
            assert sled.asked.count("put") <= PUTS_PER_SLED
            sled.faults.busy = 0
            await fleet.until_replicated(within_s=20)

    run(scenario())


def test_a_sled_that_wants_to_be_left_alone_for_minutes_is_until_then() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=1) as fleet:
            coordinator = await fleet.coordinator()
            sled = fleet.sleds[0]
            sled.faults.busy, sled.faults.retry_after_s = 10**9, 300
            await coordinator.upload("1", fleet.artifacts(MIB))
            await fleet.until(lambda: "put" in sled.asked, within_s=5)
            await asyncio.sleep(290)
            assert sled.asked.count("put") == 1
            sled.faults.busy = 0
            await fleet.until_replicated(within_s=100)

    run(scenario())


def test_a_full_sled_is_not_asked_over_and_over() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=1) as fleet:
            coordinator = await fleet.coordinator()
            fleet.sleds[0].faults.full = True
            await coordinator.upload("1", fleet.artifacts(MIB))
            await asyncio.sleep(3600)
            assert fleet.sleds[0].asked.count("put") < 10
            assert fleet.sleds[0].asked.count("put_config") < 80

    run(scenario())


def test_a_full_sled_is_named_with_what_it_has_no_room_for_until_it_has_some() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=2) as fleet:
            coordinator = await fleet.coordinator()
            full_one = fleet.sleds[0]
            full_one.faults.full = True
            artifacts = fleet.artifacts(MIB, 2 * MIB)
            await coordinator.upload("1", artifacts)
            await asyncio.sleep(300)
            assert coordinator.cycle is not None
            ((sled_id, refused),) = coordinator.cycle.no_room().items()
            assert (sled_id, set(refused)) == (full_one.id, set(artifacts))
            assert all("507" in why for why in refused.values())
            full_one.faults.full = False
            await fleet.until_replicated(within_s=3600)
            await asyncio.sleep(60)
            assert coordinator.cycle.no_room() == {}

    run(scenario())


@pytest.mark.parametrize("bad", [forgets, cannot_copy, busy])
def test_a_sled_where_it_never_works_makes_no_storm_of_requests(
    bad: Callable[[SimSled], None],
) -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=3) as fleet:
            coordinator = await fleet.coordinator()
            bad(fleet.sleds[0])
            await coordinator.upload("1", fleet.artifacts(*[MIB] * 3))
            await asyncio.sleep(3600)
            asked = fleet.sleds[0].asked
            assert asked.count("put") + asked.count("copy") < 600
            assert asked.count("put_config") < 150

    run(scenario())


def test_f4_no_sled_is_given_more_than_its_share_at_once() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=3) as fleet:
            coordinator = await fleet.coordinator()
            await coordinator.upload("1", fleet.artifacts(*[8 * MIB] * 50))
            await fleet.until_replicated(within_s=200)
            assert all(sled.most_at_once <= 6 for sled in fleet.sleds)

    run(scenario())


def test_a_sled_that_lost_its_config_is_told_again_and_gets_everything() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            await coordinator.upload("1", fleet.artifacts(*[MIB] * 3))
            await fleet.until_replicated()
            sled = fleet.sleds[1]
            await sled.reset()
            sled.lose(list(sled.held))
            await fleet.until_replicated(within_s=70)

    run(scenario())


def test_a_database_that_moved_on_ends_the_pass_and_puts_no_sled_aside() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            one = await fleet.coordinator("one")
            two = await fleet.coordinator("two")
            await one.upload("1", fleet.artifacts(*[MIB] * 5))
            await fleet.until_replicated()
            for number in range(10):
                await two.upload(f"2.{number}", fleet.artifacts(MIB, first=10 + number))
                await one.upload(f"3.{number}", fleet.artifacts(MIB, first=30 + number))
            await fleet.until_replicated(within_s=60)
            await fleet.until(lambda: not one.staging.content | two.staging.content, within_s=130)
            assert not [
                sighting
                for sighting in fleet.database.sightings.values()
                if sighting.state is not SledState.OK
            ]

    run(scenario())


def test_a_sled_that_is_ahead_for_good_is_told_once_the_generation_is_advanced() -> None:
    async def scenario() -> None:
        async with SimFleet() as fleet:
            coordinator = await fleet.coordinator()
            fleet.sleds[0].generation = Generation(77)
            await coordinator.upload("1", fleet.artifacts(MIB))
            await fleet.until(lambda: fleet.state("sled-0") is SledState.AHEAD, within_s=70)
            error = fleet.database.sightings["sled-0"].error
            assert error is not None
            assert "77" in error
            fleet.database.generation = 78
            coordinator.wake()
            await fleet.until_replicated(within_s=10)
            await fleet.until(lambda: fleet.state("sled-0") is SledState.OK, within_s=5)

    run(scenario())


def test_f4_a_sled_that_was_slow_before_is_the_last_to_get_a_release_and_delays_nobody() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=6) as fleet:
            coordinator = await fleet.coordinator()
            slow = fleet.sleds[0]
            slow.faults.bytes_per_s = 5 * MIB
            await coordinator.upload("1", fleet.artifacts(*[64 * MIB] * 6))
            await fleet.until_replicated(within_s=300)
            await coordinator.upload("2", fleet.artifacts(*[64 * MIB] * 6, first=10))
            others = {sled.id for sled in fleet.sleds[1:]}
            took_s = await fleet.until(
                lambda: not others & {sled_id for sled_id, _ in fleet.missing()}, within_s=300
            )
            assert took_s < 64 / 5
            await fleet.until_replicated(within_s=300)

    run(scenario())
