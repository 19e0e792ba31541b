"""Coordinators that are gone, and what was only in their staging."""

from __future__ import annotations

import asyncio
import io

import pytest

from coordinator.api.presence import GONE_AFTER_S, Presence
from coordinator.assembly import Coordinator
from coordinator.client import CoordinatorClient
from coordinator.database import coordinators, releases, staged
from coordinator.replication_wire import ReplicationBody
from coordinator.values import Release, ReleaseArtifact, ReleaseState
from depot.artifact import ArtifactHash
from depot.errors import Refused
from tests.coordinator.releases.builder import NOW_S
from tests.unit.fake_node import FakeNode

CONTENT = b"only there"
DEAD = "11111111-2222-4333-8444-555555555555"
ONLY_THERE = ArtifactHash.of(CONTENT)
GIVE_UP_S = 60
RELEASE = Release(
    version="1.0",
    sha256=ONLY_THERE,
    file_name="x.zip",
    time_created_s=NOW_S,
    allowed_expired=False,
    state=ReleaseState.COMPLETE,
    artifacts=(ReleaseArtifact("one", "1", ONLY_THERE, 10),),
)


async def another_one(running: Coordinator, *, last_seen_s: float) -> None:
    """A coordinator that took a release, and was then last seen."""
    await running.database.run(coordinators.note, DEAD, "elsewhere", last_seen_s)
    await running.database.run(releases.record, RELEASE)
    await running.database.run(staged.add, DEAD, {ONLY_THERE})


async def a_pass(client: CoordinatorClient) -> ReplicationBody:
    """Have a pass made, and wait for it."""
    before = (await client.replication()).last_pass.passes
    await client.activate()
    async with asyncio.timeout(GIVE_UP_S):
        while True:
            found = await client.replication()
            if found.last_pass.passes > before and not found.last_pass.running:
                return found
            await asyncio.sleep(0.02)


async def test_a_coordinator_says_that_it_is_there(
    running: Coordinator, client: CoordinatorClient
) -> None:
    found = await client.coordinators()
    assert found.coordinator_id == running.staging.id
    [own] = found.items
    assert own.last_seen is not None
    assert (own.id, own.last_seen.timestamp(), own.staged) == (running.staging.id, NOW_S, 0)


async def test_f2_what_only_a_forgotten_coordinator_had_is_lost_and_was_not_before(
    running: Coordinator, client: CoordinatorClient, node: FakeNode
) -> None:
    await client.put_sled("s1", node.agent_url)
    await another_one(running, last_seen_s=NOW_S - GONE_AFTER_S - 1)
    found = await a_pass(client)
    assert found.releases[0].state == "complete"
    assert [(each.id, each.only_there) for each in found.coordinators if each.staged] == [(DEAD, 1)]
    assert [DEAD in warning for warning in found.warnings] == [True]
    await client.forget_coordinator(DEAD)
    assert [each.id for each in (await client.coordinators()).items] == [running.staging.id]
    found = await a_pass(client)
    assert found.releases[0].state == "incomplete"
    assert [each.sha256 for each in found.releases[0].lost] == [str(ONLY_THERE)]
    assert found.warnings == ()


async def test_a_coordinator_that_was_there_lately_is_forgotten_by_force_only(
    running: Coordinator, client: CoordinatorClient
) -> None:
    await another_one(running, last_seen_s=NOW_S - GONE_AFTER_S + 1)
    assert (await client.replication()).warnings == ()
    with pytest.raises(Refused) as caught:
        await client.forget_coordinator(DEAD)
    assert (caught.value.status, caught.value.remote_code) == (409, "CoordinatorActive")
    await client.forget_coordinator(DEAD, force=True)
    with pytest.raises(Refused) as caught:
        await client.forget_coordinator(DEAD)
    assert (caught.value.status, caught.value.remote_code) == (404, "NotFound")


async def test_a_coordinator_is_not_asked_to_forget_itself(
    running: Coordinator, client: CoordinatorClient
) -> None:
    with pytest.raises(Refused, match="this coordinator") as caught:
        await client.forget_coordinator(running.staging.id, force=True)
    assert caught.value.remote_code == "CoordinatorActive"
    with pytest.raises(Refused, match="expected a UUID"):
        await client.forget_coordinator("x" * 80)


async def test_f5_one_that_was_forgotten_by_mistake_says_again_what_it_has_staged(
    running: Coordinator,
) -> None:
    async with running.staging.claim({ONLY_THERE: len(CONTENT)}) as claim:
        await claim.hold(ONLY_THERE, io.BytesIO(CONTENT))
    presence = Presence(running.database, running.staging, "here", clock=lambda: NOW_S)
    await running.database.run(coordinators.forget, running.staging.id)
    assert await running.database.run(staged.by_coordinator) == {}
    await presence.tell()
    expected = {running.staging.id: {ONLY_THERE}}
    assert await running.database.run(staged.by_coordinator) == expected


async def test_f5_what_another_coordinator_has_staged_as_well_is_not_safe_by_that(
    running: Coordinator, client: CoordinatorClient
) -> None:
    async with running.staging.claim({ONLY_THERE: len(CONTENT)}) as claim:
        await claim.hold(ONLY_THERE, io.BytesIO(CONTENT))
    await another_one(running, last_seen_s=NOW_S)
    assert (await client.replication()).staging.only_here == 1
    assert await client.quiesce() == 1
    await a_pass(client)
    assert not running.quiesce.done.is_set()
