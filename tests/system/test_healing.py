"""Rot under a running agent: right bytes are served, and it is healed without being asked (B5)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from http.client import IncompleteRead
from pathlib import Path
from typing import Any, Final

import pytest

from tests import ondisk
from tests.store.damage import Harm, flip, hurt_file, zero
from tests.system.agents import RunningAgent
from tests.system.asking import TIMEOUT_S, Answer, ask, await_status, put, put_config

MIB: Final = 1 << 20
CONTENT: Final = random.Random(5).randbytes(4 * MIB + 99)
NAME: Final = ondisk.sha256(CONTENT)
ALWAYS: Final = {"SLED_AGENT__STORAGE__VERIFY_READS": "always"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path / "node", env=ALWAYS) as agent:
        yield agent


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path / "peer") as agent:
        yield agent


def stock(agent: RunningAgent) -> None:
    assert put_config(agent, 1, NAME).status == 204
    assert put(agent, NAME, 1, CONTENT).status == 200


def hurt(agent: RunningAgent, index: int, harm: Harm) -> None:
    hurt_file(agent.datasets[index] / NAME, harm)


def get(agent: RunningAgent) -> Answer:
    return ask(agent.depot_url, f"/artifact/sha256/{NAME}")


def events(agent: RunningAgent, kind: str) -> list[dict[str, Any]]:
    found = ask(agent.agent_url, "/events?limit=1000").body["events"]
    return [event for event in found if event["kind"] == kind]


def await_healed(agent: RunningAgent) -> None:
    await_status(
        agent,
        lambda status: status["healing"]["healed"] == 1 and status["healing"]["todo"] == 0,
        within_s=TIMEOUT_S,
    )
    for dataset in agent.datasets:
        assert (dataset / NAME).read_bytes() == CONTENT


def quarantined(agent: RunningAgent) -> list[Path]:
    return [path for dataset in agent.datasets for path in ondisk.quarantined_files(dataset)]


def test_b5_a_rotten_copy_is_served_right_set_aside_and_healed(node: RunningAgent) -> None:
    stock(node)
    hurt(node, 0, flip(2 * MIB))
    answer = get(node)
    assert (answer.status, answer.body == CONTENT) == (200, True)
    await_healed(node)
    (aside,) = quarantined(node)
    assert aside.read_bytes() != CONTENT
    assert [event["from"] for event in events(node, "healed")] == ["mirror"]
    assert [event["sha256"] for event in events(node, "quarantined")] == [NAME]
    assert "quarantined" in node.log()
    listing = ("quarantine", "ls", "--agent", node.agent_url)
    assert NAME[:12] in node.run(*listing).stdout
    assert NAME in node.run(*listing, "--json").stdout


def test_b5_copies_bad_in_different_blocks_are_served_and_healed(node: RunningAgent) -> None:
    stock(node)
    hurt(node, 0, zero(1, 3))
    hurt(node, 1, zero(0, 2))
    answer = get(node)
    assert (answer.status, answer.body == CONTENT) == (200, True)
    await_healed(node)
    assert [event["from"] for event in events(node, "healed")] == ["blocks"]
    assert len(quarantined(node)) == 2


def test_b5_copies_bad_in_the_same_block_are_healed_from_a_peer(
    peer: RunningAgent, tmp_path: Path
) -> None:
    stock(peer)
    env = {**ALWAYS, "SLED_AGENT__HEAL__PEERS": peer.depot_url}
    with RunningAgent(tmp_path / "node", env=env) as node:
        stock(node)
        for index in (0, 1):
            hurt(node, index, flip(2 * MIB + index))
        find_damage(node)
        await_healed(node)
        assert [event["from"] for event in events(node, "healed")] == ["peer"]
        assert events(node, "lost") == []
        assert get(node).body == CONTENT


def test_b5_a_peer_that_a_copy_came_from_is_remembered_over_a_restart(
    peer: RunningAgent, tmp_path: Path
) -> None:
    stock(peer)
    with RunningAgent(tmp_path / "node", env=ALWAYS) as node:
        assert put_config(node, 1, NAME).status == 204
        source = {"depot_base_url": peer.depot_url}
        path = f"/artifacts/{NAME}/copy-from-depot?generation=1"
        assert ask(node.agent_url, path, "POST", source).status == 202
        await_status(node, lambda status: status["copies"]["succeeded"] == 1, within_s=TIMEOUT_S)
        assert node.stop() == 0
        for index in (0, 1):
            hurt(node, index, flip(2 * MIB + index))
        node.start()
        find_damage(node)
        await_healed(node)
        assert [event["from"] for event in events(node, "healed")] == ["peer"]


def test_b6_without_a_peer_it_is_lost_and_nothing_is_deleted(node: RunningAgent) -> None:
    stock(node)
    for index in (0, 1):
        hurt(node, index, flip(2 * MIB + index))
    find_damage(node)
    status = await_status(
        node, lambda status: status["healing"]["lost"]["count"] == 1, within_s=TIMEOUT_S
    )
    assert status["healing"]["lost"]["artifacts"] == [NAME]
    assert len(quarantined(node)) == 2
    assert len(events(node, "lost")) == 1
    answer = get(node)
    assert (answer.status, answer.body["details"]) == (404, {"damaged": 2})
    assert put(node, NAME, 1, CONTENT).status == 200
    await_status(node, lambda status: status["healing"]["lost"]["count"] == 0, within_s=TIMEOUT_S)
    assert get(node).body == CONTENT


def find_damage(agent: RunningAgent) -> None:
    """Read it: the connection is cut where no mirror has the block, unless a scrub was faster."""
    with suppress(IncompleteRead):
        answer = get(agent)
        assert answer.status == 404 or answer.body == CONTENT
