"""The last bytes of a stream that is being received, in memory, for those who read right behind it.

They are copied where the stream is filled in, as soon as they are there: before their block is
whole, hashed or written. So they are what was received and nothing that a device gave back, and a
piece can be passed on as soon as it is whole. Nobody is waited for: who is further behind than
`TAIL_BYTES` reads the file. Nothing is copied as long as nobody reads.

One thread appends; the event loop reads. Memory is bounded for all streams together (S1).
"""

from __future__ import annotations

from typing import Final

PIECE_BYTES: Final = 256 << 10
"""Divides a block of the stream."""
TAIL_BYTES: Final = 2 << 20
MAX_TAILS: Final = 4
"""Streams that have a tail at once; the others are read from their files alone."""


class Tail:
    """The last pieces of one stream of `size_bytes`.

    Attributes:
        received_bytes: up to here, every piece was there at some time.
    """

    def __init__(self, size_bytes: int) -> None:
        self.received_bytes = 0
        self._size_bytes = size_bytes
        self._pieces: dict[int, bytes] = {}

    def fill(self, block: memoryview, start: int, filled: int, *, keep: bool) -> bool:
        """Take what is whole of `block`, which begins at `start`; whether anything was."""
        more = False
        while True:
            begin = self.received_bytes
            end = min(begin + PIECE_BYTES, self._size_bytes)
            if not begin < end <= start + filled:
                return more
            if keep:
                self._pieces[begin] = bytes(block[begin - start : end - start])
            self._pieces.pop(begin - TAIL_BYTES, None)
            self.received_bytes = end
            more = True

    def read(self, offset: int, end: int) -> memoryview:
        """What is here of bytes `offset` to `end`, at most to the end of a piece; perhaps none."""
        begin = offset - offset % PIECE_BYTES
        piece = self._pieces.get(begin, b"")
        return memoryview(piece)[offset - begin : max(offset, end) - begin]
