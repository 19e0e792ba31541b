from __future__ import annotations

import threading

import pytest

from depot.streams.blocks import BLOCK_SIZE_BYTES, Block, BlockPool, Ring


def test_a_block_comes_back_when_its_last_holder_lets_go() -> None:
    block = Block()
    ring = Ring([block])
    assert ring.take(0.0) is block
    block.holders = 2
    ring.release(block)
    assert ring.take(0.0) is None
    ring.release(block)
    assert ring.take(0.0) is block


def test_a_ring_with_no_free_block_makes_its_filler_wait() -> None:
    block = Block()
    ring = Ring([block])
    ring.take(0.0)
    block.holders = 1
    taken: list[Block | None] = []
    filler = threading.Thread(target=lambda: taken.append(ring.take(20.0)))
    filler.start()
    ring.release(block)
    filler.join(20.0)
    assert taken == [block]


def test_the_content_of_a_block_is_what_was_filled() -> None:
    block = Block()
    block.view[:3] = b"abc"
    block.filled = 3
    assert bytes(block.content) == b"abc"
    assert len(block.view) == BLOCK_SIZE_BYTES


@pytest.mark.parametrize(
    ("length_bytes", "blocks"),
    [
        (0, 2),
        (1, 2),
        (BLOCK_SIZE_BYTES, 2),
        (2 * BLOCK_SIZE_BYTES, 3),
        (100 * BLOCK_SIZE_BYTES, 8),
        (None, 8),
    ],
)
def test_a_ring_fits_its_body_and_always_has_two_blocks(
    length_bytes: int | None, blocks: int
) -> None:
    assert len(BlockPool().lend(length_bytes)[1]) == blocks


@pytest.mark.parametrize(("blocks", "most_held"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4)])
def test_a_consumer_that_hangs_with_all_it_may_hold_leaves_blocks_to_the_others(
    blocks: int, most_held: int
) -> None:
    assert Ring([Block() for _ in range(blocks)]).most_held == most_held


def test_memory_is_bounded_by_the_number_of_streams() -> None:
    # S1: only the first few rings are generous.
    pool = BlockPool(generous_rings=2)
    sizes = [len(pool.lend(None)[1]) for _ in range(5)]
    assert sizes == [8, 8, 2, 2, 2]


def test_a_ring_that_ended_makes_room_for_a_generous_one() -> None:
    pool = BlockPool(generous_rings=1)
    _, blocks = pool.lend(None)
    assert len(pool.lend(None)[1]) == 2
    pool.give_back(blocks, reusable=True)
    pool.give_back(blocks[:2], reusable=True)
    assert len(pool.lend(None)[1]) == 8


def test_blocks_are_used_again_unless_somebody_may_still_touch_them() -> None:
    pool = BlockPool()
    _, stuck = pool.lend(None)
    pool.give_back(stuck, reusable=False)
    _, fresh = pool.lend(None)
    assert not set(map(id, stuck)) & set(map(id, fresh))
    pool.give_back(fresh, reusable=True)
    _, again = pool.lend(None)
    assert set(map(id, again)) == set(map(id, fresh))


def test_only_so_many_idle_blocks_are_kept() -> None:
    pool = BlockPool(idle_blocks=3)
    _, blocks = pool.lend(None)
    pool.give_back(blocks, reusable=True)
    _, again = pool.lend(None)
    assert len(set(map(id, again)) & set(map(id, blocks))) == 3
