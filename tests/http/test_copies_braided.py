"""Copies that read from several machines at once, whatever those do (S2, B2)."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.copies.manager import CopyOptions
from agent.copies.widening import WideningPolicy
from depot.artifact import ArtifactHash
from tests.copying import ARTIFACT, CONTENT, WRONG, Sled, sled_at
from tests.lying_peer import (
    Answer,
    Connection,
    LyingPeer,
    Request,
    announcing,
    chunked,
    fixed,
    hanging_up,
    honest,
    no_ranges,
    part_head,
    paused,
    resetting,
    silent,
    until_closed,
)

EAGER = WideningPolicy(
    window_s=0,
    waiting_share=0,
    gain=0,
    enough_bytes_per_s=math.inf,
    small_bytes=0,
    short_s=0,
    silence_s=0.2,
)
SEVERAL = CopyOptions(widening=EAGER, part_bytes=64 << 10, hedge_after_s=60)
PACED = replace(SEVERAL, max_bytes_per_s=2 << 20)
"""Slow enough, a second in all, for every source to be found before the copy is over."""
DROP_BYTES = 64
"""With pauses of a hundredth of a second, minutes for all of it."""
STUCK_S = 20
"""Less than the patience for a peer: what takes longer has waited for a silent one."""
ONE = CopyOptions(widening=EAGER, part_bytes=64 << 10, max_sources=1)


@asynccontextmanager
async def machines(*scripts: Answer | Sequence[Answer]) -> AsyncIterator[list[LyingPeer]]:
    """A peer for each script, on a machine of its own."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                LyingPeer([script] if callable(script) else script, host=f"127.0.0.{number}")
            )
            for number, script in enumerate(scripts, 1)
        ]


async def copy(sled: Sled, peers: Sequence[LyingPeer]) -> None:
    record = await sled.copy(*(peer.url for peer in peers))
    assert record.error is None
    assert record.state == "succeeded"
    assert record.bytes_done == len(CONTENT)
    assert await sled.stored() == [CONTENT, CONTENT]


def parts_asked_of(peer: LyingPeer) -> int:
    return sum(request.end is not None for request in peer.requests)


def lying_about_parts(content: bytes) -> Answer:
    """Honest about the whole; of a part, the first byte is wrong."""

    async def answer(request: Request, connection: Connection) -> None:
        await part_head(request, connection, len(content))
        part = request.part(content)
        await connection.send(part if request.end is None else b"!" + part[1:])

    return answer


def stalling_in_parts(content: bytes, after: int) -> Answer:
    """Honest about the whole; of a part, it sends `after` bytes and goes silent."""

    async def answer(request: Request, connection: Connection) -> None:
        await part_head(request, connection, len(content))
        part = request.part(content)
        await connection.send(part if request.end is None else part[:after])
        await connection.until_hung_up()

    return answer


def withheld_in_parts(content: bytes, asked: asyncio.Event) -> Answer:
    """Of a part, nothing, which `asked` tells; of the rest, drops: so it never comes to its end."""

    async def answer(request: Request, connection: Connection) -> None:
        await part_head(request, connection, len(content))
        if request.end is not None:
            asked.set()
            await connection.until_hung_up()
        for begin in range(request.offset, len(content), DROP_BYTES):
            await connection.send(content[begin : begin + DROP_BYTES])
            await asyncio.sleep(0.01)

    return answer


def arriving(content: bytes) -> Answer:
    """A relay, which has all that it is asked for."""

    async def answer(request: Request, connection: Connection) -> None:
        await part_head(request, connection, len(content), "Depot-Arriving: 1")
        await connection.send(request.part(content))

    return answer


# ---- what goes well


@pytest.mark.parametrize("count", [2, 3, 4])
async def test_a_copy_reads_from_several_machines_at_once(tmp_path: Path, count: int) -> None:
    async with (
        machines(*[honest(CONTENT)] * count) as peers,
        sled_at(tmp_path, bounds=PACED) as sled,
    ):
        await copy(sled, peers)
        assert [parts_asked_of(peer) > 0 for peer in peers] == [True] * count
        assert sled.events[-1][1]["served_by"] in [peer.url for peer in peers]


async def test_large_parts_are_read_past_the_http_library(tmp_path: Path) -> None:
    bounds = CopyOptions(widening=EAGER, part_bytes=2 << 20)
    async with (
        machines(honest(CONTENT), honest(CONTENT)) as peers,
        sled_at(tmp_path, bounds=bounds) as sled,
    ):
        await copy(sled, peers)
        assert any(request.end for request in peers[1].requests)


@pytest.mark.parametrize(
    "useless", [no_ranges(CONTENT), fixed("404 Not Found"), arriving(CONTENT), hanging_up]
)
async def test_nothing_is_left_for_a_source_that_gives_no_parts(
    tmp_path: Path, useless: Answer
) -> None:
    async with (
        machines(honest(CONTENT), useless) as peers,
        sled_at(tmp_path, bounds=PACED) as sled,
    ):
        await copy(sled, peers)
        assert peers[0].offsets == [0]
        assert peers[1].requests


async def test_never_several_from_one_machine(tmp_path: Path) -> None:
    async with (
        LyingPeer([honest(CONTENT)]) as one,
        LyingPeer([honest(CONTENT)]) as same_machine,
        LyingPeer([honest(CONTENT)], host="127.0.0.2") as other,
        sled_at(tmp_path, bounds=PACED) as sled,
    ):
        await copy(sled, [one, same_machine, other])
        assert same_machine.connections == 0
        assert other.connections > 0


async def test_with_one_source_at_most_the_others_are_left_alone(tmp_path: Path) -> None:
    async with (
        machines(honest(CONTENT), honest(CONTENT)) as peers,
        sled_at(tmp_path, bounds=ONE) as sled,
    ):
        await copy(sled, peers)
        assert peers[0].offsets == [0]
        assert peers[1].connections == 0


async def test_a_small_artifact_is_read_from_one_source(tmp_path: Path) -> None:
    eager_but_for_size = WideningPolicy(window_s=0, waiting_share=0, short_s=0)
    bounds = CopyOptions(widening=eager_but_for_size, hedge_after_s=60)
    async with (
        machines(honest(CONTENT), honest(CONTENT)) as peers,
        sled_at(tmp_path, bounds=bounds) as sled,
    ):
        await copy(sled, peers)
        assert peers[1].connections == 0


async def test_a_source_that_does_not_help_is_given_back(tmp_path: Path) -> None:
    hopeless = WideningPolicy(window_s=0.01, waiting_share=0, gain=1e9, small_bytes=0, short_s=0)
    bounds = CopyOptions(
        widening=hopeless, part_bytes=64 << 10, hedge_after_s=60, max_bytes_per_s=8 << 20
    )
    async with (
        machines(honest(CONTENT), honest(CONTENT), honest(CONTENT)) as peers,
        sled_at(tmp_path, bounds=bounds) as sled,
    ):
        await copy(sled, peers)
        assert peers[2].connections == 0
        # In the end one of them goes on alone, to the end of the artifact.
        assert any(peer.requests[-1].end is None for peer in peers[:2])


async def test_all_sources_together_keep_within_the_limit(tmp_path: Path) -> None:
    rate = 4 << 20
    bounds = CopyOptions(
        widening=EAGER, part_bytes=64 << 10, hedge_after_s=60, max_bytes_per_s=rate
    )
    async with (
        machines(honest(CONTENT), honest(CONTENT), honest(CONTENT)) as peers,
        sled_at(tmp_path, bounds=bounds) as sled,
    ):
        begin_s = asyncio.get_running_loop().time()
        await copy(sled, peers)
        took_s = asyncio.get_running_loop().time() - begin_s
    # Two steps, of a twentieth of a second each, may come at once.
    assert took_s >= 0.85 * (len(CONTENT) / rate - 0.1)


# ---- what goes wrong


BAD_AT_PARTS: Mapping[str, Answer | Sequence[Answer]] = {
    "ignores ranges": no_ranges(CONTENT),
    "has no length": chunked(CONTENT),
    "until closed": until_closed(CONTENT),
    "has another length": [honest(CONTENT), announcing(len(CONTENT) + 1, CONTENT + b"!")],
    "shorter": [honest(CONTENT), announcing(len(CONTENT) - 1, CONTENT[:-1])],
    "416": [honest(CONTENT), fixed("416 Range Not Satisfiable")],
    "404": [honest(CONTENT), fixed("404 Not Found")],
    "503": [honest(CONTENT), fixed("503 Service Unavailable")],
    "dies at once": [honest(CONTENT), hanging_up],
    "dies later": [honest(CONTENT), honest(CONTENT), resetting(CONTENT, 0)],
    "dies in a part": [honest(CONTENT), resetting(CONTENT, 300_000)],
    "stalls in a part": stalling_in_parts(CONTENT, 1000),
    "stalls before": [honest(CONTENT), silent],
    "never answers a part": stalling_in_parts(CONTENT, 0),
    "lies": [honest(CONTENT), honest(WRONG, etag=False)],
    "lies about parts": lying_about_parts(CONTENT),
}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("how", sorted(BAD_AT_PARTS))
async def test_s2_one_bad_source_among_several_spoils_nothing(
    tmp_path: Path, how: str, place: int
) -> None:
    scripts: list[Answer | Sequence[Answer]] = [honest(CONTENT), honest(CONTENT)]
    scripts.insert(place, BAD_AT_PARTS[how])
    async with machines(*scripts) as peers, sled_at(tmp_path, bounds=SEVERAL) as sled:
        await copy(sled, peers)


@pytest.mark.parametrize("how", sorted(BAD_AT_PARTS))
async def test_the_only_other_source_may_be_bad_too(tmp_path: Path, how: str) -> None:
    async with (
        machines(honest(CONTENT), BAD_AT_PARTS[how]) as peers,
        sled_at(tmp_path, bounds=SEVERAL) as sled,
    ):
        await copy(sled, peers)


async def test_b2_a_liar_among_several_is_found_and_put_aside_with_the_reason(
    tmp_path: Path,
) -> None:
    async with (
        machines(honest(WRONG, etag=False), honest(WRONG, etag=False)) as peers,
        sled_at(tmp_path, bounds=SEVERAL) as sled,
    ):
        record = await sled.copy(*(peer.url for peer in peers))
        # Together nobody can tell which; alone, each of them is convicted.
        sled.assert_failed(record, *(f"{peer.url}: it sent other bytes" for peer in peers))
        await sled.assert_nothing_is_left()


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_b2_who_lied_among_several_is_known_once_the_artifact_is_here(
    tmp_path: Path, place: int
) -> None:
    scripts = [honest(CONTENT), honest(CONTENT)]
    scripts.insert(place, lying_about_parts(CONTENT))
    async with machines(*scripts) as peers, sled_at(tmp_path, bounds=PACED) as sled:
        await copy(sled, peers)
        kind, fields = sled.events[-1]
        assert kind == "copied"
        assert fields["wrong_bytes_from"] == [peers[place].url]


async def test_a_liar_is_asked_last_from_then_on(tmp_path: Path) -> None:
    other = CONTENT[::-1]
    wanted = (ARTIFACT, ArtifactHash.of(other))
    async with (
        machines(lying_about_parts(CONTENT), honest(CONTENT), honest(CONTENT)) as peers,
        LyingPeer([honest(other)], host="127.0.0.2") as good,
        sled_at(tmp_path, bounds=PACED, wanted=wanted) as sled,
    ):
        await copy(sled, peers)
        asked = len(peers[0].requests)
        record = await sled.outcome(await sled.start(peers[0].url, good.url, sha256=wanted[1]))
        assert record.state == "succeeded"
        assert len(peers[0].requests) == asked


async def test_a_source_that_is_silent_alone_is_left_for_another(tmp_path: Path) -> None:
    # The patience for a peer is 30 s here.
    stall = announcing(len(CONTENT), CONTENT[:300_000], then_stall=True)
    bounds = CopyOptions(widening=WideningPolicy(silence_s=0.2), hedge_after_s=60)
    async with (
        machines(stall, honest(CONTENT)) as peers,
        sled_at(tmp_path, bounds=bounds) as sled,
    ):
        await copy(sled, peers)
        assert peers[1].offsets == [300_000]


@pytest.mark.parametrize("after", [0, 1000])
async def test_the_last_of_several_that_falls_silent_is_left_as_well(
    tmp_path: Path, after: int
) -> None:
    # The patience for a peer is 30 s here, and the third is not among the two at once.
    dying = [honest(CONTENT), hanging_up]
    bounds = replace(SEVERAL, max_sources=2)
    async with (
        machines(stalling_in_parts(CONTENT, after), dying, honest(CONTENT)) as peers,
        sled_at(tmp_path, bounds=bounds) as sled,
    ):
        async with asyncio.timeout(STUCK_S):
            await copy(sled, peers)


async def test_a_source_that_is_silent_is_waited_for_when_there_is_no_better(
    tmp_path: Path,
) -> None:
    go_on = asyncio.Event()
    bounds = CopyOptions(widening=WideningPolicy(silence_s=0.05), hedge_after_s=60)
    async with (
        machines(paused(CONTENT, 300_000, go_on)) as peers,
        sled_at(tmp_path, bounds=bounds) as sled,
    ):
        copying = asyncio.ensure_future(copy(sled, peers))
        await peers[0].asked.wait()
        asyncio.get_running_loop().call_later(0.5, go_on.set)
        await copying
        assert len(peers[0].requests) == 1


async def test_when_all_sources_die_the_copy_fails_and_leaves_nothing(tmp_path: Path) -> None:
    dying = [honest(CONTENT), *[resetting(CONTENT, 500_000)] * 3, hanging_up]
    async with machines(*[dying] * 3) as peers, sled_at(tmp_path, bounds=SEVERAL) as sled:
        record = await sled.copy(*(peer.url for peer in peers))
        if record.state == "succeeded":  # what they gave before may have been all
            assert await sled.stored() == [CONTENT, CONTENT]
        else:
            sled.assert_failed(record, *(peer.url for peer in peers))
            await sled.assert_nothing_is_left()


async def test_a_copy_can_be_given_up_while_several_give_it(tmp_path: Path) -> None:
    asked = [asyncio.Event(), asyncio.Event()]
    scripts = [withheld_in_parts(CONTENT, each) for each in asked]
    # A machine that has no time for any of this is not to take a source for a silent one.
    bounds = replace(SEVERAL, widening=replace(EAGER, silence_s=60))
    async with machines(*scripts) as peers, sled_at(tmp_path, bounds=bounds) as sled:
        copy_id = await sled.start(*(peer.url for peer in peers))
        for each in asked:
            await each.wait()
        await sled.copies.stop(0)
        assert sled.copies.get(copy_id).state == "failed"
        await sled.assert_nothing_is_left()


LIES: Sequence[Answer] = (
    fixed("404 Not Found"),
    fixed("416 Range Not Satisfiable"),
    fixed("503 Service Unavailable"),
    honest(WRONG, etag=False),
    lying_about_parts(CONTENT),
    announcing(len(CONTENT) + 1, CONTENT + b"!"),
    announcing(len(CONTENT), CONTENT[:300_000]),
    no_ranges(CONTENT),
    no_ranges(WRONG),
    chunked(CONTENT[:-1]),
    until_closed(CONTENT[:300_000]),
    resetting(CONTENT, 300_000),
    hanging_up,
)


@pytest.mark.parametrize("seed", range(30))
async def test_one_honest_source_among_liars_is_enough(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    scripts: list[Answer | Sequence[Answer]] = [
        chance.sample(LIES, 4) for _ in range(chance.randint(1, 3))
    ]
    scripts.insert(chance.randint(0, len(scripts)), honest(CONTENT))
    async with machines(*scripts) as peers, sled_at(tmp_path, bounds=SEVERAL) as sled:
        await copy(sled, peers)
