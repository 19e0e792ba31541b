"""The journal over HTTP: what was done is in it at once, and proved by what is answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable
from pathlib import Path

import pytest

from coordinator.client import CoordinatorClient
from coordinator.journal.checkpoints import opened
from coordinator.journal.notes import VerifierKey
from coordinator.journal.proofs import verify_consistency, verify_inclusion
from coordinator.journal.tree import leaf_hash
from depot.errors import Refused
from tests.coordinator.releases.builder import ReleaseBuilder, small_release, zip_bytes
from tests.coordinator.running import client_of, coordinating
from tests.unit.fake_node import FakeNode


async def add_sleds(client: CoordinatorClient, *ids: str) -> None:
    for sled_id in ids:
        await client.put_sled(sled_id, f"http://127.0.0.{sled_id[1:]}:1")


async def test_what_was_done_is_found_at_once(tmp_path: Path) -> None:
    async with coordinating(tmp_path) as coordinator, client_of(coordinator) as client:
        await add_sleds(client, "s1", "s2")
        await client.set_sled_policy("s1", "expunged")
        await client.advance_generation(9)
        everything = [entry async for entry in client.journal.entries(limit=2)]
        of_s1 = [entry.kind async for entry in client.journal.entries(sled="s1")]
        fleet = [entry.index async for entry in client.journal.entries(1, kind="fleet.sled")]
    assert [entry.index for entry in everything] == [0, 1, 2, 3]
    assert [entry.kind for entry in everything][2:] == [
        "fleet.sled_expunged",
        "fleet.generation_raised",
    ]
    assert of_s1 == ["fleet.sled_added", "fleet.sled_expunged"]
    assert fleet == [1, 2]
    assert json.loads(everything[3].content)["data"] == {"by_hand": True, "generation": 9}


async def kinds_after(client: CoordinatorClient, change: Awaitable[object]) -> list[str]:
    """What is told of a change, by the kinds of the entries."""
    before = (await client.journal.shards())[-1]
    await change
    begin = before.first_index + before.size
    return [entry.kind for entry in [entry async for entry in client.journal.entries(begin)]]


async def test_each_change_of_the_fleet_is_told_once(
    client: CoordinatorClient, node: FakeNode
) -> None:
    root, raised = ReleaseBuilder().trusted, "fleet.generation_raised"
    first, second = (zip_bytes(small_release(version).publish()) for version in ("1.0.0", "2.0.0"))
    node.config = (17, [])
    node.script["POST /artifacts-config/reset"] = [(204, {})]

    async def told(change: Awaitable[object]) -> list[str]:
        return await kinds_after(client, change)

    assert await told(client.add_trust_root(root)) == ["fleet.trust_root_added"]
    assert await told(client.add_trust_root(root)) == []
    for content in (first, second):
        uploading = client.upload_release(content, file_name="release.zip")
        assert await told(uploading) == [raised, "fleet.release_uploaded"]
    assert await told(client.set_target_release("2.0.0")) == ["fleet.target_set"]
    assert await told(client.set_target_release("2.0.0")) == []
    pruning = client.prune_releases(keep_newest=0, keep_previous_targets=0)
    assert await told(pruning) == [raised, "fleet.release_pruned"]
    assert await told(client.advance_generation(90)) == [raised]
    assert await told(client.put_sled("s1", node.agent_url)) == ["fleet.sled_added"]
    assert await told(client.put_sled("s1", node.agent_url)) == []
    assert await told(client.reset_sled("s1")) == ["fleet.sled_reset"]
    assert await told(client.set_sled_policy("s1", "expunged")) == ["fleet.sled_expunged"]
    assert await told(client.remove_sled("s1")) == ["fleet.sled_removed"]
    assert await told(client.journal.rotate()) == ["journal.shard_sealed"]
    # The first entry of a shard says how the one before it ended.
    opened_by = await told(client.remove_trust_root(hashlib.sha256(root).hexdigest()))
    assert opened_by == ["journal.shard_opened", "fleet.trust_root_removed"]


async def test_a_proof_is_verified_with_the_key_alone_and_holds_after_a_rotation(
    tmp_path: Path,
) -> None:
    async with coordinating(tmp_path) as coordinator, client_of(coordinator) as client:
        await add_sleds(client, "s1", "s2", "s3")
        before = await client.journal.checkpoint()
        made = await client.journal.rotate(before.shard)
        again = await client.journal.rotate(before.shard)
        await add_sleds(client, "s4")
        growth = await client.journal.growth(before.shard, before.size, before.size + 1)
        proof = await client.journal.proof(1)
        shards = await client.journal.shards()
    assert (made.done, again.done, again.active.id) == (True, False, made.active.id)
    assert [shard.state for shard in shards] == ["sealed", "active"]
    key = VerifierKey.parse(before.verifier_key)
    now = opened(proof.checkpoint.note, key)
    hashes = tuple(map(bytes.fromhex, proof.hashes))
    verify_inclusion(leaf_hash(proof.entry.content.encode()), 1, now.size, hashes, now.root)
    then = opened(before.note, key)
    grown = tuple(map(bytes.fromhex, growth.hashes))
    verify_consistency(then.size, now.size, grown, then.root, now.root)


async def test_a_rotation_is_undone_until_something_happened(tmp_path: Path) -> None:
    async with coordinating(tmp_path) as coordinator, client_of(coordinator) as client:
        await add_sleds(client, "s1")
        first = (await client.journal.rotate()).sealed
        undone = await client.journal.rotate(undo=True)
        await client.journal.rotate()
        await add_sleds(client, "s2")
        await client.journal.checkpoint()
        with pytest.raises(Refused) as caught:
            await client.journal.rotate(undo=True)
    assert first is not None
    assert undone.active.id == first.id
    assert (caught.value.status, caught.value.remote_code) == (409, "ShardInUse")


async def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    async with coordinating(tmp_path) as coordinator, client_of(coordinator) as client:
        with pytest.raises(Refused) as caught:
            await client.journal.entry(0)
        assert (caught.value.status, caught.value.remote_code) == (404, "NotFound")
        with pytest.raises(Refused) as caught:
            await client.journal.growth("0" * 16, 0, 1)
        assert caught.value.status == 404
