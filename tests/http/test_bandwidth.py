"""Limits on bytes per second, held by real bodies; times are judged by the limit alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agent.copies.manager import CopyOptions
from depot.artifact import ArtifactHash
from depot.http.compressing import Compressor
from depot.http.depot_api import depot_app
from depot.streams.budget import MAX_STEP_BYTES, STEP_S, Budget
from tests.copying import ARTIFACT, CONTENT, ONE, Sled, sled_at
from tests.fakes import FakeStore
from tests.http.raw import RawClient
from tests.http.servers import serve
from tests.lying_peer import LyingPeer, honest
from tests.store.arrivals import eventually

RATE = 2 << 20
SLACK = 0.85
"""Of the time that the limit asks for, this much has to pass; clocks and steps are coarse."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FakeStore]:
    store = FakeStore(tmp_path)
    yield store
    assert store.open_descriptors() == 0, "a file was left open"


async def seconds(work: Awaitable[object]) -> float:
    """How long `work` takes."""
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    await work
    return loop.time() - begin_s


def least_s(size_bytes: int, rate: int = RATE) -> float:
    """What `size_bytes` take at least, but for the two steps that may come at once."""
    return SLACK * (size_bytes / rate - 2 * STEP_S)


async def fetch(url: str, artifact: ArtifactHash, *headers: str) -> bytes:
    async with RawClient.connect(url) as client:
        await client.send(f"GET /artifact/sha256/{artifact} HTTP/1.1", *headers)
        return (await client.answer()).body


# ---- what leaves


async def test_a_depot_sends_no_faster_than_it_may(store: FakeStore) -> None:
    content = bytes(2 << 20)
    artifact = await store.add(content)
    async with serve(depot_app(store, budget=Budget(RATE))) as service:
        took_s = await seconds(fetch(service.url, artifact))
    assert took_s >= least_s(len(content))


async def test_answers_share_what_a_depot_may_send(store: FakeStore) -> None:
    content = bytes(1 << 20)
    artifact = await store.add(content)
    async with serve(depot_app(store, budget=Budget(RATE))) as service:
        both = [seconds(fetch(service.url, artifact)) for _ in range(2)]
        one_s, other_s = await asyncio.gather(*both)
    assert max(one_s, other_s) >= least_s(2 * len(content))
    assert min(one_s, other_s) >= 0.7 * max(one_s, other_s)


async def test_what_a_client_that_goes_away_does_not_get_is_left_to_others(
    store: FakeStore,
) -> None:
    artifact = await store.add(bytes(20 << 20))
    # No time passes: what was taken stays taken. It is a step that is larger than sockets are.
    budget = Budget(int(MAX_STEP_BYTES / STEP_S), lambda: 1000.0)
    assert budget.claim(MAX_STEP_BYTES).size_bytes == MAX_STEP_BYTES
    async with serve(depot_app(store, budget=budget)) as service:
        async with RawClient.connect(service.url) as client:
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(f"GET /artifact/sha256/{artifact} HTTP/1.1")
            await eventually(lambda: store.open_descriptors() > 0)
            client.reset()
        await eventually(lambda: store.open_descriptors() == 0)
    assert budget.claim(1).wait_s < STEP_S * 0.8


async def test_small_answers_count_as_well(store: FakeStore) -> None:
    content = bytes(40_000)
    artifact = await store.add(content)
    async with serve(depot_app(store, budget=Budget(RATE))) as service:
        took_s = await seconds(asyncio.gather(*(fetch(service.url, artifact) for _ in range(50))))
    assert took_s >= least_s(50 * len(content))


async def test_of_a_compressed_answer_the_bytes_that_leave_count(store: FakeStore) -> None:
    artifact = await store.add(bytes(32 << 20))
    app = depot_app(store, budget=Budget(RATE), compressor=Compressor())
    async with serve(app) as service:
        took_s = await seconds(fetch(service.url, artifact, "Accept-Encoding: zstd"))
    # At the size of the artifact it would take 16 s; what leaves is next to nothing.
    assert took_s < least_s(32 << 20)


# ---- what comes in


async def held(sled: Sled, start: Callable[[], Awaitable[str]]) -> None:
    record = await sled.outcome(await start())
    assert record.state == "succeeded"
    assert await sled.stored() == [CONTENT, CONTENT]


async def test_copies_take_in_no_more_than_they_may(tmp_path: Path) -> None:
    bounds = CopyOptions(max_bytes_per_s=RATE)
    async with LyingPeer([honest(CONTENT)]) as peer, sled_at(tmp_path, bounds=bounds) as sled:
        took_s = await seconds(held(sled, lambda: sled.start(peer.url)))
    assert took_s >= least_s(len(CONTENT))


async def test_copies_from_one_host_share_what_it_may_give(tmp_path: Path) -> None:
    bounds = CopyOptions(max_bytes_per_s_per_source=RATE)
    other = CONTENT[::-1]
    wanted = (ARTIFACT, ArtifactHash.of(other))
    async with (
        LyingPeer([honest(CONTENT)]) as peer,
        LyingPeer([honest(other)]) as same_host,
        sled_at(tmp_path, bounds=bounds, wanted=wanted) as sled,
    ):

        async def copy(peer: LyingPeer, sha256: ArtifactHash) -> None:
            assert (await sled.outcome(await sled.start(peer.url, sha256=sha256))).error is None

        both = [seconds(copy(peer, wanted[0])), seconds(copy(same_host, wanted[1]))]
        one_s, other_s = await asyncio.gather(*both)
    assert max(one_s, other_s) >= least_s(2 * len(CONTENT))
    assert min(one_s, other_s) >= 0.7 * max(one_s, other_s)


async def test_healing_has_a_budget_of_its_own(tmp_path: Path) -> None:
    # The one for copies would not let a byte through in this test's time.
    bounds = CopyOptions(max_bytes_per_s=1)
    async with (
        LyingPeer([honest(CONTENT)]) as peer,
        sled_at(tmp_path, bounds=bounds, heal_budget=Budget(RATE)) as sled,
    ):
        took_s = await seconds(sled.copies.fetch(ARTIFACT, ONE, [peer.url]))
        assert await sled.stored() == [CONTENT, CONTENT]
    assert took_s >= least_s(len(CONTENT))


async def test_a_copy_that_somebody_joins_is_not_held_back_by_the_budget_of_healing(
    tmp_path: Path,
) -> None:
    async with (
        LyingPeer([honest(CONTENT)]) as peer,
        sled_at(tmp_path, heal_budget=Budget(200_000)) as sled,
    ):
        healing = asyncio.ensure_future(sled.copies.fetch(ARTIFACT, ONE, [peer.url]))
        await peer.asked.wait()
        took_s = await seconds(held(sled, lambda: sled.start(peer.url)))
        await healing
        assert len(peer.requests) == 1
    assert took_s < least_s(len(CONTENT), rate=200_000)


async def test_a_copy_that_waits_for_its_turn_can_be_given_up(tmp_path: Path) -> None:
    bounds = CopyOptions(max_bytes_per_s=1)
    async with LyingPeer([honest(CONTENT)]) as peer, sled_at(tmp_path, bounds=bounds) as sled:
        copy_id = await sled.start(peer.url)
        await sled.copies.stop(0)
        assert sled.copies.get(copy_id).state == "failed"
        await sled.assert_nothing_is_left()
