from __future__ import annotations

import random

import pytest

from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.writing.arriving_tail import PIECE_BYTES, TAIL_BYTES, Tail

CONTENT = random.Random(5).randbytes(3 * BLOCK_SIZE_BYTES + PIECE_BYTES + 77)
SIZE = len(CONTENT)


def block_at(start: int) -> memoryview:
    return memoryview(CONTENT)[start : start + BLOCK_SIZE_BYTES]


def feed(tail: Tail, until: int, step: int = 50_001, *, keep: bool = True) -> None:
    for start in range(0, until, BLOCK_SIZE_BYTES):
        end = min(until - start, BLOCK_SIZE_BYTES)
        for filled in [*range(step, end, step), end]:
            tail.fill(block_at(start), start, filled, keep=keep)


def test_blocks_are_made_of_whole_pieces_and_a_tail_too() -> None:
    assert BLOCK_SIZE_BYTES % PIECE_BYTES == 0
    assert TAIL_BYTES % PIECE_BYTES == 0
    assert TAIL_BYTES > BLOCK_SIZE_BYTES


def test_a_piece_can_be_read_once_it_is_whole() -> None:
    tail = Tail(SIZE)
    assert not tail.fill(block_at(0), 0, PIECE_BYTES - 1, keep=True)
    assert not tail.read(0, SIZE)
    assert tail.fill(block_at(0), 0, PIECE_BYTES + 5, keep=True)
    assert tail.read(0, SIZE) == CONTENT[:PIECE_BYTES]
    assert not tail.read(PIECE_BYTES, SIZE)


@pytest.mark.parametrize("step", [1000, PIECE_BYTES, 700_000, BLOCK_SIZE_BYTES])
def test_however_it_comes_the_last_of_it_is_there_and_what_was_before_is_not(step: int) -> None:
    tail = Tail(SIZE)
    feed(tail, SIZE, step)
    assert tail.received_bytes == SIZE
    first = (SIZE - 1) // PIECE_BYTES * PIECE_BYTES - TAIL_BYTES + PIECE_BYTES
    offset, read = first, bytearray()
    while part := tail.read(offset, SIZE):
        read += part
        offset += len(part)
    assert bytes(read) == CONTENT[first:]
    assert not tail.read(first - 1, SIZE)


def test_what_is_read_begins_and_ends_where_it_is_asked_to() -> None:
    tail = Tail(SIZE)
    feed(tail, BLOCK_SIZE_BYTES)
    assert tail.read(5, 9) == CONTENT[5:9]
    assert tail.read(PIECE_BYTES + 7, SIZE) == CONTENT[PIECE_BYTES + 7 : 2 * PIECE_BYTES]
    assert not tail.read(9, 9)
    assert not tail.read(9, 5)


def test_nothing_is_kept_while_nobody_reads() -> None:
    tail = Tail(SIZE)
    feed(tail, SIZE, keep=False)
    assert tail.received_bytes == SIZE
    assert not any(tail.read(offset, SIZE) for offset in range(0, SIZE, PIECE_BYTES))
