"""`sled-agent datasets` as an operator uses it: real processes on real filesystems."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import ondisk
from tests.loop_mount import LoopDisk, loop_disk
from tests.system.agents import BIN, RunningAgent
from tests.system.asking import await_status, put, put_config

CONTENT = os.urandom(3 << 20)
NAME = ondisk.sha256(CONTENT)
A, B = 0, 1


class Rig:
    """An agent on two disks, with one artifact on both."""

    def __init__(self, agent: RunningAgent, disks: list[LoopDisk], stack: ExitStack) -> None:
        self.agent = agent
        self.disks = disks
        self._stack = stack
        assert put_config(agent, 1, NAME).status == 204
        assert put(agent, NAME, 1, CONTENT).body["successful_writes"] == 2

    def datasets(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "sled-agent", "datasets", *arguments, "--agent", self.agent.agent_url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def listed(self) -> list[dict[str, Any]]:
        done = self.datasets("list", "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["datasets"]
        return found

    def unmount(self, index: int) -> None:
        """Not lazily: the kernel refuses while anything is open."""
        subprocess.run(["umount", self.agent.datasets[index]], check=True, timeout=60)

    def mount_empty_disk(self, index: int) -> None:
        disk = self._stack.enter_context(loop_disk(self.agent.home / "new", size_mib=64))
        disk.take_away()
        subprocess.run(["mount", disk.device, self.agent.datasets[index]], check=True, timeout=60)
        self._stack.callback(
            lambda: subprocess.run(
                ["umount", "--lazy", self.agent.datasets[index]], check=False, timeout=60
            )
        )

    def await_mirrored(self) -> None:
        await_status(
            self.agent,
            lambda status: (
                [dataset["state"] for dataset in status["datasets"]] == ["healthy", "healthy"]
                and not status["under_replicated"]["count"]
            ),
        )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with ExitStack() as stack:
        agent = RunningAgent(tmp_path / "node")
        disks = [stack.enter_context(loop_disk(path, size_mib=64)) for path in agent.datasets]
        with agent:
            yield Rig(agent, disks, stack)
            agent.stop()


def test_a_disk_is_taken_out_and_put_back(rig: Rig) -> None:
    path = str(rig.agent.datasets[B])
    done = rig.datasets("release", path)
    assert done.returncode == 0, done.stderr
    assert f"umount {path}" in done.stdout
    assert [dataset["state"] for dataset in rig.listed()] == ["healthy", "released"]
    rig.unmount(B)

    done = rig.datasets("attach", path)
    assert done.returncode == 3
    assert "cannot be used" in done.stderr
    assert os.listdir(path) == []

    rig.disks[B].mount()
    assert rig.datasets("attach", path).returncode == 0
    rig.await_mirrored()


def test_a_dead_disk_is_replaced_by_an_empty_one(rig: Rig) -> None:
    path = str(rig.agent.datasets[B])
    old = rig.listed()[B]["dataset_id"]
    assert rig.datasets("replace", path).returncode == 3  # in use
    assert rig.datasets("release", path).returncode == 0
    rig.unmount(B)

    done = rig.datasets("replace", path)
    assert done.returncode == 3
    assert "nothing is mounted" in done.stderr
    assert os.listdir(path) == []

    rig.mount_empty_disk(B)
    done = rig.datasets("replace", path)
    assert done.returncode == 0, done.stderr
    rig.await_mirrored()
    assert rig.listed()[B]["dataset_id"] not in (None, old)
    assert (rig.agent.datasets[B] / NAME).read_bytes() == CONTENT


def test_init_does_not_take_the_place_of_replace(rig: Rig) -> None:
    path = str(rig.agent.datasets[B])
    assert rig.datasets("release", path).returncode == 0
    rig.unmount(B)
    rig.mount_empty_disk(B)
    done = rig.datasets("attach", path)
    assert done.returncode == 3
    assert f"sled-agent datasets replace {path}" in done.stderr

    done = rig.agent.attempt("init", "--config", str(rig.agent.config_path))
    assert done.returncode == 3
    assert f"pid {rig.agent.pid}" in done.stderr
    assert "sled-agent datasets replace" in done.stderr
    assert not (rig.agent.datasets[B] / ".sled-depot").exists()
    assert [dataset["state"] for dataset in rig.listed()] == ["healthy", "released"]


def test_the_last_dataset_is_not_released_by_accident(rig: Rig) -> None:
    assert rig.datasets("release", str(rig.agent.datasets[A])).returncode == 0
    done = rig.datasets("release", str(rig.agent.datasets[B]))
    assert done.returncode == 3
    assert "last dataset" in done.stderr
    assert "/nowhere" not in rig.datasets("release", "/nowhere").stdout
    assert rig.datasets("release", "--last", str(rig.agent.datasets[B])).returncode == 0
    assert {dataset["state"] for dataset in rig.listed()} == {"released"}
