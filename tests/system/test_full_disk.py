"""A filesystem that is really full, read-only, gone, or out of inodes, under a real agent.

Each dataset is a small ext4 of its own on a loop device; skipped where those cannot be had.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests import ondisk
from tests.loop_mount import LoopDisk, loop_disk
from tests.system.agents import RunningAgent
from tests.system.asking import Answer, ask, await_status, put, put_config, status_of

MIB: Final = 1 << 20
DISK_MIB: Final = 64
ARTIFACT_BYTES: Final = 4 * MIB
A, B = 0, 1
"""The two datasets."""

Start = Callable[..., "Rig"]


class Rig:
    """An agent, the disks below it, and a row of artifacts for it."""

    def __init__(self, agent: RunningAgent, disks: list[LoopDisk]) -> None:
        self.agent = agent
        self.disks = disks
        self.contents = [bytes([number]) * ARTIFACT_BYTES for number in range(40)]
        self.names = [ondisk.sha256(content) for content in self.contents]
        assert put_config(agent, 1, *self.names).status == 204

    def put(self, number: int, *, generation: int = 1) -> Answer:
        return put(self.agent, self.names[number], generation, self.contents[number])

    def get(self, number: int) -> bytes | None:
        answer = ask(self.agent.depot_url, f"/artifact/sha256/{self.names[number]}")
        return answer.body if answer.status == 200 else None

    def held(self, dataset: int, number: int) -> bool:
        """Whether the dataset has the artifact, by its file."""
        path = self.agent.datasets[dataset] / self.names[number]
        return path.exists() and path.read_bytes() == self.contents[number]

    def put_until_refused(self) -> tuple[int, Answer]:
        """Put one after the other: how many were stored, and the refusal."""
        for number in range(len(self.names)):
            answer = self.put(number)
            if answer.status != 200:
                return number, answer
        raise AssertionError("the disks are never full")

    def await_mirrored(self) -> dict[str, Any]:
        """Wait until both datasets are in use and hold the same, without being asked to."""
        return await_status(
            self.agent,
            lambda status: (
                [dataset["state"] for dataset in status["datasets"]] == ["healthy", "healthy"]
                and not status["under_replicated"]["count"]
            ),
        )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an agent on two new filesystems; they go after the agent did."""
    with ExitStack() as stack:

        def begin(*, inodes: int | None = None, grace: str = "0s") -> Rig:
            env = {"SLED_AGENT__STORAGE__DELETE_GRACE": grace}
            agent = RunningAgent(tmp_path / "node", env=env)
            disks = [
                stack.enter_context(loop_disk(path, size_mib=DISK_MIB, inodes=inodes))
                for path in agent.datasets
            ]
            return Rig(stack.enter_context(agent), disks)

        yield begin


def first_line_of_a_put(rig: Rig, number: int, length_bytes: int) -> bytes:
    """Announce a body and send none of it."""
    address = urlsplit(rig.agent.agent_url)
    with (
        socket.create_connection((address.hostname, address.port), timeout=60) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(
            f"PUT /artifacts/{rig.names[number]}?generation=1 HTTP/1.1\r\nHost: x\r\n"
            f"Expect: 100-continue\r\nContent-Length: {length_bytes}\r\n\r\n".encode()
        )
        return answer.readline()


def assert_full(answer: Answer) -> None:
    assert (answer.status, answer.error_code) == (507, "QuotaExceeded"), answer
    assert int(answer.headers["retry-after"]) > 0


def test_a_full_node_refuses_writes_and_does_everything_else(start: Start) -> None:
    rig = start()
    stored, refusal = rig.put_until_refused()
    assert stored > 5
    assert_full(refusal)
    assert first_line_of_a_put(rig, stored, (DISK_MIB + 1) * MIB).startswith(b"HTTP/1.1 413 ")

    for disk in rig.disks:
        disk.fill()
    assert_full(rig.put(stored))
    assert [rig.get(number) for number in range(stored)] == rig.contents[:stored]

    # One artifact fewer: a config change and a delete, with not a byte free.
    assert put_config(rig.agent, 2, *rig.names[1:]).status == 204
    await_status(
        rig.agent, lambda status: [d["artifacts"] for d in status["datasets"]] == [stored - 1] * 2
    )
    assert not any((path / rig.names[0]).exists() for path in rig.agent.datasets)
    assert [ledger.generation for ledger in ledgers(rig)] == [2, 2]

    # The room is there at once; the agent may look at its disks within the contract's bound.
    await_status(rig.agent, lambda _: rig.put(stored, generation=2).status == 200)
    rig.await_mirrored()
    assert rig.held(A, stored)
    assert rig.held(B, stored)
    assert [ondisk.wrong_bytes(path) for path in rig.agent.datasets] == [[], []]
    assert [ondisk.staged_files(path) for path in rig.agent.datasets] == [[], []]


def ledgers(rig: Rig) -> list[ondisk.LedgerFile]:
    read = [ondisk.read_ledger(path) for path in rig.agent.datasets]
    return [ledger for ledger in read if ledger is not None]


def test_a_full_dataset_costs_one_copy_until_it_has_room(start: Start) -> None:
    rig = start()
    rig.disks[A].fill()

    answer = rig.put(0)
    said = status_of(rig.agent)

    assert (answer.status, answer.body["successful_writes"]) == (200, 1)
    assert [dataset["full"] for dataset in said["datasets"]] == [True, False]
    assert [dataset["state"] for dataset in said["datasets"]] == ["healthy", "healthy"]
    assert said["datasets"][A]["last_error"]
    assert (rig.held(A, 0), rig.held(B, 0)) == (False, True)

    rig.disks[A].relieve()
    rig.await_mirrored()
    assert rig.held(A, 0)
    # Healing may be sooner than the look that finds the room.
    await_status(rig.agent, lambda said: not any(each["full"] for each in said["datasets"]))


def test_a_dataset_that_turns_read_only_costs_one_copy_until_it_is_writable(start: Start) -> None:
    rig = start()
    assert rig.put(0).body["successful_writes"] == 2
    rig.disks[B].remount("ro")

    answer = rig.put(1)
    said = status_of(rig.agent)

    assert (answer.status, answer.body["successful_writes"]) == (200, 1)
    assert [dataset["state"] for dataset in said["datasets"]] == ["healthy", "suspect"]
    assert "ead-only" in said["datasets"][B]["last_error"]
    assert [rig.get(0), rig.get(1)] == rig.contents[:2]

    rig.disks[B].remount("rw")
    rig.await_mirrored()
    assert rig.held(B, 1)


def test_a_dataset_that_is_read_only_at_the_start_is_read_until_it_is_writable(
    start: Start,
) -> None:
    rig = start()
    assert rig.put(0).body["successful_writes"] == 2
    rig.agent.stop()
    for disk in rig.disks:
        disk.remount("ro")
    rig.agent.start()

    said, refused = status_of(rig.agent), rig.put(1)

    assert [dataset["state"] for dataset in said["datasets"]] == ["suspect", "suspect"]
    assert all("ead-only" in dataset["last_error"] for dataset in said["datasets"])
    assert (refused.status, refused.error_code) == (503, "NoDataset")
    assert rig.get(0) == rig.contents[0]

    for disk in rig.disks:
        disk.remount("rw")
    rig.await_mirrored()
    assert rig.put(1).body["successful_writes"] == 2


def test_a_dataset_that_is_unmounted_is_missing_and_nothing_is_written_beneath(
    start: Start,
) -> None:
    rig = start()
    assert rig.put(0).body["successful_writes"] == 2
    rig.disks[B].take_away()
    beneath = rig.agent.datasets[B]

    answer = rig.put(1)
    said = await_status(rig.agent, lambda status: status["datasets"][B]["state"] == "missing")
    changed = put_config(rig.agent, 2, *rig.names)

    assert (answer.status, answer.body["successful_writes"]) == (200, 1)
    assert said["datasets"][B]["last_error"]
    assert not said["datasets"][B]["mounted"]
    assert changed.status == 204
    assert [rig.get(0), rig.get(1)] == rig.contents[:2]
    assert os.listdir(beneath) == []

    rig.disks[B].mount()
    rig.await_mirrored()
    assert rig.held(B, 1)
    assert [ledger.generation for ledger in ledgers(rig)] == [2, 2]
    rig.agent.stop()
    rig.disks[B].take_away()
    assert os.listdir(beneath) == []


def test_running_out_of_inodes_is_running_full(start: Start) -> None:
    rig = start(inodes=64)
    assert rig.put(0).body["successful_writes"] == 2
    rig.disks[A].fill_inodes()

    one_left = rig.put(1)
    rig.disks[B].fill_inodes()
    none_left = rig.put(2)

    assert (one_left.status, one_left.body["successful_writes"]) == (200, 1)
    assert_full(none_left)
    said = status_of(rig.agent)
    assert [dataset["state"] for dataset in said["datasets"]] == ["healthy", "healthy"]
    assert [dataset["full"] for dataset in said["datasets"]] == [True, True]
    assert [rig.get(0), rig.get(1)] == rig.contents[:2]
    assert put_config(rig.agent, 2, *rig.names[:2]).status == 204
