"""In which order the datasets of a sled are looked at when it starts."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.store.builders import ONE, A, B, Node, config, off_loop, states
from tests.store.faulty import HANG_S


async def opened(node: Node, **options: Any) -> list[str]:
    async with node.open(**options) as store:
        return states(store)


async def test_the_datasets_of_a_known_sled_are_looked_at_side_by_side(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
    hangs = [node.disk(index).hang("listdir") for index in (A, B)]
    opening = asyncio.ensure_future(opened(node))
    for hang in hangs:
        await off_loop(hang.wait_begun)
    for hang in hangs:
        hang.let_go()
    assert await opening == ["healthy", "healthy"]


async def test_until_the_first_dataset_says_whose_they_are_no_other_is_touched(node: Node) -> None:
    first = node.disk(A).hang("listdir")
    opening = asyncio.ensure_future(opened(node))
    await off_loop(first.wait_begun)
    assert not node.disk(B).calls
    first.let_go()
    assert await opening == ["healthy", "healthy"]


async def test_a_dataset_that_hangs_at_the_start_leaves_the_other_to_be_used(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
    hang = node.disk(A).hang("listdir")
    assert await opened(node, device_timeout_s=HANG_S) == ["missing", "healthy"]
    hang.let_go()
    await off_loop(hang.wait_ended)
