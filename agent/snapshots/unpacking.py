"""What zstd made of a snapshot, turned back: bounded, whatever the stream claims."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Final, cast

import zstandard

from agent.snapshots.errors import Malformed, Mismatch

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES: Final = 1 << 20
MAX_WINDOW_BYTES: Final = 128 << 20
"""What a frame may have kept in memory; that of the highest ordinary level."""


def unpacked(blocks: Iterable[bytes], size_bytes: int | None) -> Iterator[bytes]:
    """Decompress a stream of one frame.

    A stream that ends early ends what comes out early: its length is for the caller to judge.

    Args:
        blocks: what is stored.
        size_bytes: what should come out; more than that is not taken. None for whatever comes.

    Raises:
        Mismatch: it is no zstd frame, or a damaged one.
        Malformed: more comes out than was announced.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    done_bytes = 0
    try:
        with decompressor.stream_reader(_raw(blocks), read_size=BLOCK_BYTES) as reader:
            while block := reader.read(BLOCK_BYTES):
                done_bytes += len(block)
                if size_bytes is not None and done_bytes > size_bytes:
                    raise Malformed(f"expected {size_bytes} bytes, found more")
                yield block
    except zstandard.ZstdError as error:
        raise Mismatch(f"it cannot be decompressed: {error}") from error


def _raw(blocks: Iterable[bytes]) -> IO[bytes]:
    # The stubs of zstandard name the whole protocol of files; it only ever reads.
    return cast("IO[bytes]", _Blocks(iter(blocks)))


class _Blocks(io.RawIOBase):
    """Blocks as the raw file that the decompressor wants."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        super().__init__()
        self._blocks = blocks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._left:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        room = memoryview(buffer).cast("B")
        count = min(len(room), len(self._left))
        room[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
