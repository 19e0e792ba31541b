"""Streams of every kind on their way to the disks: sources, compression, stalls."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import threading
import time
from typing import Any

import pytest
import zstandard

from depot.errors import BodyTimeout, HashMismatch, InvalidRequest, LengthMismatch, TooLarge
from depot.store import ArtifactStore
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.sources import Pace, SocketSource, Source, StreamSource, ZstdSource
from tests.store.builders import (
    MIB,
    ONE,
    A,
    B,
    BytesSource,
    GatedSource,
    Node,
    config,
    copies,
    hash_of,
    off_loop,
    put,
    read_back,
    reserved_bytes,
    states,
    threads_end,
)
from tests.store.faulty import WAIT_S, FaultyDisk

RANDOM = os.urandom(3 * MIB + 17)
PATIENT = Pace(idle_timeout_s=20.0, min_bytes_per_s=0.0)


def compressed(content: bytes, **parameters: int) -> bytes:
    if not parameters:
        return zstandard.ZstdCompressor().compress(content)
    given = zstandard.ZstdCompressionParameters.from_level(3, **parameters)
    # As a stream of unknown length: otherwise the window shrinks to the content.
    stream = zstandard.ZstdCompressor(compression_params=given).compressobj()
    return stream.compress(content) + stream.flush()


async def put_zstd(store: ArtifactStore, content: bytes, body: bytes) -> int:
    source = ZstdSource(BytesSource(body, piece_bytes=10_007))
    return (await put(store, content, source=source, announced=False)).copies


async def nothing_is_left(node: Node, store: ArtifactStore) -> None:
    assert copies(store) == {}
    assert reserved_bytes(store) == [0, 0]
    assert states(store) == ["healthy", "healthy"]
    assert await node.leftovers() == []


@pytest.mark.parametrize(
    "size_bytes",
    [
        1,
        4095,
        4096,
        BLOCK_SIZE_BYTES - 1,
        BLOCK_SIZE_BYTES,
        BLOCK_SIZE_BYTES + 1,
        4 * MIB,
        4 * MIB + 1,
        9 * MIB - 4096,
    ],
)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "unknown length"])
async def test_every_size_arrives_whole(node: Node, size_bytes: int, announced: bool) -> None:
    content = os.urandom(size_bytes)
    async with node.open() as store:
        await store.put_config(config(1, content))
        source = BytesSource(content, piece_bytes=333_333)
        assert (await put(store, content, source=source, announced=announced)).copies == 2
        assert await read_back(store, content) == content


@pytest.mark.parametrize("content", [b"", ONE, RANDOM], ids=["empty", "small", "large"])
async def test_a_zstd_body_is_stored_decoded(node: Node, content: bytes) -> None:
    async with node.open() as store:
        await store.put_config(config(1, content))
        assert await put_zstd(store, content, compressed(content)) == 2
        assert await read_back(store, content) == content


async def test_a_zstd_body_may_have_several_frames(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        body = compressed(RANDOM[:MIB]) + compressed(RANDOM[MIB:])
        assert await put_zstd(store, RANDOM, body) == 2


@pytest.mark.parametrize("left_bytes", [1, 3, 100])
async def test_a_truncated_zstd_body_is_refused(node: Node, left_bytes: int) -> None:
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        with pytest.raises((HashMismatch, InvalidRequest)):
            await put_zstd(store, RANDOM, compressed(RANDOM)[:-left_bytes])
        await nothing_is_left(node, store)


async def test_a_zstd_body_cut_in_its_checksum_is_no_success_either(node: Node) -> None:
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(ONE)
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        wrong = checked[:-1] + bytes([checked[-1] ^ 1])
        with pytest.raises(InvalidRequest):
            await put_zstd(store, ONE, wrong)
        await nothing_is_left(node, store)


@pytest.mark.parametrize(
    "body",
    [
        compressed(ONE) + b"garbage",
        b"no zstd at all, by any measure",
        compressed(ONE, window_log=24),
    ],
    ids=["trailing garbage", "not zstd", "window too large"],
)
async def test_a_body_that_is_no_zstd_stream_that_fits_is_refused(node: Node, body: bytes) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        with pytest.raises(InvalidRequest):
            await put_zstd(store, ONE, body)
        await nothing_is_left(node, store)


async def test_a_window_of_eight_mebibytes_fits(node: Node) -> None:
    content = os.urandom(5000) * 2000
    body = compressed(content, window_log=23)
    async with node.open() as store:
        await store.put_config(config(1, content))
        assert await put_zstd(store, content, body) == 2


async def test_a_zstd_bomb_ends_at_the_largest_size(node: Node) -> None:
    bomb = compressed(bytes(64 * MIB))
    assert len(bomb) < 10_000
    async with node.open(max_artifact_size_bytes=2 * MIB) as store:
        await store.put_config(config(1, ONE))
        with pytest.raises(TooLarge):
            await put_zstd(store, ONE, bomb)
        await nothing_is_left(node, store)


@pytest.mark.parametrize(
    "error", [BodyTimeout("slow"), ConnectionResetError("gone"), LengthMismatch(2, 1)], ids=repr
)
async def test_what_breaks_under_a_zstd_body_is_said_as_it_is(node: Node, error: Exception) -> None:
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        broken = ZstdSource(BytesSource(compressed(RANDOM)[: 2 * MIB], error=error))
        with pytest.raises(type(error)):
            await put(store, RANDOM, source=broken, announced=False)
        await nothing_is_left(node, store)


# Sockets and streams, all the way to the disks


async def test_a_socket_fills_the_mirrors(node: Node) -> None:
    ours, theirs = socket.socketpair()
    source = SocketSource(ours, RANDOM[:70_000], len(RANDOM), PATIENT)
    sender = threading.Thread(target=theirs.sendall, args=(RANDOM[70_000:],))
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        sender.start()
        assert (await put(store, RANDOM, source=source)).copies == 2
        assert await read_back(store, RANDOM) == RANDOM
    await off_loop(sender.join)
    source.close()
    theirs.close()


class Reached(SocketSource):
    """Tells when what came with the request has been read."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.reached = threading.Event()

    def readinto(self, buffer: memoryview, /) -> int:
        count = super().readinto(buffer)
        self.reached.set()
        return count


async def test_a_cancelled_put_makes_its_source_give_up(node: Node) -> None:
    ours, theirs = socket.socketpair()
    source = Reached(ours, ONE[:100], len(ONE), PATIENT)
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        running = asyncio.ensure_future(put(store, ONE, source=source))
        assert await off_loop(source.reached.wait, WAIT_S), "nobody reads the body"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await off_loop(theirs.send, ONE[100:200])  # wakes the reader before its next look
    await threads_end("ingest-")
    assert reserved_bytes(store) == [0, 0]
    source.close()
    theirs.close()


async def test_a_stream_of_the_event_loop_fills_the_mirrors(node: Node) -> None:
    reader = asyncio.StreamReader(limit=len(RANDOM))
    source: Source = StreamSource(asyncio.get_running_loop(), reader.read, PATIENT)
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        running = asyncio.ensure_future(put(store, RANDOM, source=source, announced=False))
        for start in range(0, len(RANDOM), 500_000):
            reader.feed_data(RANDOM[start : start + 500_000])
            await asyncio.sleep(0)
        reader.feed_eof()
        assert (await running).copies == 2


class FlagNotingDisk(FaultyDisk):
    """Notes whether the data that is written goes past the page cache."""

    def __init__(self) -> None:
        super().__init__()
        self.direct: set[bool] = set()

    def write(self, fd: int, content: memoryview) -> int:
        if len(content) == BLOCK_SIZE_BYTES:
            self.direct.add(bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT))
        return super().write(fd, content)


@pytest.mark.parametrize("direct_io", [True, False])
@pytest.mark.parametrize("size_bytes", [5 * MIB, 5 * MIB + 77])
async def test_the_setting_says_whether_large_artifacts_pass_the_page_cache(
    node: Node, direct_io: bool, size_bytes: int
) -> None:
    disk = node.disks[node.paths[A]] = FlagNotingDisk()
    content = os.urandom(size_bytes)
    async with node.open(direct_io=direct_io) as store:
        await store.put_config(config(1, content))
        assert (await put(store, content)).copies == 2
        assert await read_back(store, content) == content
    assert disk.direct == {direct_io}


async def test_the_source_is_read_no_faster_than_the_slowest_mirror_writes(node: Node) -> None:
    # S1: back-pressure, so that a slow disk does not fill memory.
    content = bytes(40 * MIB)
    async with node.open() as store:
        await store.put_config(config(1, content))
        hang = node.disk(B).hang("write")
        source = BytesSource(content)
        running = asyncio.ensure_future(put(store, content, source=source))
        await off_loop(hang.wait_begun)
        assert source.read_bytes <= 9 * MIB
        hang.let_go()
        assert (await running).copies == 2


async def test_the_lanes_run_side_by_side(node: Node) -> None:
    # One mirror is not written before the other: both have begun while the body still arrives.
    async with node.open() as store:
        await store.put_config(config(1, RANDOM))
        source = GatedSource(RANDOM, before_bytes=2 * MIB)
        writing = [node.disk(index).hang("write") for index in (A, B)]
        running = asyncio.ensure_future(put(store, RANDOM, source=source))
        for hang in writing:
            await off_loop(hang.wait_begun)
        await source.reached()
        for hang in writing:
            hang.let_go()
        source.open_gate()
        assert (await running).copies == 2
        assert copies(store) == {hash_of(RANDOM): 2}


@pytest.mark.parametrize(("lag_s", "number"), [(0.2, 1), (600.0, 2)])
async def test_b4_a_slow_mirror_is_dropped_from_a_write_past_its_bound_and_healed_later(
    node: Node, lag_s: float, number: int
) -> None:
    content = os.urandom(24 * MIB)
    async with node.open(mirror_lag_s=lag_s, device_timeout_s=60.0) as store:
        await store.put_config(config(1, content))
        # It never fails nor hangs, and would take two and a half seconds.
        slow = node.disk(B).before("write", lambda: time.sleep(0.1), times=None)
        assert (await put(store, content)).copies == number
        assert await node.read(A, content) == content
        assert (slow.strikes >= 24) is (number == 2), "it was waited for to its end"
        node.disk(B).heal()
        await store.check_datasets()
        assert await store.remirror() == 2 - number
    assert await node.read(B, content) == content
