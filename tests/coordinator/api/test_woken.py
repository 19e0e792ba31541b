"""What has a pass begin before its period is over, in real time: the period is an hour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from coordinator.client import CoordinatorClient
from coordinator.replication_wire import ReplicationBody
from tests.coordinator.api.test_replication import GIVE_UP_S, is_filled, upload
from tests.coordinator.releases.builder import small_release
from tests.coordinator.running import client_of, coordinating
from tests.unit.fake_node import FakeNode, copy_document

HOURLY = {"activation": "periodic", "period_s": 3600, "min_sled_replication": 1}
SILENT = {"GET /status", "PUT /artifacts-config"}


@pytest.fixture
async def hourly(tmp_path: Path) -> AsyncIterator[CoordinatorClient]:
    async with (
        coordinating(tmp_path, replication=HOURLY) as coordinator,
        client_of(coordinator) as client,
    ):
        yield client


@pytest.fixture
def pair(node: FakeNode) -> Iterator[tuple[FakeNode, FakeNode]]:
    """Two sleds whose copies, of what the other one has, succeed when they are asked after."""
    with FakeNode() as other:
        fetch_from(node, other)
        fetch_from(other, node)
        yield node, other


def fetch_from(target: FakeNode, source: FakeNode) -> None:
    def fetched(request: str) -> None:
        method, _, path = request.partition(" ")
        if path.endswith("/copy-from-depot"):
            sha256 = path.split("/")[2]
            done = copy_document(sha256, "succeeded", 1, 1)
            target.script[f"GET /copies/copy-{sha256[:8]}"] = [(200, done)]
        elif method == "GET" and path.startswith("/copies/copy-"):
            (sha256,) = (each for each in source.held if path.endswith(each[:8]))
            target.held[sha256] = source.held[sha256]

    target.before = fetched


async def until(
    client: CoordinatorClient, holds: Callable[[ReplicationBody], bool]
) -> ReplicationBody:
    """Ask again and again; nothing has a pass begin by that."""
    found = await client.replication()
    async with asyncio.timeout(GIVE_UP_S):
        while not holds(found):
            await asyncio.sleep(0.02)
            found = await client.replication()
    return found


def state_of(found: ReplicationBody) -> str | None:
    return found.sleds[0].state


async def test_an_unreachable_sled_that_registers_again_is_asked_at_once(
    hourly: CoordinatorClient, node: FakeNode
) -> None:
    node.breaks_off = set(SILENT)
    await hourly.put_sled("s1", node.agent_url)
    found = await until(
        hourly, lambda found: state_of(found) == "unreachable" and not found.last_pass.running
    )
    passes = found.last_pass.passes
    node.breaks_off.clear()
    await hourly.put_sled("s1", node.agent_url)
    found = await until(hourly, lambda found: state_of(found) == "ok")
    assert found.last_pass.passes > passes


async def test_a_new_sled_and_an_upload_are_looked_after_at_once(
    hourly: CoordinatorClient, node: FakeNode
) -> None:
    await until(hourly, lambda found: bool(found.last_pass.passes) and not found.last_pass.running)
    await hourly.put_sled("s1", node.agent_url)
    await until(hourly, lambda found: state_of(found) == "ok" and not found.last_pass.running)
    await upload(hourly, small_release())
    await until(hourly, is_filled)


async def test_a_pass_follows_at_once_when_copies_have_finished(
    hourly: CoordinatorClient, pair: tuple[FakeNode, FakeNode]
) -> None:
    """Only lists that were made after that show that staging can let go."""
    for number, sled in enumerate(pair):
        await hourly.put_sled(f"s{number}", sled.agent_url)
    await until(
        hourly,
        lambda found: (
            {each.state for each in found.sleds} == {"ok"} and not found.last_pass.running
        ),
    )
    await upload(hourly, small_release())
    await until(hourly, lambda found: is_filled(found) and not found.staging.artifacts)
    assert sum(len(sled.started) for sled in pair) == 2
    assert pair[0].held == pair[1].held
