"""A snapshot hashed in segments, side by side; what comes of it is the SHA-256 of all of it.

A hash can be taken up where another one was, if its state there is known, and a publisher says some
of these: the midstates. They need no trust. The first segment begins as every SHA-256 does, each
one has to end in the state in which the next began, and the last one ends in the SHA-256 of
everything; where two do not join, nothing is found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol, Self

from agent.snapshots.hashing import BLOCK_BYTES, Block, HashLane, checksum_of
from agent.snapshots.parts import PART_BYTES, Bounds, parts_of
from agent.snapshots.values import Checksum, Head, Midstates
from depot.streams.resumable_sha256 import ResumableSha256, available

MOST_SEGMENTS: Final = 16
"""A bucket keeps 2 KB of metadata, and 15 states are 640 characters."""
AT_ONCE: Final = 2
"""So many threads hash: what fetches the parts needs cores as well."""


def sums_of(path: Path) -> tuple[Checksum, Midstates | None] | None:
    """Hash a file, and note midstates if it has several parts; None if it is no file.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file():
        return None
    size_bytes = path.stat().st_size
    if size_bytes <= PART_BYTES or not available():
        checksum = checksum_of(path)
        return None if checksum is None else (checksum, None)
    stride_bytes = -(-size_bytes // (MOST_SEGMENTS * PART_BYTES)) * PART_BYTES
    digest, done_bytes = ResumableSha256(), 0
    states: list[bytes] = []
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while read_bytes := file.readinto(buffer):
            if done_bytes and done_bytes % stride_bytes == 0 and len(states) < MOST_SEGMENTS:
                states.append(digest.state())
            digest.update(buffer[:read_bytes])
            done_bytes += read_bytes
    midstates = Midstates(stride_bytes, tuple(states))
    return Checksum(digest.digest()), midstates if _fit(midstates, done_bytes) else None


def _fit(midstates: Midstates, size_bytes: int) -> bool:
    """Tell whether they are those of so many bytes, by their number."""
    stride_bytes, segments = midstates.stride_bytes, len(midstates.states) + 1
    return (
        stride_bytes % PART_BYTES == 0
        and 1 < segments <= MOST_SEGMENTS
        and segments == -(-size_bytes // stride_bytes)
    )


class Running(Protocol):
    """The SHA-256 of a snapshot on its way."""

    @property
    def busy_s(self) -> float:
        """How long it took so far: the thread that had most to do."""

    def parts(self) -> Iterator[Bounds]:
        """The parts of what is stored, in the order in which they are to be hashed."""

    def update(self, start: int, block: Block, then: Callable[[], None]) -> None:
        """Give the block at `start`, the next one of its segment; see `HashLane.update`."""

    def finish(self) -> Checksum | None:
        """Wait for what is left; None if the midstates are not those of what was hashed."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def hash_of(head: Head) -> Running:
    """Begin the hash of a version: in segments if what its publisher said allows it."""
    midstates = head.metadata.midstates
    if (
        midstates is not None
        and head.metadata.compression is None
        and _fit(midstates, head.stored_bytes)
        and available()
    ):
        return InSegments(midstates, head.stored_bytes)
    return InOrder(head.stored_bytes)


class InOrder:
    """All of it by one thread."""

    def __init__(self, stored_bytes: int) -> None:
        self._stored_bytes = stored_bytes
        self._digest = hashlib.sha256()
        self._lane = HashLane()

    @property
    def busy_s(self) -> float:
        """See Running."""
        return self._lane.busy_s

    def parts(self) -> Iterator[Bounds]:
        """See Running."""
        return parts_of(self._stored_bytes)

    def update(self, _start: int, block: Block, then: Callable[[], None]) -> None:
        """See Running."""
        self._lane.update(self._digest, block, then)

    def finish(self) -> Checksum:
        """See Running."""
        self._lane.finish()
        return Checksum(self._digest.digest())

    def __enter__(self) -> Self:
        self._lane.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._lane.__exit__()


class InSegments:
    """Segments side by side, by `AT_ONCE` threads: each has every so many-th."""

    def __init__(self, midstates: Midstates, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._stride_bytes = midstates.stride_bytes
        self._states = midstates.states
        self._digests = [ResumableSha256()]
        for number, state in enumerate(midstates.states, 1):
            self._digests.append(ResumableSha256(state, number * midstates.stride_bytes))
        self._lanes = [HashLane() for _ in range(AT_ONCE)]
        self._stack = ExitStack()

    @property
    def busy_s(self) -> float:
        """See Running."""
        return max(lane.busy_s for lane in self._lanes)

    def parts(self) -> Iterator[Bounds]:
        """See Running: so that `AT_ONCE` segments grow side by side."""
        together_bytes = self._stride_bytes * AT_ONCE
        for begin in range(0, self._size_bytes, together_bytes):
            end = min(begin + together_bytes, self._size_bytes)
            for first in range(begin, begin + self._stride_bytes, PART_BYTES):
                for start in range(first, end, self._stride_bytes):
                    yield start, min(start + PART_BYTES, self._size_bytes)

    def update(self, start: int, block: Block, then: Callable[[], None]) -> None:
        """See Running."""
        number = start // self._stride_bytes
        self._lanes[number % AT_ONCE].update(self._digests[number], block, then)

    def finish(self) -> Checksum | None:
        """See Running."""
        for lane in self._lanes:
            lane.finish()
        *earlier, last = self._digests
        if tuple(digest.state() for digest in earlier) != self._states:
            return None
        return Checksum(last.digest())

    def __enter__(self) -> Self:
        for lane in self._lanes:
            self._stack.enter_context(lane)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
