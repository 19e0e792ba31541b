"""What a part was opened for, it is closed with, at whatever moment its reader is given up."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from agent.copies.budgets import CopyBudgets, CopyShare
from agent.copies.lineup import Lineup, RetryPolicy
from agent.copies.part_feed import NoPart, PartFeed
from agent.copies.peer_answer import PeerAnswer
from agent.copies.peers import PeerBody
from agent.copies.source_url import SourceUrl
from depot.artifact import ArtifactHash
from depot.streams.budget import Budget
from tests.copying import ARTIFACT

SOURCE = SourceUrl.parse("http://127.0.0.2:1")
TOTAL = 1000


class Content:
    def readinto(self, _buffer: memoryview, /) -> int:
        return 0

    def abort(self) -> None:
        """Nobody reads."""


class Fetcher:
    """Opens what it is asked for, once it may.

    Attributes:
        open_now: the bodies that were opened and not closed, by where they begin.
    """

    def __init__(self) -> None:
        self.open_now: set[int] = set()
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def open(
        self,
        source: SourceUrl,
        _sha256: ArtifactHash,
        offset_bytes: int = 0,
        end_bytes: int | None = None,
    ) -> PeerBody:
        self.asked.set()
        await self.may_answer.wait()
        stack = AsyncExitStack()
        self.open_now.add(offset_bytes)
        stack.callback(self.open_now.discard, offset_bytes)
        answer = PeerAnswer(offset_bytes, TOTAL, end_bytes)
        return PeerBody(source, answer, Content(), stack)


class Rig:
    def __init__(self) -> None:
        self.fetcher = Fetcher()
        self.share = CopyShare(CopyBudgets(Budget(), Budget()), healing=False)
        lineup = Lineup(ARTIFACT, RetryPolicy())
        lineup.add([SOURCE])
        lineup.begin_attempt()
        self.feed = PartFeed(self.fetcher, lineup, self.share)

    async def open(self, reader: object, start: int) -> PeerBody:
        return await self.feed.open(reader, SOURCE, (start, start + 10), TOTAL)


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_a_reader_has_one_part_at_a_time(rig: Rig) -> None:
    one, other = object(), object()
    await rig.open(one, 0)
    await rig.open(other, 10)
    assert (rig.fetcher.open_now, rig.share.bodies) == ({0, 10}, 2)
    await rig.open(one, 20)
    assert (rig.fetcher.open_now, rig.share.bodies) == ({10, 20}, 2)
    await rig.feed.close(one)
    await rig.feed.close(one)
    assert (rig.fetcher.open_now, rig.share.bodies) == ({10}, 1)
    await rig.feed.close_all()
    assert not rig.fetcher.open_now


async def test_a_reader_that_is_given_up_before_it_asks_for_more_leaves_nothing_open(
    rig: Rig,
) -> None:
    reader = object()
    await rig.open(reader, 0)
    asking = asyncio.create_task(rig.open(reader, 10))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await rig.feed.close(reader)
    assert not rig.fetcher.open_now


async def test_what_is_opened_for_a_reader_that_has_gone_meanwhile_is_closed(rig: Rig) -> None:
    reader = object()
    rig.fetcher.may_answer.clear()
    asking = asyncio.create_task(rig.open(reader, 0))
    await rig.fetcher.asked.wait()
    await rig.feed.close(reader)
    rig.fetcher.may_answer.set()
    with pytest.raises(NoPart):
        await asking
    assert (rig.fetcher.open_now, rig.share.bodies) == (set(), 1)
