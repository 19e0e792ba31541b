"""What can be read of an artifact while it is being received, and when that ends."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from depot.errors import HashMismatch
from depot.http.pump import Pump
from depot.reading.reader import VerifyReads
from depot.store import ArtifactStore
from depot.writing.arriving import Arrival
from tests.store.arrivals import found, putting, until
from tests.store.builders import (
    MIB,
    ONE,
    A,
    B,
    GatedSource,
    Node,
    config,
    copies,
    hash_of,
    put,
)

RANDOM = os.urandom(3 * MIB + 17)
SIZE = len(RANDOM)


async def read(store: ArtifactStore, arrival: Arrival, index: int, start: int, end: int) -> bytes:
    pump = Pump()
    with await store.arrivals.open(arrival, index) as opened:
        store.arrivals.check_reads(arrival, opened)
        return await pump.read(opened, start, end - start)


@pytest.mark.parametrize("index", [A, B])
@pytest.mark.parametrize("verify", list(VerifyReads), ids=str)
async def test_what_was_received_can_be_read_before_the_rest_is_here(
    node: Node, index: int, verify: VerifyReads
) -> None:
    async with node.open(verify_reads=verify) as store:
        await store.put_config(config(1, RANDOM))
        async with putting(store, RANDOM, GatedSource(RANDOM, before_bytes=2 * MIB)) as running:
            arrival = found(store, RANDOM)
            await until(arrival, lambda: arrival.limit(index, SIZE) == 2 * MIB)
            assert await read(store, arrival, index, 0, 2 * MIB) == RANDOM[: 2 * MIB]
            assert not running.done()
            assert copies(store) == {}


async def test_b2_the_block_an_answer_ends_in_is_withheld_until_the_whole_hash_is_right(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        async with putting(store, RANDOM, GatedSource(RANDOM, before_bytes=SIZE)) as running:
            arrival = found(store, RANDOM)
            # All of it is here, but for the end of the stream that says so.
            await until(arrival, lambda: arrival.limit(A, 3 * MIB + 1) == 3 * MIB)
            assert arrival.limit(A, SIZE) == 3 * MIB
            assert arrival.limit(A, 2 * MIB) == MIB
            assert arrival.limit(A, 1) == 0
        await running
        assert arrival.landed
        assert arrival.limit(A, SIZE) == SIZE


async def test_a_reader_goes_on_with_the_file_it_has_when_the_put_commits(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        source = GatedSource(RANDOM, before_bytes=2 * MIB)
        async with putting(store, RANDOM, source) as running:
            arrival = found(store, RANDOM)
            await until(arrival, lambda: arrival.limit(A, SIZE) > 0)
            with await store.arrivals.open(arrival, A) as opened:
                source.open_gate()
                await running
                store.arrivals.check_reads(arrival, opened)
                assert await Pump().read(opened, MIB, SIZE - MIB) == RANDOM[MIB:]


async def test_b2_what_was_read_back_is_compared_with_what_was_received(node: Node) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await store.put_config(config(1, RANDOM))
        async with putting(store, RANDOM, GatedSource(RANDOM, before_bytes=2 * MIB)):
            arrival = found(store, RANDOM)
            await until(arrival, lambda: arrival.limit(A, SIZE) == 2 * MIB)
            await node.write_file(A, arrival.names[A], b"!" * 2 * MIB)
            with pytest.raises(OSError, match="does not match"):
                await read(store, arrival, A, 0, MIB)
            assert await read(store, arrival, B, 0, MIB) == RANDOM[:MIB]


async def test_a_dataset_that_is_trusted_again_is_not_held_to_what_had_been_received_before(
    node: Node,
) -> None:
    async with node.open(verify_reads=VerifyReads.AUTO) as store:
        await store.put_config(config(1, RANDOM))
        source = GatedSource(RANDOM, before_bytes=2 * MIB)
        async with putting(store, RANDOM, source) as running:
            arrival = found(store, RANDOM)
            await until(arrival, lambda: arrival.limit(A, SIZE) == 2 * MIB)
            with await store.arrivals.open(arrival, A) as opened:
                store.arrivals.check_reads(arrival, opened)
                assert await Pump().read(opened, 0, MIB) == RANDOM[:MIB]
                store._parts.mirrors.all[A].dataset.checksums_data = True
                source.open_gate()
                await running
                store.arrivals.check_reads(arrival, opened)
                assert await Pump().read(opened, 2 * MIB, SIZE - 2 * MIB) == RANDOM[2 * MIB :]


async def test_wrong_bytes_end_an_arrival_before_its_last_block(node: Node) -> None:
    wrong = RANDOM[:-1] + bytes([RANDOM[-1] ^ 1])
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        async with putting(store, RANDOM, GatedSource(wrong, before_bytes=SIZE)) as running:
            arrival = found(store, RANDOM)
        with pytest.raises(HashMismatch):
            await running
        assert arrival.over
        assert arrival.limit(A, SIZE) == 3 * MIB
        assert store.arrivals.find(hash_of(RANDOM)) is None


async def test_an_artifact_that_left_the_config_is_not_read_any_more(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        async with putting(store, RANDOM, GatedSource(RANDOM, before_bytes=2 * MIB)):
            arrival = found(store, RANDOM)
            await store.put_config(config(2, ONE))
            assert store.arrivals.find(hash_of(RANDOM)) is None
            assert arrival.over


@pytest.mark.parametrize(
    ("content", "announced", "options"),
    [
        (RANDOM[:MIB], True, {}),
        (RANDOM, False, {}),
        (RANDOM, True, {"relay": False}),
    ],
    ids=["one block", "unknown length", "switched off"],
)
async def test_some_arrivals_are_not_offered(
    node: Node, content: bytes, announced: bool, options: dict[str, Any]
) -> None:
    async with node.open(**options) as store:
        await store.put_config(config(1, content))
        source = GatedSource(content, before_bytes=len(content))
        task = asyncio.create_task(put(store, content, source=source, announced=announced))
        await source.reached()
        assert store.arrivals.find(hash_of(content)) is None
        source.open_gate()
        await task


async def test_what_is_held_on_one_dataset_is_read_from_there(node: Node) -> None:
    async with node.open([node.paths[A]]) as store:
        await store.put_config(config(1, RANDOM))
        await put(store, RANDOM)
    async with (
        node.open() as store,
        putting(store, RANDOM, GatedSource(RANDOM, before_bytes=2 * MIB)),
    ):
        assert store.arrivals.status().arriving == 1
        assert store.arrivals.find(hash_of(RANDOM)) is None


async def test_of_two_writers_the_one_that_is_further_is_read(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        async with (
            putting(store, RANDOM, GatedSource(RANDOM, before_bytes=MIB)),
            putting(store, RANDOM, GatedSource(RANDOM, before_bytes=3 * MIB)),
        ):
            (behind, ahead) = store.arrivals._running[hash_of(RANDOM)]
            await until(ahead, lambda: ahead.limit(A, SIZE) == 3 * MIB)
            assert found(store, RANDOM) is ahead
            assert behind is not ahead


async def test_a_source_that_breaks_ends_the_arrival(node: Node) -> None:
    lost = GatedSource(RANDOM[: 2 * MIB], before_bytes=2 * MIB, error=ConnectionResetError())
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        async with putting(store, RANDOM, lost) as running:
            arrival = found(store, RANDOM)
        with pytest.raises(ConnectionResetError):
            await running
        assert arrival.over
        assert await node.leftovers() == []
