"""What a copy from several sources takes of what all copies share, it gives back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.copies.combined import CombinedSource
from agent.copies.failover import FailoverSource
from agent.copies.lane import BraidRoom
from agent.copies.lineup import Lineup, RetryPolicy
from agent.copies.part_feed import PartFeed
from agent.copies.source_url import SourceUrl
from agent.copies.widening import WideningPolicy
from tests.copying import ARTIFACT

BUFFERS = 8


class GivenUp:
    """A lone source, of a copy that was given up while nobody read it."""

    position_bytes = 0
    total_bytes = 1 << 30
    waited_s = 0.0
    body = SimpleNamespace(
        url=SourceUrl.parse("http://127.0.0.1:1"), answer=SimpleNamespace(depth=0)
    )

    async def leave(self) -> None:
        """Never waited for."""

    def on_loop(self, step: Coroutine[Any, Any, object]) -> object:
        step.close()
        raise ConnectionAbortedError("the copy was given up")


async def test_s1_a_copy_that_is_given_up_as_it_widens_keeps_no_buffers() -> None:
    room = BraidRoom(buffers=BUFFERS)
    found: asyncio.Future[SourceUrl] = asyncio.get_running_loop().create_future()
    found.set_result(SourceUrl.parse("http://127.0.0.2:1"))
    source = CombinedSource(
        cast("FailoverSource", GivenUp()),
        Lineup(ARTIFACT, RetryPolicy()),
        cast("PartFeed", SimpleNamespace(search=found)),
        room,
        WideningPolicy(max_sources=1),
    )
    with pytest.raises(ConnectionAbortedError):
        source.readinto(memoryview(bytearray(1)))
    assert room.take(BUFFERS)
    room.close()
