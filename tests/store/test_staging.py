"""One file from blocks as they come: whole and in order, however many are written at once."""

from __future__ import annotations

import errno
import mmap
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from depot.dataset import staging
from depot.dataset.dataset import Dataset
from depot.dataset.disk import Disk
from depot.dataset.staging import ALIGNMENT_BYTES, MOST_AT_ONCE, QUICK_S, GivenUp, write_staged
from depot.dataset.staging_names import new_staged_name
from depot.initialise import init_datasets
from depot.streams import arena
from depot.streams.arena import Arena

PAGE = ALIGNMENT_BYTES
DIRECT = pytest.mark.parametrize("direct", [True, False], ids=["direct", "buffered"])


class CountingDisk(Disk):
    """Notes how many blocks each call gets, and writes as many bytes of them as it is told."""

    def __init__(self, most_bytes: int = 1 << 30, refuse: bool = False) -> None:
        self.counts: list[int] = []
        self._most_bytes = most_bytes
        self._refuse = refuse

    def write(self, fd: int, content: memoryview) -> int:
        self.counts.append(1)
        return super().write(fd, content[: self._most_bytes])

    def write_several(self, fd: int, contents: Sequence[memoryview]) -> int:
        if self._refuse:
            raise OSError(errno.EINVAL, "not with that flag")
        self.counts.append(len(contents))
        left, parts = self._most_bytes, []
        for content in contents:
            parts.append(content[:left])
            left -= len(parts[-1])
        return super().write_several(fd, [part for part in parts if part])


class Prepared:
    """Blocks that are all there already; `after` that many, the file is not wanted any more."""

    def __init__(self, content: bytes, block_bytes: int, after: int | None = None) -> None:
        self._left: deque[memoryview] = deque()
        self._after = after
        self.released: list[int] = []
        for start in range(0, len(content), block_bytes):
            part = content[start : start + block_bytes]
            block = memoryview(mmap.mmap(-1, block_bytes))[: len(part)]
            block[:] = part
            self._left.append(block)

    def take(self) -> memoryview | None:
        if self._after is not None and sum(self.released) >= self._after:
            raise GivenUp
        return self.more()

    def more(self) -> memoryview | None:
        return self._left.popleft() if self._left else None

    def release(self, count: int) -> None:
        self.released.append(count)


class Ticking:
    """A clock by which every write takes as long as was said."""

    def __init__(self, *each_s: float) -> None:
        self._now_s = 0.0
        self._steps = (step for each in each_s for step in (0.0, each))

    def __call__(self) -> float:
        self._now_s += next(self._steps, 0.0)
        return self._now_s


@pytest.fixture
def datasets(tmp_path: Path) -> Iterator[list[Dataset]]:
    """Closed at the end; `attach` adds to it."""
    made: list[Dataset] = []
    yield made
    for dataset in made:
        dataset.close()


def attach(path: Path, datasets: list[Dataset], disk: Disk) -> Dataset:
    home = path / "m2"
    home.mkdir()
    init_datasets([home])
    datasets.append(Dataset.attach(home, require_mountpoint=False, sled_id=None, disk=disk))
    return datasets[-1]


def staged(dataset: Dataset) -> list[Path]:
    return list((dataset.path / ".sled-depot/staging").iterdir())


@DIRECT
@pytest.mark.parametrize("tail_bytes", [0, 1, PAGE - 1])
@pytest.mark.parametrize("most_bytes", [1 << 30, 5 * PAGE, PAGE, 3 * PAGE])
def test_what_is_written_is_the_blocks_in_order_however_short_each_write_is(
    tmp_path: Path, datasets: list[Dataset], direct: bool, tail_bytes: int, most_bytes: int
) -> None:
    content = os.urandom(2 * PAGE * 11 + tail_bytes)
    dataset = attach(tmp_path, datasets, CountingDisk(most_bytes))
    blocks = Prepared(content, 2 * PAGE)
    name = write_staged(dataset, blocks, new_staged_name(), direct=direct)
    assert (dataset.path / name).read_bytes() == content
    assert sum(blocks.released) == -(-len(content) // (2 * PAGE))


@DIRECT
def test_blocks_that_wait_are_written_several_at_once(
    tmp_path: Path, datasets: list[Dataset], direct: bool
) -> None:
    disk = CountingDisk()
    dataset = attach(tmp_path, datasets, disk)
    blocks = Prepared(bytes(PAGE * 10), PAGE)
    write_staged(dataset, blocks, new_staged_name(), direct=direct)
    assert disk.counts == [1, MOST_AT_ONCE, MOST_AT_ONCE, 1]
    assert blocks.released == disk.counts, "a block was given back before it was written"


def test_a_device_that_is_slow_gives_back_block_after_block(
    tmp_path: Path, datasets: list[Dataset]
) -> None:
    # Or it would keep several for so long that it is taken for one that hangs.
    disk = CountingDisk()
    dataset = attach(tmp_path, datasets, disk)
    slow = Ticking(QUICK_S, 0.0, 2 * QUICK_S, 2 * QUICK_S, 0.0)
    blocks = Prepared(bytes(PAGE * 12), PAGE)
    write_staged(dataset, blocks, new_staged_name(), direct=True, clock=slow)
    assert disk.counts == [1, 1, MOST_AT_ONCE, 1, 1, MOST_AT_ONCE]


def test_a_filesystem_that_refuses_several_at_once_gets_them_one_by_one(
    tmp_path: Path, datasets: list[Dataset]
) -> None:
    content = os.urandom(PAGE * 9)
    dataset = attach(tmp_path, datasets, CountingDisk(refuse=True))
    name = write_staged(dataset, Prepared(content, PAGE), new_staged_name(), direct=True)
    assert (dataset.path / name).read_bytes() == content


@DIRECT
def test_q3_a_write_that_fails_among_several_leaves_no_file(
    tmp_path: Path, datasets: list[Dataset], direct: bool
) -> None:
    class Failing(CountingDisk):
        def write_several(self, fd: int, contents: Sequence[memoryview]) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    dataset = attach(tmp_path, datasets, Failing())
    with pytest.raises(OSError, match="Input/output"):
        write_staged(dataset, Prepared(bytes(PAGE * 9), PAGE), new_staged_name(), direct=direct)
    assert staged(dataset) == []


def test_q3_a_file_that_is_not_wanted_any_more_is_removed(
    tmp_path: Path, datasets: list[Dataset]
) -> None:
    dataset = attach(tmp_path, datasets, Disk())
    blocks = Prepared(bytes(PAGE * 9), PAGE, after=5)
    assert write_staged(dataset, blocks, new_staged_name(), direct=False) == ""
    assert staged(dataset) == []


# ---- over the channel to a worker process


@pytest.fixture
def shared() -> Iterator[Arena]:
    """Blocks that this process has as the agent and as the worker."""
    made = Arena(4)
    arena.share(os.dup(made.fd))
    yield made
    made.close()


def test_shared_blocks_arrive_by_number_and_are_acknowledged_together(
    tmp_path: Path, datasets: list[Dataset], shared: Arena
) -> None:
    dataset = attach(tmp_path, datasets, Disk())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    contents = [os.urandom(PAGE) for _ in range(3)]
    for number, content in enumerate(contents):
        shared.view(number)[:PAGE] = content
        staging.send_block(ours, number, PAGE)
    staging.send_end(ours)
    with ours:
        name = new_staged_name()
        assert staging.write_shared(dataset, theirs.detach(), name, False) == name
        assert (dataset.path / name).read_bytes() == b"".join(contents)
        acknowledged = []
        while count := staging.wait_released(ours):
            acknowledged.append(count)
    assert acknowledged == [1, 2]


def test_q3_a_channel_that_closes_among_several_blocks_leaves_no_file(
    tmp_path: Path, datasets: list[Dataset], shared: Arena
) -> None:
    dataset = attach(tmp_path, datasets, Disk())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for number in range(3):
        staging.send_block(ours, number, PAGE)
    ours.close()
    assert staging.write_shared(dataset, theirs.detach(), new_staged_name(), False) == ""
    assert staged(dataset) == []
