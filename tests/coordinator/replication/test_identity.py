"""Which machine answers at a sled's address, what it offers, and how soon one that is back is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

from agent.wire.identity import IdentityBody
from coordinator.replication.identity import BELIEVED_S, Identities, each_machine_once, other_sled
from coordinator.replication.ports import AsOf
from coordinator.replication.report import SledReport
from coordinator.replication.verdict import Kind
from coordinator.values import Sled, SledState
from tests.coordinator.replication.sim_fleet import SimFleet
from tests.coordinator.replication.virtual import run

MIB = 1 << 20
UUID = str(uuid4())


def reports(**said: str | None) -> dict[str, SledReport]:
    return {
        id_: SledReport(sled_id=id_, as_of=AsOf(0.0, 0), said_id=says) for id_, says in said.items()
    }


def set_aside(found: dict[str, SledReport]) -> set[str]:
    return {id_ for id_, each in each_machine_once(found).items() if each.verdict is not None}


def test_at_the_address_of_an_id_that_an_agent_gave_itself_only_that_one_answers() -> None:
    sled = Sled(UUID, "http://a:1", "http://a:2")
    assert other_sled(sled, IdentityBody(sled_id=UUID)) is None
    assert other_sled(sled, IdentityBody()) is None
    found = other_sled(sled, IdentityBody(sled_id="another"))
    assert found is not None
    assert "another" in found.reason
    assert "http://a:1" in found.reason


def test_an_operator_may_call_a_sled_as_they_like() -> None:
    assert other_sled(Sled("s1", "http://a:1", "http://a:2"), IdentityBody(sled_id=UUID)) is None
    assert set_aside(reports(s1=UUID, s2=None, s3=None)) == set()


def test_f2_a_machine_that_is_listed_twice_counts_once() -> None:
    assert set_aside(reports(b=UUID, a=UUID, c="other")) == {"b"}


def test_whose_id_a_machine_says_is_its_own_is_the_one_that_counts() -> None:
    assert set_aside(reports(a="b", b="b")) == {"a"}
    assert set_aside(reports(a="b", b=None)) == {"a"}


def test_what_a_sled_said_of_itself_is_believed_for_a_while_and_at_that_address() -> None:
    known, sled = Identities(), Sled("s1", "http://a:1", "http://a:2")
    assert known.of(sled, 0.0) is None
    known.learn(sled, IdentityBody(sled_id=UUID), 0.0)
    assert known.of(sled, BELIEVED_S) == IdentityBody(sled_id=UUID)
    assert known.of(sled, BELIEVED_S + 1) is None
    assert known.of(replace(sled, agent_url="http://b:1"), 0.0) is None
    known.forget("s1")
    assert known.of(sled, 0.0) is None


def test_f4_a_wrong_machine_is_told_nothing_and_the_others_get_everything() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=3) as fleet:
            wrong, *_ = fleet.network.add(UUID)
            wrong.says_id = "another"
            coordinator = await fleet.coordinator()
            await coordinator.upload("1", fleet.artifacts(MIB))
            await fleet.until(
                lambda: {sled_id for sled_id, _ in fleet.missing()} == {UUID}, within_s=20
            )
            await fleet.until(lambda: fleet.state(UUID) is SledState.REFUSED, within_s=5)
            assert set(wrong.asked) == {"identity"}
            wrong.says_id = UUID
            await fleet.until_replicated(within_s=70)

    run(scenario())


def test_f2_staging_keeps_what_only_two_machines_of_three_sleds_hold() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=4) as fleet:
            for sled in fleet.sleds[:2]:
                sled.says_id = UUID
            fleet.sleds[3].faults.down = True
            coordinator = await fleet.coordinator()
            artifacts = fleet.artifacts(MIB)
            await coordinator.upload("1", artifacts)
            await asyncio.sleep(200)
            assert coordinator.staging.content == set(artifacts)
            assert fleet.state("sled-1") is SledState.REFUSED

    run(scenario())


def test_who_does_not_say_that_it_relays_is_read_from_when_it_has_all() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=6) as fleet:
            for sled in fleet.sleds:
                sled.has_status = sled.relays = False
            coordinator = await fleet.coordinator()
            await coordinator.upload("1", fleet.artifacts(64 * MIB, 32 * MIB))
            await fleet.until_replicated(within_s=60)
            assert coordinator.cycle is not None
            inventory = coordinator.cycle.reporting.inventory
            assert inventory is not None
            assert not [sled for sled in inventory.sleds if sled.relays]
            await fleet.until(lambda: fleet.database.counts["copy_ok"] > 0, within_s=5)
            assert fleet.database.counts["copy_error"] == fleet.database.counts["deferred"] == 0

    run(scenario())


def test_who_says_that_it_relays_is_read_from_while_it_receives() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=6) as fleet:
            fleet.sleds[2].relays = False
            coordinator = await fleet.coordinator()
            await coordinator.upload("1", fleet.artifacts(64 * MIB))
            await fleet.until_replicated(within_s=60)
            assert coordinator.cycle is not None
            inventory = coordinator.cycle.reporting.inventory
            assert inventory is not None
            assert [sled.id for sled in inventory.sleds if not sled.relays] == ["sled-2"]

    run(scenario())


def test_f4_a_sled_that_is_back_does_not_wait_for_those_that_are_not() -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=100) as fleet:
            coordinator = await fleet.coordinator()
            await coordinator.upload("1", fleet.artifacts(MIB))
            await fleet.until_replicated()
            dead, back = fleet.sleds[:-1], fleet.sleds[-1]
            for sled in fleet.sleds[1:]:
                sled.faults.down = True
            await asyncio.sleep(600)
            assert fleet.state(back.id) is SledState.UNREACHABLE
            back.faults.down = False
            await coordinator.upload("2", fleet.artifacts(MIB, first=1))
            missing_s = await fleet.until(
                lambda: back.id not in {sled_id for sled_id, _ in fleet.missing()}, within_s=400
            )
            # Each of the others takes five seconds not to answer.
            assert missing_s < len(dead) * dead[1].faults.timeout_s / 20

    run(scenario())


def test_the_kind_of_a_wrong_machine_is_shown_as_a_refusal() -> None:
    sled = Sled(UUID, "http://a:1", "http://a:2")
    found = other_sled(sled, IdentityBody(sled_id="another"))
    assert found is not None
    assert (found.kind, found.state) == (Kind.OTHER_SLED, SledState.REFUSED)
