"""A chain of real agents: each copies from the one before while that is still receiving."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from tests import ondisk
from tests.system.agents import RunningAgent
from tests.system.asking import TIMEOUT_S, ask, connect, put_config, read_answer, status_of

MIB: Final = 1 << 20
CONTENT: Final = Random(9).randbytes(8 * MIB + 77)
NAME: Final = ondisk.sha256(CONTENT)
SENT_BYTES: Final = 5 * MIB + 100
LOOK_AGAIN_S: Final = 0.02


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Sequence[RunningAgent]]:
    agents = [RunningAgent(tmp_path / f"node-{index}").prepare() for index in range(3)]
    try:
        for agent in agents:
            agent.spawn()
        for agent in agents:
            agent.wait_ready()
            assert put_config(agent, 1, NAME).status == 204
        yield agents
    finally:
        for agent in agents:
            agent.close()


class Upload:
    """A put that has sent a part of its body, and the rest when it is told to."""

    def __init__(self, agent: RunningAgent) -> None:
        self._connection: http.client.HTTPConnection = connect(agent.agent_url)
        self._connection.putrequest("PUT", f"/artifacts/{NAME}?generation=1")
        self._connection.putheader("Content-Length", str(len(CONTENT)))
        self._connection.endheaders()
        self._connection.send(CONTENT[:SENT_BYTES])

    def finish(self) -> None:
        self._connection.send(CONTENT[SENT_BYTES:])
        answer = read_answer(self._connection)
        self._connection.close()
        assert (answer.status, answer.body["successful_writes"]) == (200, 2)

    def break_off(self) -> None:
        self._connection.close()


def copy(agent: RunningAgent, *sources: RunningAgent) -> str:
    """Have it copied; a source that has not begun to receive is asked again."""
    first, *others = [source.depot_url for source in sources]
    body = {"depot_base_url": first, "depot_base_urls": others}
    deadline = time.monotonic() + TIMEOUT_S
    path = f"/artifacts/{NAME}/copy-from-depot?generation=1"
    while (answer := ask(agent.agent_url, path, "POST", body)).status != 202:
        assert (answer.status, time.monotonic() < deadline) == (502, True), answer
        time.sleep(LOOK_AGAIN_S)
    copy_id: str = answer.body["copy_id"]
    return copy_id


def record(agent: RunningAgent, copy_id: str) -> dict[str, Any]:
    body: dict[str, Any] = ask(agent.agent_url, f"/copies/{copy_id}").body
    return body


def await_bytes(agent: RunningAgent, copy_id: str, size_bytes: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while (found := record(agent, copy_id))["bytes_done"] < size_bytes:
        assert found["state"] == "running", found
        assert time.monotonic() < deadline, found
        time.sleep(LOOK_AGAIN_S)


def await_end(agent: RunningAgent, copy_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + TIMEOUT_S
    while (found := record(agent, copy_id))["state"] == "running":
        assert time.monotonic() < deadline, found
        time.sleep(LOOK_AGAIN_S)
    return found


def held(agent: RunningAgent) -> list[set[str]]:
    assert [ondisk.wrong_bytes(dataset) for dataset in agent.datasets] == [[], []]
    return [set(ondisk.artifact_files(dataset)) for dataset in agent.datasets]


def test_a_chain_passes_on_an_upload_that_has_not_ended(fleet: Sequence[RunningAgent]) -> None:
    first, second, third = fleet
    upload = Upload(first)
    copies = [copy(second, first), copy(third, second)]
    await_bytes(third, copies[1], 5 * MIB)

    assert [held(agent) for agent in fleet] == [[set(), set()]] * 3
    relaying = status_of(second)["relay"]
    assert (relaying["arriving"], relaying["readers"]) == (1, 1)

    upload.finish()
    for agent, copy_id in zip(fleet[1:], copies, strict=True):
        ended = await_end(agent, copy_id)
        assert (ended["state"], ended["successful_writes"]) == ("succeeded", 2), ended
        assert held(agent) == [{NAME}, {NAME}]
    assert status_of(second)["relay"] == {
        "offered": True,
        "arriving": 0,
        "readers": 0,
        "sent_bytes": len(CONTENT),
    }
    figures = ask(second.agent_url, "/metrics").body.decode().splitlines()
    (relayed,) = [line for line in figures if line.startswith("sled_depot_relay_bytes_total ")]
    assert float(relayed.split()[1]) == len(CONTENT)


def test_when_a_relay_is_killed_the_next_goes_on_with_the_one_before_it(
    fleet: Sequence[RunningAgent],
) -> None:
    first, second, third = fleet
    upload = Upload(first)
    copy(second, first)
    copy_id = copy(third, second, first)
    await_bytes(third, copy_id, 5 * MIB)
    second.kill()
    upload.finish()

    ended = await_end(third, copy_id)
    assert (ended["state"], ended["successful_writes"]) == ("succeeded", 2), ended
    assert held(third) == [{NAME}, {NAME}]
    second.start()
    assert held(second) == [set(), set()]
    assert [ondisk.staged_files(dataset) for dataset in second.datasets] == [[], []]


def test_when_the_upload_is_broken_off_nothing_is_left_anywhere(
    fleet: Sequence[RunningAgent],
) -> None:
    first, second, third = fleet
    upload = Upload(first)
    copies = [copy(second, first), copy(third, second)]
    await_bytes(third, copies[1], 5 * MIB)
    upload.break_off()

    for agent, copy_id in zip(fleet[1:], copies, strict=True):
        assert await_end(agent, copy_id)["state"] == "failed"
    for agent in fleet:
        assert held(agent) == [set(), set()]
        assert [ondisk.staged_files(dataset) for dataset in agent.datasets] == [[], []]
        assert [each["reserved_bytes"] for each in status_of(agent)["datasets"]] == [0, 0]
