"""A copy is judged by what its device holds, however slow that is, and not by what memory does."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from depot.artifact import ArtifactHash
from depot.dataset import verification
from depot.dataset.dataset import Dataset
from depot.dataset.disk import Disk
from depot.dataset.marker import MARKER_FILE
from depot.dataset.quarantine_names import QUARANTINE
from depot.dataset.verification import STEP_BYTES, Begun, Verification
from depot.device.host import DeviceWorkers
from depot.errors import DatasetUnusable, NotFound
from depot.initialise import init_datasets
from depot.reading.reader import VerifyReads
from depot.streams.blocks import BLOCK_SIZE_BYTES
from tests.loop_mount import LoopDisk, loop_disk
from tests.store.builders import (
    ONE,
    TWO,
    A,
    B,
    Node,
    config,
    copies,
    hash_of,
    off_loop,
    put,
    states,
)
from tests.store.damage import quarantined
from tests.store.faulty import FaultyDisk

LARGE = bytes(range(256)) * (STEP_BYTES // 256) + b"and a bit"
FOR_EVER_S = 3600.0


def attached(path: Path, disk: Disk | None = None) -> Dataset:
    path.mkdir(exist_ok=True)
    init_datasets([path])
    return Dataset.attach(path, require_mountpoint=False, sled_id=None, disk=disk or Disk())


def place(path: Path, content: bytes) -> ArtifactHash:
    """Put an artifact's file there, on its device."""
    artifact = ArtifactHash.of(content)
    fd = os.open(path / str(artifact), os.O_WRONLY | os.O_CREAT)
    os.write(fd, content)
    os.fsync(fd)
    os.close(fd)
    return artifact


def digest_of(dataset: Dataset, begun: Begun) -> bytes:
    while (step := verification.step(dataset, begun.name, FOR_EVER_S)).digest is None:
        pass
    return step.digest


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def corrupt_below(image: Path, content: bytes) -> None:
    """Change one byte of `content` where the device holds it, behind the filesystem's back."""
    offset = image.read_bytes().find(content[:4096])
    assert offset >= 0, "the content is not on the device"
    with image.open("r+b") as device:
        device.seek(offset + 100)
        device.write(bytes([content[100] ^ 1]))
        os.fsync(device.fileno())


def test_b6_rot_beneath_a_cached_file_is_found_where_a_plain_read_finds_nothing(
    tmp_path: Path,
) -> None:
    content = os.urandom(3 * BLOCK_SIZE_BYTES + 17)
    with loop_disk(tmp_path / "disk", size_mib=64) as disk:
        dataset = attached(disk.mount_point)
        artifact = place(disk.mount_point, content)
        file = disk.mount_point / str(artifact)
        assert digest_of(dataset, verification.begin(dataset, artifact)) == artifact.digest
        # Somebody has it mapped, so that no advice drops it from the cache.
        with file.open("rb") as held, mmap.mmap(held.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == content
            corrupt_below(tmp_path / "disk.ext4", content)
            assert file.read_bytes() == content
            assert digest_of(dataset, verification.begin(dataset, artifact)) != artifact.digest
            assert file.read_bytes() == content
        dataset.close()


class WithoutDirect(Disk):
    """A disk whose filesystem takes no O_DIRECT reads after all."""

    def pread_into(self, fd: int, buffer: memoryview, offset_bytes: int) -> int:
        if os.O_DIRECT & int(_flags(fd), 8):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return super().pread_into(fd, buffer, offset_bytes)


def _flags(fd: int) -> str:
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("flags:"))


def test_rot_is_found_by_dropping_the_cache_where_direct_reads_are_not_taken(
    tmp_path: Path,
) -> None:
    content = os.urandom(2 * BLOCK_SIZE_BYTES)
    with loop_disk(tmp_path / "disk", size_mib=64) as disk:
        dataset = attached(disk.mount_point, WithoutDirect())
        artifact = place(disk.mount_point, content)
        assert (disk.mount_point / str(artifact)).read_bytes() == content
        corrupt_below(tmp_path / "disk.ext4", content)
        assert digest_of(dataset, verification.begin(dataset, artifact)) != artifact.digest
        dataset.close()


@pytest.mark.parametrize("size_bytes", [0, 1, 511, 4096, BLOCK_SIZE_BYTES, STEP_BYTES + 1])
def test_every_length_hashes_to_its_name(tmp_path: Path, size_bytes: int) -> None:
    dataset = attached(tmp_path / "m2")
    artifact = place(tmp_path / "m2", LARGE[:size_bytes])
    begun = verification.begin(dataset, artifact)
    assert begun.size_bytes == size_bytes
    assert digest_of(dataset, begun) == artifact.digest
    dataset.close()


def test_a_step_ends_when_its_time_is_over_and_the_next_goes_on(tmp_path: Path) -> None:
    dataset = attached(tmp_path / "m2")
    begun = verification.begin(dataset, place(tmp_path / "m2", LARGE))
    read = []
    while (step := verification.step(dataset, begun.name, 0.0)).digest is None:
        read.append(step.read_bytes)
    assert read == [BLOCK_SIZE_BYTES] * (STEP_BYTES // BLOCK_SIZE_BYTES)
    assert step.digest == ArtifactHash.of(LARGE).digest
    dataset.close()


def test_nothing_stays_open_after_the_end(tmp_path: Path) -> None:
    dataset = attached(tmp_path / "m2")
    artifact = place(tmp_path / "m2", ONE)
    before = open_fds()
    begun = verification.begin(dataset, artifact)
    assert open_fds() == before + 1
    verification.end(dataset, begun.name)
    verification.end(dataset, begun.name)
    assert open_fds() == before
    with pytest.raises(DatasetUnusable):
        verification.step(dataset, begun.name, FOR_EVER_S)
    verification.begin(dataset, artifact)
    dataset.close()
    assert open_fds() <= before - 2  # the dataset's own two, and the file's


async def test_a_step_that_is_stuck_closes_the_file_itself(tmp_path: Path) -> None:
    disk = FaultyDisk()
    dataset = await off_loop(attached, tmp_path / "m2", disk)
    begun = await off_loop(verification.begin, dataset, await off_loop(place, tmp_path / "m2", ONE))
    running: Verification = dataset.verifications.get(begun.name)
    hang = disk.hang("pread")
    stuck = asyncio.ensure_future(off_loop(running.step, FOR_EVER_S))
    await off_loop(hang.wait_begun)
    before = await off_loop(open_fds)
    await off_loop(verification.end, dataset, begun.name)
    assert await off_loop(open_fds) == before
    hang.let_go()
    assert (await stuck).digest == hash_of(ONE).digest
    assert await off_loop(open_fds) == before - 1
    await off_loop(dataset.close)


async def test_a_slow_device_is_given_its_time_for_each_block_not_for_a_step(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, LARGE))
        await put(store, LARGE)
    async with node.open(device_timeout_s=1.0) as store:
        # Nine blocks of 0.2 s each: a step of them all would pass the deadline.
        node.disk(A).before("pread", lambda: time.sleep(0.2), times=None, name=str(hash_of(LARGE)))
        assert (await put(store, LARGE)).copies == 2
        assert states(store) == ["healthy", "healthy"]


async def test_a_device_that_fails_as_a_whole_says_nothing_about_its_copies(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        for call in ("pread", "create"):
            node.disk(B).fail(call, errno.EIO)
        assert (await put(store, ONE)).copies == 1
        assert states(store) == ["healthy", "suspect"]
        assert [scrub.bad_found for scrub in store.scrub_status().datasets] == [0, 0]
        node.disk(B).heal()
        await store.check_datasets()
        assert copies(store) == {hash_of(ONE): 2}


async def test_a_dead_device_that_turned_read_only_says_nothing_about_its_copies(
    node: Node,
) -> None:
    # ext4 answers EROFS to writes, and EIO to reads, once its disk is gone.
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        node.disk(B).turn_read_only()
        await store.put_config(config(2, ONE))
        assert states(store) == ["healthy", "suspect"]
        for call in ("open", "pread"):
            node.disk(B).fail(call, errno.EIO, name=str(hash_of(ONE)))
        with pytest.raises(NotFound):
            await store.open_artifact(hash_of(ONE), exclude=[A])
        node.disk(B).heal()
        await store.check_datasets()
        assert copies(store) == {hash_of(ONE): 2}


NO_ROOM = {
    "room": (),
    "full": (("write", errno.ENOSPC), ("fallocate", errno.ENOSPC)),
    "over-quota": (("write", errno.EDQUOT), ("fallocate", errno.EDQUOT)),
    "no-inode": (("create", errno.ENOSPC),),
}
READS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EDQUOT": errno.EDQUOT, "zeros": None}


@pytest.mark.parametrize("room", NO_ROOM)
@pytest.mark.parametrize("reads", READS)
async def test_b6_a_device_that_gives_nothing_back_has_none_of_its_copies_set_aside(
    node: Node, reads: str, room: str
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        for content in (ONE, TWO):
            await put(store, content)
        for call, refusal in NO_ROOM[room]:
            node.disk(A).fail(call, refusal)
        if error := READS[reads]:
            node.disk(A).fail("pread", error)
        else:
            node.disk(A).garble()
        await store.scrub()
        await store.remirror()
        assert await quarantined(node, A) == []
        assert states(store) == ["suspect", "healthy"]
        node.disk(A).heal()
        await store.check_datasets()
        await store.remirror()
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}


@pytest.mark.parametrize("room", NO_ROOM)
async def test_b6_a_read_that_fails_is_told_also_when_the_probe_cannot_be_removed(
    node: Node, room: str
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        for call, refusal in NO_ROOM[room]:
            node.disk(A).fail(call, refusal)
        for call, error in (("pread", errno.EIO), ("unlink", errno.ENOSPC)):
            node.disk(A).fail(call, error)
        await store.scrub()
        await store.remirror()
        assert await quarantined(node, A) == []
        assert states(store) == ["suspect", "healthy"]


@pytest.mark.parametrize("room", NO_ROOM)
async def test_b5_a_bad_sector_is_the_copys_also_where_there_is_no_room(
    node: Node, room: str
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        for content in (ONE, TWO):
            await put(store, content)
        for call, refusal in NO_ROOM[room]:
            node.disk(A).fail(call, refusal)
        bad = node.disk(A).fail("pread", errno.EIO, name=str(hash_of(ONE)))
        assert sorted(scrub.bad for scrub in await store.scrub()) == [0, 1]
        await store.remirror()
        assert bad.strikes
        assert states(store) == ["healthy", "healthy"]
        assert len(await quarantined(node, A, ONE)) == 1
        assert copies(store) == {hash_of(ONE): 1 + (room == "room"), hash_of(TWO): 2}


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[Node, LoopDisk]]:
    """A node with a process for each dataset, the first of which has a small disk of its own."""
    with loop_disk(tmp_path / "disk", size_mib=64) as disk:
        other = tmp_path / "m2-b"
        other.mkdir()
        paths = [disk.mount_point, other]
        init_datasets(paths)
        yield Node(tmp_path, paths, {}, workers=DeviceWorkers.PROCESS), disk


def leave_no_room(disk: LoopDisk) -> None:
    """Take every byte, but have a quarantine there, as of an earlier copy."""
    (disk.mount_point / QUARANTINE).mkdir(mode=0o700)
    disk.fill()
    with suppress(OSError):  # what a large file could not have
        for number in range(1000):
            (disk.mount_point / f"somebody-elses-{number}").write_bytes(b"x")


@pytest.mark.parametrize("all_of_it", [False, True], ids=["the copy", "the marker too"])
async def test_b6_a_full_device_is_asked_past_the_page_cache(
    real: tuple[Node, LoopDisk], all_of_it: bool
) -> None:
    node, disk = real
    image = disk.mount_point.with_name("disk.ext4")
    marker = disk.mount_point / MARKER_FILE
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        await off_loop(leave_no_room, disk)
        await off_loop(corrupt_below, image, ONE)
        if all_of_it:
            content = await off_loop(marker.read_bytes)
            await off_loop(corrupt_below, image, content)
            assert await off_loop(marker.read_bytes) == content
        await store.scrub()
        await store.remirror()
        assert len(await quarantined(node, A)) == (0 if all_of_it else 1)
        assert states(store) == ["suspect" if all_of_it else "healthy", "healthy"]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOMEM])
async def test_b6_a_want_of_the_process_condemns_no_copy(node: Node, error: int) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        node.disk(A).fail("open", error, name=str(hash_of(ONE)), times=2)
        await store.scrub()
        await store.remirror()
        assert copies(store) == {hash_of(ONE): 2}
        assert await quarantined(node, A) == []
