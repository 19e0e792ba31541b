"""Page-aligned blocks that one ingest passes from its source to the hash and the mirrors.

A block has one filler and several consumers; it goes back to its ring when the last consumer
releases it. The ring is the back-pressure: a source is read only into a free block. Memory is
anonymous, or shared with the datasets' worker processes, page-aligned (so that O_DIRECT takes it)
and bounded by the number of blocks, whatever the artifact's size (S1).
"""

from __future__ import annotations

import mmap
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from depot.streams.arena import Arena

BLOCK_SIZE_BYTES: Final = 1 << 20
GENEROUS_RINGS: Final = 4


class Block:
    """A buffer of `BLOCK_SIZE_BYTES`, of which the first `filled` bytes are content.

    Attributes:
        number: its place in the arena, when its memory is shared.
    """

    __slots__ = ("filled", "holders", "number", "view")

    def __init__(self, view: memoryview | None = None, number: int = -1) -> None:
        self.view = memoryview(mmap.mmap(-1, BLOCK_SIZE_BYTES)) if view is None else view
        self.number = number
        self.filled = 0
        self.holders = 0

    @property
    def content(self) -> memoryview:
        """The filled part."""
        return self.view[: self.filled]


class Ring:
    """A fixed number of blocks in turn.

    Attributes:
        most_held: how many one consumer may be busy with at once; should it hang with them, the
            others go on with the rest.
    """

    def __init__(self, blocks: list[Block]) -> None:
        self.most_held = max(1, len(blocks) // 2)
        self._free: SimpleQueue[Block] = SimpleQueue()
        self._lock = threading.Lock()
        for block in blocks:
            self._free.put(block)

    def take(self, timeout_s: float) -> Block | None:
        """Wait for a free block; None when none came back within `timeout_s` seconds."""
        try:
            return self._free.get(timeout=timeout_s)
        except Empty:
            return None

    def release(self, block: Block) -> None:
        """One consumer (or the filler that did not hand it on) is done with a block."""
        with self._lock:
            block.holders -= 1
            free = block.holders <= 0
        if free:
            self._free.put(block)


class BlockPool:
    """Lends blocks to rings and keeps the idle ones for the next ring.

    Every ring gets at least `MIN_BLOCKS`; only as long as fewer than `generous_rings` are out does
    one get `MAX_BLOCKS`, so the total stays bounded by the number of concurrent ingests.
    """

    MIN_BLOCKS: Final = 2
    MAX_BLOCKS: Final = 8

    @classmethod
    def most_blocks(cls, max_rings: int) -> int:
        """How many blocks `max_rings` rings need at most."""
        return GENEROUS_RINGS * cls.MAX_BLOCKS + max_rings * cls.MIN_BLOCKS

    def __init__(
        self, generous_rings: int = GENEROUS_RINGS, idle_blocks: int = 8, arena: Arena | None = None
    ) -> None:
        self._generous_rings = generous_rings
        self._arena = arena
        self._idle_blocks = idle_blocks
        self._idle: list[Block] = []
        self._rings = 0
        self._lock = threading.Lock()

    def lend(self, length_bytes: int | None) -> tuple[Ring, list[Block]]:
        """Make a ring that fits a body of `length_bytes` (None: unknown)."""
        with self._lock:
            self._rings += 1
            most = self.MAX_BLOCKS if self._rings <= self._generous_rings else self.MIN_BLOCKS
            if length_bytes is not None:
                # Never a single block: the consumer that hangs would have it, and nobody else.
                most = min(most, max(self.MIN_BLOCKS, length_bytes // BLOCK_SIZE_BYTES + 1))
            reused = [self._idle.pop() for _ in range(min(most, len(self._idle)))]
        blocks = reused + [self._new_block() for _ in range(most - len(reused))]
        for block in blocks:
            block.holders = 0
        return Ring(blocks), blocks

    def give_back(self, blocks: list[Block], *, reusable: bool) -> None:
        """End a ring. Blocks that a stuck consumer may still touch are not `reusable`.

        Those of an arena always are, or a device that hangs would keep them for ever: all that a
        late writer can do is to read them, into a file that has no name and never gets one.
        """
        with self._lock:
            self._rings -= 1
            if self._arena is not None:
                for block in blocks:
                    self._arena.give_back(block.number)
            elif reusable:
                room = max(0, self._idle_blocks - len(self._idle))
                self._idle.extend(blocks[:room])

    def _new_block(self) -> Block:
        if self._arena is None:
            return Block()
        number = self._arena.take()
        return Block(self._arena.view(number), number)
