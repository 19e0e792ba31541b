"""The raw operations: what the disk, one core and the loopback give to a script that does no more.

Each returns a `Sample` of the artifact's size. What a run leaves behind is removed, and the disk
settled, after its time was taken, so that it does not weigh on the next.
"""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self

from depot.dataset.filesystem import sync_whole
from tests.benchmarks.measure import MIB, Sample

BLOCK_BYTES: Final = MIB
QUIET_S: Final = 0.3
"""Nothing was discarded for so long: there is nothing left to be."""
MOST_SETTLING_S: Final = 30.0


def sha256_pass(body: Path) -> Sample:
    """One thread reads the file (from the page cache, if it is there) and hashes it."""
    began_s = time.perf_counter()
    with body.open("rb", buffering=0) as file:
        hashlib.file_digest(file, "sha256")
    return Sample.of_bytes(body.stat().st_size, time.perf_counter() - began_s)


def forget(file: Path) -> None:
    """Drop a file from the page cache, as far as the kernel agrees."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def hash_then_write_twice(body: Path, targets: Sequence[Path]) -> Sample:
    """A straightforward script: hash the file; then copy it to each target, a thread for each.

    Buffered reads and writes of 1 MiB, one fsync for each target; the directories are not synced.
    """
    hashing = sha256_pass(body)
    began_s = time.perf_counter()
    _in_threads(targets, lambda target: _copy_and_sync(body, target))
    writing_s = time.perf_counter() - began_s
    remove(targets)
    return Sample(hashing.amount, hashing.seconds + writing_s)


def write_twice_directly(size_bytes: int, targets: Sequence[Path]) -> Sample:
    """The disk's limit: the same memory to each target with O_DIRECT and one fsync; no hash.

    Raises:
        OSError: EINVAL, where the filesystem has no direct I/O.
    """
    block = mmap.mmap(-1, BLOCK_BYTES)
    block.write(os.urandom(BLOCK_BYTES))
    began_s = time.perf_counter()
    try:
        _in_threads(targets, lambda target: _write_directly(block, size_bytes, target))
        return Sample.of_bytes(size_bytes, time.perf_counter() - began_s)
    finally:
        remove(targets)


def write_twice_beside_the_rest(body: Path, targets: Sequence[Path]) -> Sample:
    """What a PUT cannot do without, each in a thread that waits for no other.

    Each target is written as in `write_twice_directly`; as many bytes are hashed, of one block that
    is in the processor's cache, and received over loopback from a sender that uses sendfile. The
    processor time is that of all of them but the sender.

    Raises:
        OSError: EINVAL, where the filesystem has no direct I/O.
    """
    size_bytes = body.stat().st_size
    block = mmap.mmap(-1, BLOCK_BYTES)
    block.write(os.urandom(BLOCK_BYTES))
    receiver, sender = _connected()
    work: list[Callable[[], None]] = [
        partial(_write_directly, block, size_bytes, target) for target in targets
    ]
    work += [partial(_hash, block, size_bytes), partial(_receive, receiver, size_bytes)]
    began_s = time.perf_counter()
    try:
        with (
            receiver,
            sender,
            body.open("rb") as file,
            ThreadPoolExecutor(len(work) + 1) as threads,
        ):
            sending = threads.submit(sender.sendfile, file)
            cpu_s = sum(threads.map(_cpu_of, work))
            sending.result()
        return Sample.of_bytes(size_bytes, time.perf_counter() - began_s, cpu_s)
    finally:
        remove(targets)


def write_small_twice(number: int, size_bytes: int, batch: int, targets: Sequence[Path]) -> Sample:
    """What many small PUTs cannot do without: as many files in each of two directories, durable.

    A process for each directory, which must be empty. It writes a batch of files, syncs them all
    at once, gives them their names and syncs those. No hash, no socket; what is there is left.
    """
    fork = multiprocessing.get_context("fork")
    there = fork.Barrier(len(targets) + 1)
    with ProcessPoolExecutor(len(targets), fork, there.wait) as processes:
        for target in targets:
            processes.submit(os.listdir, target)
        there.wait()
        began_s = time.perf_counter()
        work = partial(_write_small, number, size_bytes, batch)
        cpu_s = sum(processes.map(work, targets))
        return Sample(number, time.perf_counter() - began_s, cpu_s)


def _write_small(number: int, size_bytes: int, batch: int, target: Path) -> float:
    began_s = time.process_time()
    body = os.urandom(size_bytes)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    for begin in range(0, number, batch):
        write_durably(
            fd, [(f"{each:064x}", body) for each in range(begin, min(begin + batch, number))]
        )
    os.close(fd)
    return time.process_time() - began_s


def write_durably(directory_fd: int, files: Sequence[tuple[str, bytes]]) -> None:
    """Write new files: a sync for the contents of all of them, and one for their names."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for name, content in files:
        file = os.open(f"{name}.new", flags, 0o444, dir_fd=directory_fd)
        os.write(file, content)
        os.close(file)
    sync_whole(directory_fd)
    for name, _ in files:
        os.rename(f"{name}.new", name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    os.fsync(directory_fd)


def _cpu_of(work: Callable[[], None]) -> float:
    began_s = time.thread_time()
    work()
    return time.thread_time() - began_s


def _hash(block: mmap.mmap, size_bytes: int) -> None:
    hashing = hashlib.sha256()
    with memoryview(block) as content:
        for begin in range(0, size_bytes, BLOCK_BYTES):
            hashing.update(content[: size_bytes - begin])


def _receive(receiver: socket.socket, size_bytes: int) -> None:
    buffer = memoryview(bytearray(BLOCK_BYTES))
    while size_bytes:
        size_bytes -= receiver.recv_into(buffer)


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        receiver = socket.create_connection(listener.getsockname())
        sender, _ = listener.accept()
    return receiver, sender


def socket_copy(size_bytes: int) -> Sample:
    """The loopback's limit: memory from one thread to another over TCP, 1 MiB at a time."""
    receiver, sender = _connected()
    with sender, receiver:
        sending = threading.Thread(target=_send, args=(sender, size_bytes))
        began_s = time.perf_counter()
        sending.start()
        _receive(receiver, size_bytes)
        sending.join()
        return Sample.of_bytes(size_bytes, time.perf_counter() - began_s)


def _send(sender: socket.socket, size_bytes: int) -> None:
    block = memoryview(os.urandom(BLOCK_BYTES))
    for begin in range(0, size_bytes, BLOCK_BYTES):
        sender.sendall(block[: size_bytes - begin])


def _copy_and_sync(body: Path, target: Path) -> None:
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with body.open("rb", buffering=0) as source, target.open("wb", buffering=0) as file:
        while count := source.readinto(buffer):
            file.write(buffer[:count])
        os.fsync(file.fileno())


def _write_directly(block: mmap.mmap, size_bytes: int, target: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT
    fd = os.open(target, flags, 0o644)
    try:
        with memoryview(block) as content:
            for begin in range(0, size_bytes, BLOCK_BYTES):
                os.write(fd, content[: size_bytes - begin])
        os.fsync(fd)
    finally:
        os.close(fd)


def _in_threads(targets: Sequence[Path], work: Callable[[Path], None]) -> None:
    with ThreadPoolExecutor(len(targets)) as threads:
        for done in [threads.submit(work, target) for target in targets]:
            done.result()


def remove(targets: Sequence[Path]) -> None:
    """Delete files, and wait for the disk to be done with them."""
    for target in targets:
        target.unlink(missing_ok=True)
    settle()


def settle() -> None:
    """Have everything written that waits for it, and the space of deleted files given back.

    Else whoever comes next pays for it: a filesystem may discard what was deleted, after the sync
    and for a second or two, and a device that is busy with that writes half as fast.
    """
    os.sync()
    give_up_s = time.monotonic() + MOST_SETTLING_S
    quiet_since_s, discards = time.monotonic(), Discards.now()
    while (now_s := time.monotonic()) < quiet_since_s + QUIET_S:
        if now_s > give_up_s:
            print(f"the disks were still busy after {MOST_SETTLING_S:.0f} s", file=sys.stderr)
            return
        time.sleep(QUIET_S / 10)
        if (now := Discards.now()) != discards or now.running:
            quiet_since_s, discards = time.monotonic(), now


class Discards(NamedTuple):
    """Of all disks that discard at all.

    Attributes:
        running: requests of any kind that have not ended; a discard may be one of them.
        ended: discards that have.
    """

    running: int
    ended: int

    @classmethod
    def now(cls) -> Self:
        """As the kernel tells them."""
        return cls.told_by(Path("/proc/diskstats").read_text())

    @classmethod
    def told_by(cls, diskstats: str) -> Self:
        """As told by a text like `/proc/diskstats`; see the kernel's admin-guide/iostats.rst."""
        fields = [[int(field) for field in line.split()[3:]] for line in diskstats.splitlines()]
        discarding = [each for each in fields if each[11]]
        return cls(sum(each[8] for each in discarding), sum(each[11] for each in discarding))
