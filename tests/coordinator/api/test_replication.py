"""A coordinator and one scripted sled, from the upload to convergence, by way of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from coordinator.assembly import Coordinator
from coordinator.cli.waiting import Goal, what_is_left
from coordinator.client import CoordinatorClient
from coordinator.replication_wire import ReplicationBody
from depot.artifact import ArtifactHash
from depot.errors import Refused
from tests.coordinator.releases.builder import ReleaseBuilder, small_release, zip_bytes
from tests.unit.fake_node import FakeNode

GIVE_UP_S = 60


@pytest.fixture
def builder() -> ReleaseBuilder:
    return small_release()


async def upload(client: CoordinatorClient, builder: ReleaseBuilder) -> None:
    await client.add_trust_root(builder.trusted)
    await client.upload_release(zip_bytes(builder.publish()), file_name="x.zip")


async def until(
    client: CoordinatorClient, holds: Callable[[ReplicationBody], bool]
) -> ReplicationBody:
    """Have pass after pass made until something holds."""
    async with asyncio.timeout(GIVE_UP_S):
        while not holds(found := await client.replication()):
            if not found.last_pass.running:
                await client.activate()
            await asyncio.sleep(0.02)
        return found


def is_filled(found: ReplicationBody) -> bool:
    return bool(found.releases) and all(
        each.fully_replicated == each.artifacts for each in found.releases
    )


async def test_f1_what_is_uploaded_gets_to_the_sled_and_leaves_the_staging(
    running: Coordinator, client: CoordinatorClient, node: FakeNode, builder: ReleaseBuilder
) -> None:
    await client.put_sled("s1", node.agent_url)
    await upload(client, builder)
    before = await client.replication()
    assert before.staging.only_here == 2
    assert (before.releases[0].missing, before.sleds[0].artifacts_present) == (2, 0)
    found = await until(client, lambda found: is_filled(found) and not found.staging.artifacts)
    assert found.requests.lifetime["put_ok"] == 2
    sled = found.sleds[0]
    assert (sled.state, sled.generation, sled.bytes_to_go) == ("ok", found.generation, 0)
    assert (sled.artifacts, sled.artifacts_present, sled.copies) == (2, 2, {"2": 2})
    assert len(node.held) == 2
    assert not running.staging.held()


async def test_the_history_is_filtered_by_artifact_and_sled(
    client: CoordinatorClient, node: FakeNode, builder: ReleaseBuilder
) -> None:
    await client.put_sled("s1", node.agent_url)
    await upload(client, builder)
    await until(client, lambda found: found.requests.lifetime.get("put_ok") == 2)
    artifact = ArtifactHash.parse(sorted(node.held)[0])
    [put] = await client.history(artifact=artifact)
    assert (put.operation, put.sled, put.artifact) == ("put", "s1", str(artifact))
    assert (put.source, put.error) == ("staging", None)
    assert await client.history(artifact=artifact, sled_id="nobody") == ()
    [newest] = await client.history(limit=1)
    assert newest in await client.history(sled_id="s1")  # a pass may have asked more by now
    with pytest.raises(Refused, match="limit"):
        await client.history(limit=4097)


async def test_a_release_with_an_artifact_that_is_nowhere_is_incomplete_until_it_is_uploaded_again(
    client: CoordinatorClient, node: FakeNode, builder: ReleaseBuilder
) -> None:
    await client.put_sled("s1", node.agent_url)
    await upload(client, builder)
    await until(client, lambda found: is_filled(found) and not found.staging.artifacts)
    lost = sorted(node.held)[0]
    content = node.held.pop(lost)
    found = await until(client, lambda found: found.releases[0].state == "incomplete")
    assert [each.sha256 for each in found.releases[0].lost] == [lost]
    with pytest.raises(Refused) as caught:
        await client.set_target_release("1.0.0")
    assert (caught.value.status, caught.value.remote_code) == (409, "ReleaseUnusable")
    await upload(client, builder)
    found = await until(client, is_filled)
    assert (found.releases[0].state, node.held[lost]) == ("complete", content)


async def test_a_removed_release_is_dropped_by_the_sled(
    client: CoordinatorClient, node: FakeNode, builder: ReleaseBuilder
) -> None:
    await client.put_sled("s1", node.agent_url)
    await upload(client, builder)
    await until(client, is_filled)
    await client.remove_release("1.0.0")
    found = await until(client, lambda found: found.sleds[0].generation == found.generation)
    assert found.sleds[0].artifacts == 0
    assert node.config == (found.generation, [])


async def test_f1_a_fleet_converges_while_a_sled_has_pinned_what_no_release_has(
    client: CoordinatorClient, node: FakeNode, builder: ReleaseBuilder
) -> None:
    await client.put_sled("s1", node.agent_url)
    await upload(client, builder)
    await until(client, is_filled)
    pinned = (await client.release("1.0.0")).artifacts[0].sha256
    node.pins = {"mine": [pinned]}
    await client.remove_release("1.0.0")
    await until(client, lambda found: node.config == (found.generation, [pinned]))
    found = await until(client, lambda found: found.sleds[0].generation == found.generation)
    assert not list(what_is_left(Goal(found.generation), found))


async def test_with_manual_activation_nothing_is_done_unasked(
    running: Coordinator, client: CoordinatorClient, node: FakeNode, builder: ReleaseBuilder
) -> None:
    await client.put_sled("s1", node.agent_url)
    await upload(client, builder)
    found = await client.replication()
    assert (found.activation, found.last_pass.passes) == ("manual", 0)
    assert node.requests["PUT /artifacts-config"] == 0
    assert running.staging.held()


async def test_quiescing_ends_when_nothing_is_only_here(
    running: Coordinator, client: CoordinatorClient, node: FakeNode, builder: ReleaseBuilder
) -> None:
    await client.put_sled("s1", node.agent_url)
    await upload(client, builder)
    assert await client.quiesce() == 2
    assert (await client.replication()).quiescing
    async with asyncio.timeout(GIVE_UP_S):
        await running.quiesce.done.wait()
    assert len(node.held) == 2


async def test_f5_what_no_sled_took_stays_in_the_staging_when_time_is_up(
    running: Coordinator, client: CoordinatorClient, builder: ReleaseBuilder
) -> None:
    await upload(client, builder)
    await running.quiesce.settle(0.0)
    assert not running.quiesce.done.is_set()
    assert len(running.staging.held()) == 2
    with pytest.raises(Refused) as caught:
        await client.upload_release(b"x", file_name="x")
    assert caught.value.remote_code == "Quiescing"


async def test_pruning_leaves_what_a_sled_has_pinned(
    client: CoordinatorClient, node: FakeNode, builder: ReleaseBuilder
) -> None:
    await client.put_sled("s1", node.agent_url)
    await upload(client, builder)
    node.pins = {"mine": [(await client.release("1.0.0")).artifacts[0].sha256]}
    pruned = await client.prune_releases(keep_newest=0, keep_previous_targets=0)
    assert pruned.removed == ()
    node.pins = {}
    would = await client.prune_releases(keep_newest=0, dry_run=True)
    assert (would.dry_run, would.removed) == (True, ("1.0.0",))
    assert (await client.prune_releases(keep_newest=1)).removed == ()
    assert (await client.prune_releases(keep_newest=0)).removed == ("1.0.0",)
    assert [each async for each in client.releases()] == []


async def test_pruning_leaves_what_a_sled_that_cannot_be_asked_may_have_pinned(
    client: CoordinatorClient, node: FakeNode, builder: ReleaseBuilder
) -> None:
    await client.put_sled("s1", node.agent_url)
    await upload(client, builder)
    await until(client, lambda found: is_filled(found) and found.sleds[0].state == "ok")
    await client.put_sled("s1", "http://127.0.0.1:9")
    pruned = await client.prune_releases(keep_newest=0, keep_previous_targets=0)
    assert [(each.version, "'s1'" in each.why) for each in pruned.kept] == [("1.0.0", True)]
    await client.set_sled_policy("s1", "expunged")
    pruned = await client.prune_releases(keep_newest=0, keep_previous_targets=0)
    assert pruned.removed == ("1.0.0",)


async def test_nothing_is_pruned_while_an_upload_runs(
    running: Coordinator, client: CoordinatorClient, builder: ReleaseBuilder
) -> None:
    await upload(client, builder)
    async with running.desk.admitted():
        with pytest.raises(Refused) as caught:
            await client.prune_releases(keep_newest=0)
    assert (caught.value.status, caught.value.remote_code) == (409, "UploadRunning")
