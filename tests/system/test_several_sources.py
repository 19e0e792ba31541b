"""Real agents: a copy that is faster from two peers than either of them may send."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests import ondisk
from tests.system.agents import RunningAgent
from tests.system.asking import ask, put, put_config

MIB: Final = 1 << 20
RATE: Final = 8 * MIB
CONTENT: Final = random.Random(17).randbytes(48 * MIB)
NAME: Final = ondisk.sha256(CONTENT)
LOOK_AGAIN_S: Final = 0.02


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[list[RunningAgent]]:
    """Two that hold the artifact, and may each send so much a second."""
    with ExitStack() as stack:
        agents = [
            stack.enter_context(
                RunningAgent(
                    tmp_path / f"peer-{number}",
                    env={
                        "SLED_AGENT__DEPOT__LISTEN": f"127.0.0.{number}:0",
                        "SLED_AGENT__DEPOT__MAX_BYTES_PER_S": str(RATE),
                    },
                )
            )
            for number in (2, 3)
        ]
        for agent in agents:
            assert put_config(agent, 1, NAME).status == 204
            assert put(agent, NAME, 1, CONTENT).status == 200
        yield agents


def copy(home: Path, peers: list[RunningAgent], max_sources: int) -> tuple[dict[str, Any], float]:
    """What came of a copy to a new sled, and how long it took."""
    env = {"SLED_AGENT__COPY__MAX_SOURCES": str(max_sources)}
    with RunningAgent(home, env=env) as agent:
        assert put_config(agent, 1, NAME).status == 204
        first, *others = [peer.depot_url for peer in peers]
        body = {"depot_base_url": first, "depot_base_urls": others}
        begin_s = time.monotonic()
        begun = ask(
            agent.agent_url, f"/artifacts/{NAME}/copy-from-depot?generation=1", "POST", body
        )
        assert begun.status == 202, begun
        path = f"/copies/{begun.body['copy_id']}"
        while (record := ask(agent.agent_url, path).body)["state"] == "running":
            time.sleep(LOOK_AGAIN_S)
        took_s = time.monotonic() - begin_s
        assert [ondisk.sha256((d / NAME).read_bytes()) for d in agent.datasets] == [NAME] * 2
    return record, took_s


def test_two_peers_together_give_more_than_one_may(
    tmp_path: Path, peers: list[RunningAgent]
) -> None:
    (one, one_s), (several, several_s) = (
        copy(tmp_path / f"node-{max_sources}", peers, max_sources) for max_sources in (1, 4)
    )
    assert (one["state"], several["state"]) == ("succeeded", "succeeded")
    # Two steps, of a twentieth of a second each, may come at once.
    assert one_s >= 0.9 * (len(CONTENT) / RATE - 0.1)
    assert several_s < 0.9 * one_s
