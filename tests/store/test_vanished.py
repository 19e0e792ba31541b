"""Every dataset gone between two requests: nothing is acknowledged that nobody holds."""

from __future__ import annotations

import errno

import pytest

from depot.artifact import Generation
from depot.errors import NoDataset, QuotaExceeded
from tests.store.builders import ONE, BytesSource, Node, config, hash_of, off_loop


async def test_the_identical_config_is_refused_when_no_dataset_holds_it_any_more(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        for path in node.paths:
            await off_loop(path.rename, path.with_suffix(".away"))
        with pytest.raises(NoDataset):
            await store.put_config(config(1, ONE))


async def test_a_pin_is_refused_as_without_datasets_when_both_have_just_gone(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        for path in node.paths:
            await off_loop(path.rename, path.with_suffix(".away"))
        with pytest.raises(NoDataset):
            await store.put_pin("boot", [hash_of(ONE)])


async def test_a_stream_that_no_disk_has_room_for_is_refused_as_such(node: Node) -> None:
    content = bytes(3 << 20)  # more than one block, so that block digests are taken
    async with node.open() as store:
        await store.put_config(config(1, content))
        for disk in node.disks.values():
            disk.fill_up(errno.ENOSPC)
        async with store.begin_put(hash_of(content), Generation(1), len(content)) as put:
            with pytest.raises(QuotaExceeded):
                await put.receive(BytesSource(content))
