"""Parts of a snapshot, a stream of blocks cut anew, and work on several pieces side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

PART_BYTES: Final = 8 << 20
"""How much of a snapshot is fetched at a time.

Midstates that were published are of use only where they are apart by a multiple of it.
"""
Bounds = tuple[int, int]

T = TypeVar("T")
R = TypeVar("R")


def parts_of(size_bytes: int) -> Iterator[Bounds]:
    """Cut so many bytes into parts: where each begins and ends."""
    for start in range(0, size_bytes, PART_BYTES):
        yield start, min(start + PART_BYTES, size_bytes)


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
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int,
    ahead: int = 0,
    abandon: Callable[[], None] = lambda: None,
) -> Generator[R]:
    """Work on several items at once; what came of them, in their order.

    Args:
        work: called in a thread of its own.
        items: taken only when there is room, so that no more than `workers + ahead` are kept.
        workers: how many at once.
        ahead: how many more may be done with, or waiting, before the first is taken out.
        abandon: called when it ends early, to have those under way end soon.

    When one fails, or the caller wants no more, no other is begun; those under way are awaited.
    """
    under_way: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="snapshot-part")
    try:
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) >= workers + ahead:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BaseException:
        abandon()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
