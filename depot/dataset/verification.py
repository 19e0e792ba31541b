"""Hashing an artifact as its device holds it: past the page cache, in steps of bounded time.

A verification is begun, stepped and ended by its name. The descriptor, the buffer and the hash stay
with the dataset; only plain values go to the caller, who may be in another process.

A cached read would only prove what memory holds. O_DIRECT reads the device wherever the filesystem
takes the flag. Cached pages are dropped all the same, because some filesystems take the flag and
read through their cache nevertheless; dropping alone is not enough, because pages that are mapped
or dirty stay. All calls block.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from depot.artifact import ArtifactHash
from depot.dataset.disk import Disk
from depot.document import Unreadable
from depot.errors import DatasetUnusable
from depot.streams.block_digests import decode_digests
from depot.streams.blocks import BLOCK_SIZE_BYTES

if TYPE_CHECKING:
    from depot.dataset.dataset import Dataset

STEP_BYTES: Final = 8 * BLOCK_SIZE_BYTES
"""Hashed in one call at most, so that a caller who has other things to do is asked often enough."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A verification that is under way.

    Attributes:
        name: by which it is stepped and ended.
        size_bytes: of the file.
        lacks_digests: it has more than one block, and no block digests to believe are beside it;
            False unless that was asked.
    """

    name: str
    size_bytes: int
    lacks_digests: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """How far a step went.

    Attributes:
        read_bytes: in this step.
        block_digests: SHA-256 of each block that was read, one after the other, if wanted.
        digest: SHA-256 of the whole, once its end is reached.
    """

    read_bytes: int
    block_digests: bytes
    digest: bytes | None = None


class Verification:
    """One open file on its way through the hash."""

    def __init__(self, disk: Disk, fd: int, size_bytes: int) -> None:
        self._disk = disk
        self._fd = fd
        self._size_bytes = size_bytes
        self._offset_bytes = 0
        self._digest = hashlib.sha256()
        # A mapping of its own is aligned as O_DIRECT wants it.
        self._buffer = memoryview(mmap.mmap(-1, BLOCK_SIZE_BYTES))
        self._direct = _try_direct(fd)
        self._lock = threading.Lock()
        self._stepping = self._ended = False

    def step(self, most_s: float, *, by_block: bool = False) -> Step:
        """Hash up to `STEP_BYTES`, and begin no block after `most_s` seconds.

        So the deadline of a call depends on the time that one block takes, not a whole step. With
        `by_block`, which is to be the same at every step, each block is hashed on its own as well.

        Raises:
            OSError: it cannot be read.
            DatasetUnusable: the verification was ended.
        """
        with self._lock:
            if self._ended:
                raise DatasetUnusable("the verification was ended")
            self._stepping = True
        try:
            return self._step(time.monotonic() + most_s, by_block)
        finally:
            self._leave_step()

    def end(self) -> None:
        """Close the file; a step that is stuck in the device closes it when it returns."""
        with self._lock:
            already, self._ended = self._ended, True
            if not already and not self._stepping:
                os.close(self._fd)

    def _leave_step(self) -> None:
        with self._lock:
            self._stepping = False
            if self._ended:
                os.close(self._fd)

    def _step(self, until_s: float, by_block: bool) -> Step:
        self._drop_cached()
        started_bytes, blocks = self._offset_bytes, bytearray()
        end_bytes = min(self._size_bytes, started_bytes + STEP_BYTES)
        at_end = self._offset_bytes >= self._size_bytes
        while not at_end and self._offset_bytes < end_bytes:
            block = self._next_block()
            self._digest.update(block)
            self._offset_bytes += len(block)
            if block and by_block:
                blocks += hashlib.sha256(block).digest()
            at_end = not block or self._offset_bytes >= self._size_bytes
            if time.monotonic() > until_s:
                break
        if not self._direct:  # what was read for this alone must not push out what is read often
            self._drop_cached(started_bytes)
        digest = self._digest.digest() if at_end else None
        return Step(self._offset_bytes - started_bytes, bytes(blocks), digest)

    def _next_block(self) -> memoryview:
        # A block digest is of the whole block, however many reads that takes.
        left_bytes = min(BLOCK_SIZE_BYTES, self._size_bytes - self._offset_bytes)
        filled = 0
        while filled < left_bytes:
            count = self._read(self._buffer[filled:], self._offset_bytes + filled)
            if not count:
                break
            filled += count
        return self._buffer[: min(filled, left_bytes)]

    def _read(self, buffer: memoryview, offset_bytes: int) -> int:
        try:
            return self._disk.pread_into(self._fd, buffer, offset_bytes)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._direct:
                raise
        # After a short read, or on a device with larger blocks: not aligned as it would have to be.
        self._direct = False
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        return self._disk.pread_into(self._fd, buffer, offset_bytes)

    def _drop_cached(self, offset_bytes: int | None = None) -> None:
        offset_bytes = self._offset_bytes if offset_bytes is None else offset_bytes
        with suppress(OSError):
            os.posix_fadvise(self._fd, offset_bytes, STEP_BYTES, os.POSIX_FADV_DONTNEED)


class Verifications:
    """The verifications of one dataset that are under way, by name."""

    def __init__(self) -> None:
        self._running: dict[str, Verification] = {}

    def add(self, verification: Verification) -> str:
        """Keep one; its name, which none of another dataset has."""
        name = secrets.token_hex(16)
        self._running[name] = verification
        return name

    def get(self, name: str) -> Verification:
        """Return one; raises DatasetUnusable when the dataset has been attached anew since."""
        try:
            return self._running[name]
        except KeyError:
            raise DatasetUnusable("the dataset went away during the verification") from None

    def end(self, name: str) -> None:
        """End one, if it is under way."""
        if verification := self._running.pop(name, None):
            verification.end()

    def end_all(self) -> None:
        """End all of them."""
        for name in tuple(self._running):
            self.end(name)


def begin(dataset: Dataset, artifact: ArtifactHash, *, ask_digests: bool = False) -> Begun:
    """Open an artifact for `step`; with `ask_digests`, look at its block digests as well.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be opened.
    """
    fd, (size_bytes, _) = dataset.open_artifact(artifact)
    name = dataset.verifications.add(Verification(dataset.disk, fd, size_bytes))
    # In this call, since another one for each copy would be felt by whoever verifies them all.
    lacks_digests = ask_digests and _lacks_digests(dataset, artifact, size_bytes)
    return Begun(name, size_bytes, lacks_digests)


def step(dataset: Dataset, name: str, most_s: float, *, by_block: bool = False) -> Step:
    """Hash the next part; see `Verification.step`."""
    return dataset.verifications.get(name).step(most_s, by_block=by_block)


def end(dataset: Dataset, name: str) -> None:
    """Close it; a second call changes nothing."""
    dataset.verifications.end(name)


def _lacks_digests(dataset: Dataset, artifact: ArtifactHash, size_bytes: int) -> bool:
    if size_bytes <= BLOCK_SIZE_BYTES:
        return False
    try:
        content = dataset.read_block_digests(artifact)
        if content is not None:
            decode_digests(content, artifact, size_bytes)
    except (OSError, Unreadable):
        return True
    return content is None


def _try_direct(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError:
        return False  # the filesystem has no such reads
    return True
