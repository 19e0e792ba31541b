"""A source that is slow to answer does not keep a copy from one that is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.copies.manager import CopyOptions
from tests.copying import ARTIFACT, CONTENT, IMPATIENT, WRONG, sled_at
from tests.lying_peer import (
    Answer,
    LyingPeer,
    announcing,
    fixed,
    hanging_up,
    held_back,
    honest,
    repeating,
    resetting,
    silent,
)

SOON = CopyOptions(hedge_after_s=0.01)
LATE = CopyOptions(hedge_after_s=60.0)
ONE_AT_A_TIME = CopyOptions(max_sources=1, hedge_after_s=0.01)


@pytest.mark.parametrize("slow", [silent, repeating(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"z")])
async def test_a_copy_begins_with_the_source_that_answers_first(
    tmp_path: Path, slow: Answer
) -> None:
    async with (
        LyingPeer([slow]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path, bounds=SOON) as sled,
    ):
        record = await sled.copy(first.url, second.url)
        assert record.state == "succeeded"
        assert await sled.stored() == [CONTENT, CONTENT]
        assert sled.events[-1][1]["served_by"] == second.url
        assert len(first.requests) == 1


async def test_the_request_that_lost_is_hung_up_on(tmp_path: Path) -> None:
    hung_up = asyncio.Event()

    async def patient(request: object, connection: object) -> None:
        await silent(request, connection)  # type: ignore[arg-type]
        hung_up.set()

    async with (
        LyingPeer([patient]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path, bounds=SOON) as sled,
    ):
        assert (await sled.copy(first.url, second.url)).state == "succeeded"
        await asyncio.wait_for(hung_up.wait(), 30)


async def test_a_first_source_that_answers_in_time_is_the_only_one_asked(tmp_path: Path) -> None:
    async with (
        LyingPeer([honest(CONTENT)]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path, bounds=LATE) as sled,
    ):
        assert (await sled.copy(first.url, second.url)).state == "succeeded"
        assert second.connections == 0


async def test_a_source_that_was_slow_to_answer_is_the_last_to_be_asked_again(
    tmp_path: Path,
) -> None:
    async with (
        LyingPeer([silent]) as slow,
        LyingPeer([resetting(CONTENT, 300_000)]) as breaks,
        LyingPeer([honest(CONTENT)]) as good,
        sled_at(tmp_path, bounds=SOON) as sled,
    ):
        record = await sled.copy(slow.url, breaks.url, good.url)
        assert record.state == "succeeded"
        assert sled.events[-1][1]["served_by"] == good.url
        assert await sled.stored() == [CONTENT, CONTENT]


@pytest.mark.parametrize("broken", [fixed("404 Not Found"), hanging_up, fixed("200 OK", body=b"")])
async def test_an_answer_that_is_of_no_use_wins_nothing(tmp_path: Path, broken: Answer) -> None:
    ready = asyncio.Event()
    async with (
        LyingPeer([held_back(honest(CONTENT), ready)]) as first,
        LyingPeer([broken]) as second,
        sled_at(tmp_path, bounds=SOON) as sled,
    ):
        copying = asyncio.ensure_future(sled.copy(first.url, second.url))
        await second.asked.wait()
        ready.set()
        record = await copying
        assert record.state == "succeeded"
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_b2_a_liar_that_is_quick_is_found_out_and_put_aside(tmp_path: Path) -> None:
    ready = asyncio.Event()
    async with (
        LyingPeer([held_back(honest(CONTENT), ready)]) as honest_one,
        LyingPeer([fixed("200 OK", body=WRONG)]) as liar,
        sled_at(tmp_path, bounds=SOON) as sled,
    ):
        copying = asyncio.ensure_future(sled.copy(honest_one.url, liar.url))
        await liar.asked.wait()
        ready.set()
        record = await copying
        assert record.state == "succeeded"
        assert len(liar.requests) == 1
        assert await sled.stored() == [CONTENT, CONTENT]


async def test_no_more_sources_wait_at_once_than_allowed(tmp_path: Path) -> None:
    async with (
        LyingPeer([silent]) as first,
        LyingPeer([honest(CONTENT)]) as second,
        sled_at(tmp_path, IMPATIENT, bounds=ONE_AT_A_TIME) as sled,
    ):
        copying = asyncio.ensure_future(sled.copy(first.url, second.url))
        await first.asked.wait()
        assert second.connections == 0
        assert (await copying).state == "succeeded"


async def test_a_copy_that_is_given_up_hangs_up_on_all_it_has_asked(tmp_path: Path) -> None:
    async with (
        LyingPeer([silent]) as first,
        LyingPeer([announcing(len(CONTENT), b"", then_stall=True)]) as second,
        sled_at(tmp_path, bounds=SOON) as sled,
    ):
        copying = asyncio.ensure_future(sled.start(first.url, second.url, sha256=ARTIFACT))
        await second.asked.wait()
        await sled.copies.stop(0)
        await asyncio.gather(copying, return_exceptions=True)
        await sled.assert_nothing_is_left()
