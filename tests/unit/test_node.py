"""Node health: what is sampled, and that a hung disk costs its own figures only."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.node import DiskSample, NodeSampler, device_of


@dataclass(frozen=True)
class Mount:
    mountpoint: str
    device: str


class Device:
    """A disk that hangs until it is let go, and then fails or answers."""

    def __init__(self, stuck: str, error: OSError | None = None) -> None:
        self._stuck = stuck
        self._error = error
        self.released = threading.Event()
        self.asked = 0

    def read(self, path: Path) -> DiskSample:
        if str(path) == self._stuck:
            self.asked += 1
            self.released.wait()
            if self._error:
                raise self._error
        return DiskSample(str(path), "/dev/disk", 100, 40)


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device("/b")
    yield device
    device.released.set()


async def test_a_sample_describes_the_machine_the_process_and_each_dataset(tmp_path: Path) -> None:
    sampler = NodeSampler([tmp_path, tmp_path / "missing"])
    assert sampler.latest() is None
    await sampler.sample()
    sampler.close()
    sample = sampler.latest()
    assert sample is not None
    assert sample.machine.memory_total_bytes > sample.machine.memory_available_bytes > 0
    assert sample.machine.process.rss_bytes > 0
    assert sample.machine.process.threads >= 2
    here, missing = sample.disks
    assert here.dataset == str(tmp_path)
    assert here.device is not None
    assert here.total_bytes is not None
    assert here.free_bytes is not None
    assert here.total_bytes > here.free_bytes
    assert missing.error is not None
    assert missing.error.startswith("ENOENT")


async def test_a_disk_that_hangs_costs_its_own_figures_and_one_thread(device: Device) -> None:
    sampler = NodeSampler([Path("/a"), Path("/b")], timeout_s=0.05, read_disk=device.read)
    for _ in range(3):
        await sampler.sample()
    sampler.close()
    sample = sampler.latest()
    assert sample is not None
    assert [disk.free_bytes for disk in sample.disks] == [40, None]
    assert sample.disks[1].error == "no answer within 0.05 s"
    assert device.asked == 1


async def test_a_disk_that_answers_again_is_shown_again(device: Device) -> None:
    sampler = NodeSampler([Path("/b")], timeout_s=0.05, read_disk=device.read)
    await sampler.sample()
    device.released.set()
    while (sample := sampler.latest()) is None or sample.disks[0].free_bytes is None:
        await sampler.sample()
    sampler.close()


async def test_a_disk_that_hangs_and_then_fails_has_failed_once() -> None:
    failing = Device("/b", OSError(errno.EIO, "Input/output error"))
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    sampler = NodeSampler([Path("/b")], timeout_s=0.05, read_disk=failing.read)
    for _ in range(3):
        await sampler.sample()
    failing.released.set()
    while (sample := sampler.latest()) is None or not (sample.disks[0].error or "").startswith("E"):
        await sampler.sample()
    sampler.close()
    del sampler, failing  # the error remembers where it was raised
    gc.collect()
    assert unheard == []


async def test_a_disk_that_fails_is_named_with_the_error_and_without_a_path() -> None:
    failing = Device("/b", OSError(errno.EIO, "Input/output error", "/b/secret"))
    failing.released.set()
    sampler = NodeSampler([Path("/b")], read_disk=failing.read)
    await sampler.sample()
    sampler.close()
    sample = sampler.latest()
    assert sample is not None
    assert sample.disks[0].error == "EIO: Input/output error"


@pytest.mark.parametrize(
    ("path", "device"),
    [("/m2/a/depot", "/dev/a"), ("/m2/a", "/dev/a"), ("/m2/ab", "/dev/root"), ("/", "/dev/root")],
)
def test_the_device_is_that_of_the_innermost_mount(path: str, device: str) -> None:
    mounts = [Mount("/", "/dev/root"), Mount("/m2/a", "/dev/a")]
    assert device_of(path, mounts) == device


def test_no_mount_no_device() -> None:
    assert device_of("/x", []) is None
