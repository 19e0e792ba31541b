from __future__ import annotations

import gzip
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from agent.copies.manager import CopyOptions
from tests.copying import (
    ARTIFACT,
    CONTENT,
    IMPATIENT,
    MAX_BYTES,
    ONE_BY_ONE,
    WRONG,
    lead_outside,
    sled_at,
)
from tests.lying_peer import (
    Answer,
    Connection,
    LyingPeer,
    announcing,
    chunked,
    dripping,
    endless,
    fixed,
    hanging_up,
    honest,
    no_ranges,
    raw,
    resetting,
    silent,
    until_closed,
)

HASTY = CopyOptions(hedge_after_s=0.001)


@pytest.mark.parametrize(
    "broken",
    [
        fixed("404 Not Found"),
        fixed("500 Internal Server Error"),
        fixed("200 OK", "Content-Type: text/html", body=b"<h1>Log in</h1>"),
        fixed("200 OK", "Content-Encoding: gzip", body=gzip.compress(CONTENT)),
        fixed("200 OK", body=WRONG),
        fixed("200 OK", body=b""),
        raw(b"220 mail.example ESMTP\r\n"),
        hanging_up,
        announcing(len(CONTENT) - 1, CONTENT),
        announcing(len(CONTENT) + 1, CONTENT),
        announcing(MAX_BYTES + 1, CONTENT),
        chunked(WRONG),
        chunked(CONTENT[:-1]),
        chunked(CONTENT + b"!"),
        until_closed(CONTENT[:5000]),
        resetting(CONTENT, 0),
        resetting(CONTENT, 300_000),
        endless(),
    ],
)
async def test_an_honest_source_behind_a_broken_one_is_enough(
    tmp_path: Path, broken: Answer
) -> None:
    async with (
        LyingPeer([broken]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path) as sled,
    ):
        record = await sled.copy(first.url, second.url)
        assert record.error is None
        assert record.state == "succeeded"
        assert await sled.stored() == [CONTENT, CONTENT]
        assert first.requests


@pytest.mark.parametrize(
    "slow",
    [
        silent,
        announcing(len(CONTENT), b"", then_stall=True),
        announcing(len(CONTENT), CONTENT[:5000], then_stall=True),
        dripping(CONTENT, 0.05),
    ],
)
async def test_an_honest_source_behind_a_slow_one_is_enough(tmp_path: Path, slow: Answer) -> None:
    async with (
        LyingPeer([slow]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path, IMPATIENT) as sled,
    ):
        record = await sled.copy(first.url, second.url)
        assert record.state == "succeeded"
        assert await sled.stored() == [CONTENT, CONTENT]
        assert len(first.requests) == 1


async def test_the_next_source_goes_on_where_the_last_one_broke(tmp_path: Path) -> None:
    async with (
        LyingPeer([resetting(CONTENT, 300_000)]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path) as sled,
    ):
        record = await sled.copy(first.url, second.url)
        assert record.state == "succeeded"
        assert first.offsets == [0]
        (resumed,) = second.requests
        assert 0 < resumed.offset <= 300_000
        assert resumed.headers["if-range"] == f'"sha256:{ARTIFACT}"'
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_a_single_source_is_asked_to_go_on_itself(tmp_path: Path) -> None:
    script = [announcing(len(CONTENT), CONTENT[:300_000]), honest(CONTENT)]
    async with LyingPeer(script) as peer, sled_at(tmp_path) as sled:
        assert (await sled.copy(peer.url)).state == "succeeded"
        assert peer.offsets == [0, 300_000]
        assert await sled.stored() == [CONTENT, CONTENT]


@pytest.mark.parametrize("make", [no_ranges, chunked, until_closed])
async def test_a_source_without_ranges_resumes_by_sending_all_again(
    tmp_path: Path, make: Callable[[bytes], Answer]
) -> None:
    script = [announcing(len(CONTENT), CONTENT[:300_000]), make(CONTENT)]
    async with LyingPeer(script) as peer, sled_at(tmp_path) as sled:
        record = await sled.copy(peer.url)
        assert record.state == "succeeded"
        assert record.bytes_done == len(CONTENT)
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_an_unknown_length_is_learned_from_the_source_that_knows_it(tmp_path: Path) -> None:
    async def broken_chunks(_request: object, connection: Connection) -> None:
        await connection.head("200 OK", "Transfer-Encoding: chunked")
        await connection.send(b"%x\r\n%b" % (len(CONTENT), CONTENT[:300_000]))

    script = [broken_chunks, honest(CONTENT)]
    async with LyingPeer(script) as peer, sled_at(tmp_path) as sled:
        record = await sled.copy(peer.url)
        assert record.state == "succeeded"
        assert record.bytes_total == len(CONTENT)
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_bytes_of_a_liar_are_never_mixed_with_those_of_an_honest_source(
    tmp_path: Path,
) -> None:
    # The first source's part is wrong, so what it and the second give together is wrong as well.
    liar = announcing(len(CONTENT), b"!" * 300_000)
    async with (
        LyingPeer([liar]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path) as sled,
    ):
        record = await sled.copy(first.url, second.url)
        assert record.state == "succeeded"
        assert second.offsets == [300_000, 0]
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_a_wrong_range_is_not_taken_for_the_rest(tmp_path: Path) -> None:
    wrong_range = fixed(
        "206 Partial Content",
        f"Content-Range: bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}",
        body=CONTENT,
    )
    script = [announcing(len(CONTENT), CONTENT[:300_000]), wrong_range]
    async with LyingPeer(script) as peer, sled_at(tmp_path) as sled:
        record = await sled.copy(peer.url)
        sled.assert_failed(record, peer.url)
        await sled.assert_nothing_is_left()


async def test_a_source_whose_name_leads_outside_is_passed_over(tmp_path: Path) -> None:
    async with (
        LyingPeer([honest(CONTENT)]) as peer,
        sled_at(tmp_path, lookup=lead_outside) as sled,
    ):
        record = await sled.copy(f"http://evil:{peer.port}", peer.url)
        assert record.state == "succeeded"


LIES: tuple[Answer, ...] = (
    fixed("404 Not Found"),
    fixed("503 Service Unavailable"),
    fixed("200 OK", body=WRONG),
    announcing(len(CONTENT) - 1, CONTENT),
    announcing(len(CONTENT) + 1, CONTENT),
    announcing(len(CONTENT), CONTENT[:300_000]),
    announcing(len(CONTENT), b"!" * 300_000),
    announcing(300_000, CONTENT),
    no_ranges(WRONG),
    chunked(CONTENT[:-1]),
    chunked(CONTENT + b"!"),
    until_closed(CONTENT[:300_000]),
    resetting(CONTENT, 300_000),
    hanging_up,
    endless(),
)


@pytest.mark.parametrize("bounds", [ONE_BY_ONE, HASTY], ids=["one by one", "hasty"])
@pytest.mark.parametrize("seed", range(20))
async def test_one_honest_source_among_liars_is_enough(
    tmp_path: Path, seed: int, bounds: CopyOptions
) -> None:
    chance = random.Random(seed)
    scripts = [chance.sample(LIES, 3) for _ in range(chance.randint(1, 3))]
    scripts.insert(chance.randint(0, len(scripts)), [honest(CONTENT)])
    async with peers(scripts) as urls, sled_at(tmp_path, bounds=bounds) as sled:
        record = await sled.copy(*urls)
        assert record.error is None
        assert record.state == "succeeded"
        assert await sled.stored() == [CONTENT, CONTENT]


@pytest.mark.parametrize("bounds", [ONE_BY_ONE, HASTY], ids=["one by one", "hasty"])
@pytest.mark.parametrize("seed", range(20))
async def test_among_liars_alone_nothing_wrong_is_ever_stored(
    tmp_path: Path, seed: int, bounds: CopyOptions
) -> None:
    chance = random.Random(1000 + seed)
    scripts = [chance.sample(LIES, 3) for _ in range(chance.randint(1, 4))]
    async with peers(scripts) as urls, sled_at(tmp_path, bounds=bounds) as sled:
        record = await sled.copy(*urls)
        # What they give by turns may happen to be the artifact, to the byte.
        if record.state == "succeeded":
            assert await sled.stored() == [CONTENT, CONTENT]
        else:
            sled.assert_failed(record, urls[0])
            await sled.assert_nothing_is_left()


@asynccontextmanager
async def peers(scripts: Sequence[Sequence[Answer]]) -> AsyncIterator[list[str]]:
    """A peer for each script; their URLs."""
    async with AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(LyingPeer(script))).url for script in scripts]
