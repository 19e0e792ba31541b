"""A device that hangs under a real agent: its dataset is left behind, and nothing else is (B4, S3).

The first dataset is a small filesystem of its own that is frozen, so that every write to it waits
in the kernel, where no signal reaches it; skipped where that cannot be had.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from tests import ondisk
from tests.loop_mount import loop_disk
from tests.needs import Need, lack
from tests.system.agents import RunningAgent
from tests.system.asking import Answer, ask, await_status, put, put_config, status_of

MIB: Final = 1 << 20
A, B = 0, 1
"""The two datasets; A is the one that hangs."""
LAG_S: Final = 1.0
DEVICE_TIMEOUT_S: Final = 5.0
DRAIN_TIMEOUT_S: Final = 2
PATIENCE_S: Final = 60.0
"""Far more than any bound here: the end of a hang, not a measurement."""
CONTENTS: Final = [bytes([number]) * (6 * MIB + number) for number in range(4)]
NAMES: Final = [ondisk.sha256(content) for content in CONTENTS]
SETTINGS: Final = {
    "SLED_AGENT__STORAGE__MIRROR_LAG": f"{LAG_S:g}s",
    "SLED_AGENT__STORAGE__DEVICE_TIMEOUT": f"{DEVICE_TIMEOUT_S:g}s",
    "SLED_AGENT__STORAGE__VERIFY_READS": "always",
    "SLED_AGENT__DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S),
}


class Frozen:
    """A filesystem that can be frozen, and never stays so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is = False

    def freeze(self) -> None:
        self._is = True
        subprocess.run(["fsfreeze", "--freeze", self._path], check=True)

    def thaw(self) -> None:
        if self._is:
            self._is = False
            subprocess.run(["fsfreeze", "--unfreeze", self._path], check=True)


class Rig:
    """An agent whose first dataset can hang; it has a config, and the first artifact on both."""

    def __init__(self, agent: RunningAgent, device: Frozen) -> None:
        self.agent = agent
        self.device = device

    def begin(self) -> None:
        self.agent.start()
        assert put_config(self.agent, 1, *NAMES).status == 204
        assert self.put(0).body["successful_writes"] == 2

    def put(self, number: int, *, generation: int = 1) -> Answer:
        return put(self.agent, NAMES[number], generation, CONTENTS[number])

    def get(self, number: int) -> Any:
        return ask(self.agent.depot_url, f"/artifact/sha256/{NAMES[number]}").body

    def worker_pid(self, dataset: int) -> int:
        pid = status_of(self.agent)["datasets"][dataset]["worker_pid"]
        assert isinstance(pid, int)
        return pid

    def await_mirrored(self) -> None:
        await_status(
            self.agent,
            lambda status: (
                [dataset["state"] for dataset in status["datasets"]] == ["healthy", "healthy"]
                and not status["under_replicated"]["count"]
            ),
            within_s=PATIENCE_S,
        )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    if shutil.which("fsfreeze") is None:
        lack(Need.MOUNTS, "needs fsfreeze")
    agent = RunningAgent(tmp_path / "node", env=SETTINGS)
    with loop_disk(agent.datasets[A], size_mib=128) as disk:
        device = Frozen(disk.mount_point)
        try:
            yield Rig(agent, device)
        finally:
            device.thaw()
            workers = _workers(agent)
            agent.close()
            _await_gone(workers)


def test_b4_a_hung_device_delays_a_put_on_the_other_by_no_more_than_the_deadline(
    rig: Rig,
) -> None:
    rig.begin()
    began_s = time.monotonic()
    assert rig.put(1).body["successful_writes"] == 2
    usual_s = time.monotonic() - began_s

    rig.device.freeze()
    began_s = time.monotonic()
    answer = rig.put(2)
    took_s = time.monotonic() - began_s

    assert answer.body["successful_writes"] == 1
    # Ten times what it usually takes is for a machine that does other things too.
    assert took_s < LAG_S + DEVICE_TIMEOUT_S + 10 * usual_s + 2
    assert rig.get(2) == CONTENTS[2]
    assert rig.get(0) == CONTENTS[0]

    rig.device.thaw()
    rig.await_mirrored()
    assert ondisk.wrong_bytes(rig.agent.datasets[A]) == []
    assert NAMES[2] in ondisk.artifact_files(rig.agent.datasets[A])
    assert ondisk.staged_files(rig.agent.datasets[A]) == []


def test_s3_a_hung_device_does_not_hold_the_exit(rig: Rig) -> None:
    rig.begin()
    rig.device.freeze()
    rig.put(1)

    assert rig.agent.stop(timeout_s=DRAIN_TIMEOUT_S + 2 * DEVICE_TIMEOUT_S + 20) == 0


def test_b4_after_sigkill_a_hung_device_keeps_nothing_but_its_own_dataset(rig: Rig) -> None:
    rig.begin()
    rig.device.freeze()
    rig.put(1)
    stuck = rig.worker_pid(A)
    ports = {"SLED_AGENT__AGENT__LISTEN": _address(rig.agent.agent_url)}
    ports["SLED_AGENT__DEPOT__LISTEN"] = _address(rig.agent.depot_url)

    rig.agent.kill()
    assert psutil.pid_exists(stuck), "or this shows nothing"
    rig.agent.env |= ports
    rig.agent.start()

    status = status_of(rig.agent)
    assert [dataset["state"] for dataset in status["datasets"]] == ["missing", "healthy"]
    assert str(stuck) in status["datasets"][A]["last_error"]
    assert rig.get(0) == CONTENTS[0]
    assert rig.get(1) == CONTENTS[1]
    assert put_config(rig.agent, 2, *NAMES).status == 204
    assert rig.put(2, generation=2).body["successful_writes"] == 1

    rig.device.thaw()
    rig.await_mirrored()
    assert not psutil.pid_exists(stuck)
    for dataset in rig.agent.datasets:
        assert ondisk.artifact_files(dataset).keys() == set(NAMES[:3])
        assert ondisk.wrong_bytes(dataset) == []


def test_a_worker_that_is_killed_is_replaced_and_transfers_go_on_elsewhere(rig: Rig) -> None:
    rig.begin()
    before = [rig.worker_pid(A), rig.worker_pid(B)]
    read: list[bytes] = []
    readers = [threading.Thread(target=lambda: read.append(rig.get(0))) for _ in range(4)]
    for reader in readers:
        reader.start()
    os.kill(before[A], signal.SIGKILL)
    for reader in readers:
        reader.join(PATIENCE_S)

    assert read == [CONTENTS[0]] * 4
    rig.await_mirrored()
    assert rig.worker_pid(A) != before[A]
    assert rig.worker_pid(B) == before[B]
    assert rig.put(1).body["successful_writes"] == 2


def test_a_worker_that_is_stopped_is_given_up_and_replaced(rig: Rig) -> None:
    rig.begin()
    stopped = rig.worker_pid(A)
    os.kill(stopped, signal.SIGSTOP)

    assert rig.put(1).body["successful_writes"] == 1
    assert rig.get(0) == CONTENTS[0]
    rig.await_mirrored()

    assert not psutil.pid_exists(stopped)
    assert rig.worker_pid(A) != stopped


def test_a_stopped_worker_dies_with_its_agent(rig: Rig) -> None:
    rig.begin()
    stopped = rig.worker_pid(A)
    os.kill(stopped, signal.SIGSTOP)

    rig.agent.kill()

    _await_gone([stopped])


def test_nothing_is_left_over_by_hangs_and_lost_workers(rig: Rig) -> None:
    rig.begin()
    rig.put(1)
    before = _holdings(rig.agent)
    for _ in range(3):
        os.kill(rig.worker_pid(A), signal.SIGKILL)
        await_status(rig.agent, lambda s: s["datasets"][A]["state"] == "missing", within_s=60)
        rig.await_mirrored()
        rig.get(1)
    rig.device.freeze()
    rig.put(2)
    rig.device.thaw()
    rig.await_mirrored()

    with _until(PATIENCE_S) as more:
        while (after := _holdings(rig.agent)) > before and more():
            rig.get(0)
    assert after <= before, "processes, threads and descriptors"


def _holdings(agent: RunningAgent) -> tuple[int, int]:
    """How many processes there are, and how many descriptors they have."""
    processes = [psutil.Process(agent.pid), *psutil.Process(agent.pid).children(recursive=True)]
    return len(processes), sum(process.num_fds() for process in processes)


@contextmanager
def _until(timeout_s: float) -> Iterator[Any]:
    end_s = time.monotonic() + timeout_s
    yield lambda: time.monotonic() < end_s


def _workers(agent: RunningAgent) -> list[int]:
    if not agent.running:
        return []
    return [child.pid for child in psutil.Process(agent.pid).children(recursive=True)]


def _await_gone(pids: list[int]) -> None:
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(PATIENCE_S)


def _address(url: str) -> str:
    return url.removeprefix("http://")
