"""Two processes that want the same datasets: the one that came first is not harmed (S3).

That a second agent is refused with exit status 1 and is told the datasets and the pid, and that one
starts with one dataset held, is in `test_sled_agent_cli`. Here the first is at work meanwhile, and
the holder lets go.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests import ondisk
from tests.system.agents import RunningAgent
from tests.system.asking import await_status, put, put_config, status_of
from tests.system.crashing import send

MIB: Final = 1 << 20
CONTENT: Final = b"mirrored" * (MIB // 4)
NAME: Final = ondisk.sha256(CONTENT)
REFUSED_WITHIN_S: Final = 60
HOLDER: Final = """
import fcntl, os, sys
lock = open(sys.argv[1], "r+")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.truncate()
print(os.getpid(), file=lock, flush=True)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningAgent]:
    agent = RunningAgent(tmp_path / "node").prepare()
    yield agent
    agent.close()


class Holder:
    """Another process that holds a dataset's lock; it lets go at the end of the block."""

    def __init__(self, dataset: Path) -> None:
        command = [sys.executable, "-c", HOLDER, str(dataset / ".sled-depot" / "lock")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> int:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"held\n"
        return self.process.pid

    def __exit__(self, *_exc: object) -> None:
        self.process.communicate()


def refused(node: RunningAgent) -> str:
    """Start a second agent with the first one's configuration but for the state directory."""
    second = RunningAgent(node.home, env={"SLED_AGENT__STATE_DIR": str(node.home / "other-state")})
    second.ready_path = node.home / "second-ready.json"
    second.log_path = node.home / "second.log"
    second.spawn()
    try:
        assert second.process is not None
        assert second.process.wait(REFUSED_WITHIN_S) == 1
    finally:
        second.close()
    assert not second.ready_path.exists()
    return second.log()


def test_a_put_of_the_first_agent_is_not_harmed_by_the_start_of_a_second(
    node: RunningAgent,
) -> None:
    node.start()
    assert put_config(node, 1, NAME).status == 204
    said = []

    def start_a_second() -> None:
        # The first bytes are on their way: what they are staged in must survive this.
        said.append(refused(node))

    answer = send(node, "PUT", f"/artifacts/{NAME}?generation=1", CONTENT, start_a_second)

    assert f"pid {node.pid}" in said[0]
    assert all(str(dataset) in said[0] for dataset in node.datasets)
    assert answer is not None
    assert (answer.status, answer.body) == (200, {"datasets": 2, "successful_writes": 2})
    assert [ondisk.wrong_bytes(dataset) for dataset in node.datasets] == [[], []]


def test_the_next_agent_starts_where_the_first_was_killed(node: RunningAgent) -> None:
    node.start()
    assert put_config(node, 1, NAME).status == 204
    assert put(node, NAME, 1, CONTENT).status == 200
    assert "another agent" in refused(node)

    node.kill()
    node.start()

    states = [dataset["state"] for dataset in status_of(node)["datasets"]]
    assert states == ["healthy", "healthy"]


def test_a_dataset_that_another_process_held_is_used_once_it_lets_go(node: RunningAgent) -> None:
    node.start()
    assert put_config(node, 1).status == 204
    node.stop()

    with Holder(node.datasets[0]) as pid:
        node.start()
        assert put_config(node, 2, NAME).status == 204
        answer = put(node, NAME, 2, CONTENT)
        said = status_of(node)["datasets"]
        beside = ondisk.artifact_files(node.datasets[0])

    assert (answer.status, answer.body["successful_writes"]) == (200, 1)
    assert [dataset["state"] for dataset in said] == ["missing", "healthy"]
    assert f"pid {pid}" in said[0]["last_error"]
    assert beside == {}

    await_status(
        node,
        lambda status: (
            [dataset["state"] for dataset in status["datasets"]] == ["healthy", "healthy"]
            and not status["under_replicated"]["count"]
        ),
    )
    for dataset in node.datasets:
        ledger = ondisk.read_ledger(dataset)
        assert ledger is not None
        assert ledger.generation == 2
        assert set(ondisk.artifact_files(dataset)) == {NAME}
        assert ondisk.wrong_bytes(dataset) == []


def test_an_agent_does_not_take_a_dataset_of_another_sled(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(RunningAgent(tmp_path / "first"))
        second = RunningAgent(tmp_path / "second", datasets=1).prepare()
        with second.config_path.open("a") as config:
            config.write(f'[[datasets]]\npath = "{first.datasets[1]}"\n')
        stack.enter_context(second)

        # A slot that may know more keeps a node from its first config (B4), so none is put there.
        states = [dataset["state"] for dataset in status_of(second)["datasets"]]
        stored = put_config(first, 1, NAME).status, put(first, NAME, 1, CONTENT).body

    assert states == ["healthy", "missing"]
    assert stored == (204, {"datasets": 2, "successful_writes": 2})
