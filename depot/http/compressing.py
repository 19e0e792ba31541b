"""Artifacts as zstd streams, for clients that ask for them.

Rules kept here:
- What enters the compressor was read, and checked where a check is due, by whoever opened the
  artifact: `ReadPart` gives right bytes or raises, so nothing wrong is ever encoded (B2).
- Compressing is done in threads of its own, fewer than there are cores, a block at a time: plain
  answers, which need none of them, always find a core. No thread waits for a client or for a disk.
- At most `places` answers are compressed at once, and all compressors together take about
  `MEMORY_BYTES` (S1). Whoever finds no place gets the bytes themselves: there is no queue.
- The window is at most 8 MiB, which every decoder takes, also ours for the body of a PUT.
- Whether it pays is judged once for each artifact, from samples, and remembered: artifacts never
  change. Memory alone remembers; after a restart it costs a few milliseconds again.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import zstandard

from depot.artifact import ArtifactHash
from depot.concurrency.keyed_lock import KeyedLock
from depot.concurrency.threads import DaemonThreads
from depot.streams.blocks import BLOCK_SIZE_BYTES

# Gives bytes from a start, so many of them: the right ones, or an error.
ReadPart = Callable[[int, int], Awaitable[bytes]]

DEFAULT_LEVEL: Final = 3
DEFAULT_MIN_SIZE_BYTES: Final = 64 << 10
MAX_LEVEL: Final = 19
"""Above, the window is larger than 8 MiB."""
MAX_PLACES: Final = 8
MEMORY_BYTES: Final = 64 << 20
PAYS_BELOW: Final = 0.9
SAMPLES: Final = 4
SAMPLE_BYTES: Final = 256 << 10
REMEMBERED: Final = 16_384
# A block takes milliseconds, a second at the highest levels; this only ends what never ends.
_BLOCK_TIMEOUT_S: Final = 120.0
# What judges need not be what compresses: content that packs at all does so at a low level too.
_JUDGING_LEVEL: Final = 3


class Encoder(Protocol):
    """What of zstandard's streaming compressor is used; for one thread at a time."""

    def compress(self, content: bytes, /) -> bytes:
        """Take a part; what of the encoded stream is ready, perhaps nothing."""

    def flush(self) -> bytes:
        """End the stream; raises ZstdError unless all that was announced has been taken."""


class Compressor:
    """Compresses the artifacts of one server.

    Args:
        level: zstd's, 1 to `MAX_LEVEL`.
        min_size_bytes: what is smaller does not pay.
        places: how many answers are compressed at once; None: as many as there is memory for.
        remembered: how many artifacts' judgements are kept, the last ones used.

    Attributes:
        min_size_bytes: what is smaller is compressed only for who takes nothing else.
    """

    def __init__(
        self,
        *,
        level: int = DEFAULT_LEVEL,
        min_size_bytes: int = DEFAULT_MIN_SIZE_BYTES,
        places: int | None = None,
        remembered: int = REMEMBERED,
    ) -> None:
        self._level = level
        self.min_size_bytes = min_size_bytes
        self._free = affordable_places(level) if places is None else places
        self._threads = DaemonThreads("compress", max(1, _cores() // 2))
        self._judging: KeyedLock[ArtifactHash] = KeyedLock()
        self._remembered = remembered
        self._pays: dict[ArtifactHash, bool] = {}

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Take a place for the block if there is a free one; tells whether there was."""
        granted = self._free > 0
        self._free -= granted
        try:
            yield granted
        finally:
            self._free += granted

    async def pays(self, artifact: ArtifactHash, size_bytes: int, read: ReadPart) -> bool:
        """Tell whether an artifact is worth compressing; reads samples the first time it is asked.

        Raises whatever `read` does; nothing is remembered then.
        """
        if size_bytes < self.min_size_bytes:
            return False
        async with self._judging.hold(artifact):
            pays = self._pays.pop(artifact, None)
            if pays is None:
                pays = await self._judge(size_bytes, read)
            self._pays[artifact] = pays  # at the end: the one that was not used longest goes first
            if len(self._pays) > self._remembered:
                del self._pays[next(iter(self._pays))]
            return pays

    async def stream(self, size_bytes: int, read: ReadPart) -> AsyncGenerator[bytes]:
        """Give the zstd stream of an artifact: one frame that tells its size and has a checksum.

        Raises whatever `read` does; the frame then has no end.
        """
        encoder = make_encoder(self._level, size_bytes)
        for start in range(0, size_bytes, BLOCK_SIZE_BYTES):
            length_bytes = min(BLOCK_SIZE_BYTES, size_bytes - start)
            # The block itself has no name here: it is not held while a slow client is waited for.
            encoded = await self._threads.call(
                _BLOCK_TIMEOUT_S, encoder.compress, await read(start, length_bytes)
            )
            if encoded:
                yield encoded
        yield await self._threads.call(_BLOCK_TIMEOUT_S, encoder.flush)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()

    async def _judge(self, size_bytes: int, read: ReadPart) -> bool:
        sampled_bytes = encoded_bytes = 0
        for start, length_bytes in sample_bounds(size_bytes):
            sample = await read(start, length_bytes)
            sampled_bytes += len(sample)
            encoded_bytes += await self._threads.call(_BLOCK_TIMEOUT_S, _encoded_size, sample)
        return encoded_bytes < PAYS_BELOW * sampled_bytes


def sample_bounds(size_bytes: int) -> list[tuple[int, int]]:
    """Where to look into an artifact, as starts and lengths: all of it, or parts spread over it.

    A sample begins where a block does, so that reading it checks one block only.
    """
    if size_bytes <= SAMPLES * SAMPLE_BYTES:
        return [(0, size_bytes)]
    last_block = (size_bytes - 1) // BLOCK_SIZE_BYTES
    blocks = sorted({last_block * index // (SAMPLES - 1) for index in range(SAMPLES)})
    starts = (block * BLOCK_SIZE_BYTES for block in blocks)
    return [(start, min(SAMPLE_BYTES, size_bytes - start)) for start in starts]


def make_encoder(level: int, size_bytes: int) -> Encoder:
    """Make the compressor of one stream of `size_bytes`."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=size_bytes, write_checksum=True, write_content_size=True
    )
    encoder: Encoder = zstandard.ZstdCompressor(compression_params=parameters).compressobj(
        size=size_bytes
    )
    return encoder


def affordable_places(level: int) -> int:
    """How many compressors of a level fit into `MEMORY_BYTES`; one at least, `MAX_PLACES` at most.

    Eight up to level 6, three at level 9, one from level 12 on.
    """
    parameters = zstandard.ZstdCompressionParameters.from_level(level)
    window_bytes = 1 << parameters.window_log
    # Beside the compressor's own: its window, and a block on the way in and one on the way out.
    each_bytes = (
        parameters.estimated_compression_context_size() + window_bytes + 2 * BLOCK_SIZE_BYTES
    )
    return max(1, min(MAX_PLACES, MEMORY_BYTES // each_bytes))


def _encoded_size(sample: bytes) -> int:
    return len(zstandard.ZstdCompressor(level=_JUDGING_LEVEL).compress(sample))


def _cores() -> int:
    # What this process may use, where the system tells.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
