"""Copies from peers that are still receiving the artifact themselves.

Each node is a real store with its copies and its depot; the first of a chain copies from a scripted
peer, which pauses, breaks or lies. Whatever it does, only the named bytes are ever stored (B1, B2).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import aiohttp

from agent.copies.lineup import RetryPolicy
from agent.copies.peers import PeerLimits
from depot.http.depot_api import depot_app
from depot.writing.arriving_tail import PIECE_BYTES
from tests.copying import ARTIFACT, CONTENT, IMPATIENT, OTHER, PATIENT, Sled, move_on, sled_at
from tests.http.servers import serve
from tests.lying_peer import (
    Answer,
    Connection,
    LyingPeer,
    Request,
    announcing,
    fixed,
    honest,
    part_head,
    paused,
)
from tests.store.arrivals import eventually

MIB = 1 << 20
HALF = MIB + 200_000
"""All of the first block and some of the last."""
LIE = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
STUCK_S = 15
"""Less than any wait of a patient node: what takes longer waits for nothing."""
ASKS_AGAIN = RetryPolicy(max_tries=50, first_delay_s=0.01, max_delay_s=0.05)


@dataclass(frozen=True)
class Node:
    """A sled that copies, and its depot."""

    sled: Sled
    url: str

    def bytes_done(self) -> int:
        return max((record.bytes_done for record in self.sled.copies.list()), default=0)

    async def ends(self, copy_id: str, state: str = "succeeded") -> None:
        async with asyncio.timeout(STUCK_S):
            record = await self.sled.outcome(copy_id)
        assert record.state == state, record.error
        kept = CONTENT if state == "succeeded" else None
        assert await self.sled.stored() == [kept, kept]


@asynccontextmanager
async def nodes(
    root: Path, count: int, limits: PeerLimits = PATIENT, retry: RetryPolicy = ASKS_AGAIN
) -> AsyncIterator[Sequence[Node]]:
    async with AsyncExitStack() as stack:
        made = []
        for index in range(count):
            home = root / f"node-{index}"
            await asyncio.to_thread(home.mkdir)
            sled = await stack.enter_async_context(sled_at(home, limits, retry=retry))
            app = depot_app(sled.store, arrivals=sled.store.arrivals)
            service = await stack.enter_async_context(serve(app))
            made.append(Node(sled, service.url))
        yield made


async def start_chain(first: str, made: Sequence[Node], *fallbacks: str) -> list[str]:
    """Have each node copy from the one before it; all but the first have others to fall back to."""
    copies = [await made[0].sled.start(first)]
    for before, node in pairwise(made):
        copies.append(await node.sled.start(before.url, *fallbacks))
    return copies


async def first_block_has_passed(made: Sequence[Node]) -> None:
    await eventually(lambda: all(node.bytes_done() == MIB for node in made))


def breaking(content: bytes, after: int, when: asyncio.Event) -> Answer:
    """A truthful answer that pauses after `after` bytes of its body, and then breaks."""

    async def answer(request: Request, connection: Connection) -> None:
        await part_head(request, connection, len(content))
        await connection.send(content[request.offset :][:after])
        await when.wait()
        connection.reset()

    return answer


async def test_a_chain_passes_on_what_its_source_has_not_ended_yet(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with LyingPeer([paused(CONTENT, HALF, go_on)]) as origin, nodes(tmp_path, 4) as made:
        copies = await start_chain(origin.url, made)
        await first_block_has_passed(made[1:])
        for depth, node in enumerate(made, 1):
            assert await node.sled.stored() == [None, None]
            assert node.sled.store.list_artifacts().copies == {}
            assert await head_depth(node.url) == str(depth)
        go_on.set()
        for node, copy_id in zip(made, copies, strict=True):
            await node.ends(copy_id)
        assert origin.connections == 1


async def head_depth(url: str) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.head(f"{url}/artifact/sha256/{ARTIFACT}") as response,
    ):
        assert response.headers["Depot-Arriving"] == "1"
        return response.headers["Depot-Arriving-Depth"]


async def test_a_piece_is_passed_on_before_its_block_is_whole(tmp_path: Path) -> None:
    go_on, end = asyncio.Event(), asyncio.Event()

    async def in_parts(request: Request, connection: Connection) -> None:
        await part_head(request, connection, len(CONTENT))
        await connection.send(CONTENT[:1000])
        await go_on.wait()
        await connection.send(CONTENT[1000 : 3 * PIECE_BYTES - 1])
        await end.wait()
        await connection.send(CONTENT[3 * PIECE_BYTES - 1 :])

    async with LyingPeer([in_parts]) as origin, nodes(tmp_path, 2) as (relay, node):
        relayed = await relay.sled.start(origin.url)
        copy_id = await node.sled.start(relay.url)
        await eventually(lambda: relay.sled.store.arrivals.readers == 1)
        go_on.set()
        await eventually(lambda: node.bytes_done() == 2 * PIECE_BYTES)
        end.set()
        await relay.ends(relayed)
        await node.ends(copy_id)


async def test_a_relay_passes_on_to_several(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with LyingPeer([paused(CONTENT, HALF, go_on)]) as origin, nodes(tmp_path, 4) as made:
        copies = [await made[0].sled.start(origin.url)]
        copies += [await node.sled.start(made[0].url) for node in made[1:]]
        await first_block_has_passed(made[1:])
        go_on.set()
        for node, copy_id in zip(made, copies, strict=True):
            await node.ends(copy_id)


async def test_when_the_first_of_a_chain_loses_its_source_the_next_resumes_elsewhere(
    tmp_path: Path,
) -> None:
    dies = asyncio.Event()
    async with (
        LyingPeer([breaking(CONTENT, HALF, dies), fixed("404 Not Found")]) as origin,
        LyingPeer([honest(CONTENT)]) as other,
        nodes(tmp_path, 3) as made,
    ):
        first, second, third = await start_chain(origin.url, made, other.url)
        await first_block_has_passed(made[1:])
        dies.set()
        await made[0].ends(first, "failed")
        await made[1].ends(second)
        await made[2].ends(third)
        # The third did not notice: its relay never broke.
        assert other.offsets == [MIB]


async def test_b2_the_bytes_of_a_liar_pass_through_a_chain_and_settle_nowhere(
    tmp_path: Path,
) -> None:
    go_on = asyncio.Event()
    async with (
        LyingPeer([paused(LIE, HALF, go_on)]) as liar,
        LyingPeer([honest(CONTENT)]) as other,
        nodes(tmp_path, 3) as made,
    ):
        first, second, third = await start_chain(liar.url, made, other.url)
        await first_block_has_passed(made[1:])
        go_on.set()
        await made[0].ends(first, "failed")
        await made[1].ends(second)
        await made[2].ends(third)
        # Nobody could know which bytes were wrong: both began anew where the artifact is held.
        assert other.offsets.count(0) == 2


async def test_a_relay_that_found_out_a_liar_gives_the_artifact_in_the_end(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with (
        LyingPeer([paused(LIE, HALF, go_on)]) as liar,
        LyingPeer([honest(CONTENT)]) as other,
        nodes(tmp_path, 2) as (relay, node),
    ):
        relayed = await relay.sled.start(liar.url, other.url)
        copy_id = await node.sled.start(relay.url)
        await first_block_has_passed([node])
        go_on.set()
        await relay.ends(relayed)
        await node.ends(copy_id)


async def test_two_nodes_never_wait_for_each_other(tmp_path: Path) -> None:
    dies = asyncio.Event()
    async with (
        LyingPeer([breaking(CONTENT, HALF, dies), honest(CONTENT)]) as origin,
        nodes(tmp_path, 2) as (one, two),
    ):
        first = await one.sled.start(origin.url, two.url)
        second = await two.sled.start(one.url)
        await first_block_has_passed([two])
        dies.set()
        await one.ends(first)
        await two.ends(second)
        assert origin.offsets == [0, HALF]


async def test_nodes_that_have_only_each_other_give_up(tmp_path: Path) -> None:
    dies = asyncio.Event()
    async with (
        LyingPeer([breaking(CONTENT, HALF, dies), fixed("404 Not Found")]) as origin,
        nodes(tmp_path, 3, retry=RetryPolicy(max_tries=2, first_delay_s=0.01)) as made,
    ):
        one, two, three = made
        first = await one.sled.start(origin.url, two.url, three.url)
        second = await two.sled.start(one.url, three.url)
        third = await three.sled.start(two.url, one.url)
        await first_block_has_passed(made[1:])
        dies.set()
        for node, copy_id in zip(made, (first, second, third), strict=True):
            await node.ends(copy_id, "failed")


async def test_when_a_config_drops_the_artifact_at_a_relay_the_next_goes_on_elsewhere(
    tmp_path: Path,
) -> None:
    go_on = asyncio.Event()
    async with (
        LyingPeer([paused(CONTENT, HALF, go_on)]) as origin,
        LyingPeer([honest(CONTENT)]) as other,
        nodes(tmp_path, 2) as (relay, node),
    ):
        dropped, copy_id = await start_chain(origin.url, [relay, node], other.url)
        await first_block_has_passed([node])
        relay.sled.copies.config_changed(await move_on(relay.sled, [OTHER]))
        await relay.ends(dropped, "superseded")
        await node.ends(copy_id)
        assert other.offsets == [MIB]


async def test_s2_a_source_that_stalls_does_not_hold_a_chain_for_ever(tmp_path: Path) -> None:
    async with (
        LyingPeer([announcing(len(CONTENT), CONTENT[:HALF], then_stall=True)]) as origin,
        LyingPeer([honest(CONTENT)]) as other,
        nodes(tmp_path, 3, IMPATIENT, RetryPolicy(max_tries=1)) as made,
    ):
        first, second, third = await start_chain(origin.url, made, other.url)
        await made[0].ends(first, "failed")
        await made[1].ends(second)
        await made[2].ends(third)
