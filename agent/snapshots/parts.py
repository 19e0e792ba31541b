"""A stream of blocks cut anew, and work on several pieces side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")


def sized(blocks: Iterable[bytes], size_bytes: int) -> Iterator[bytes]:
    """Cut a stream into pieces of one size, and a last one of at most that; no empty ones."""
    kept = bytearray()
    for block in blocks:
        kept += block
        while len(kept) >= size_bytes:
            with memoryview(kept) as view:
                piece = bytes(view[:size_bytes])
            yield piece
            del kept[:size_bytes]
    if kept:
        yield bytes(kept)


def side_by_side(
    work: Callable[[int, bytes], R], pieces: Iterable[tuple[int, bytes]], most: int
) -> list[R]:
    """Work on numbered pieces, `most` at once; what came of them, in their order.

    One more piece is taken only when one is done with: at most `most` are in memory. When one
    fails, no other is begun, and those under way are awaited.
    """
    done: list[R] = []
    under_way: deque[Future[R]] = deque()
    with ThreadPoolExecutor(most, thread_name_prefix="snapshot-part") as pool:
        for number, piece in pieces:
            under_way.append(pool.submit(work, number, piece))
            if len(under_way) == most:
                done.append(under_way.popleft().result())
        while under_way:
            done.append(under_way.popleft().result())
    return done
