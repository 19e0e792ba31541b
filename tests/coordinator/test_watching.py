from __future__ import annotations

import asyncio

import pytest

from coordinator.watching import Watch, while_it_moves
from depot.errors import Refused, Unreachable

WATCH = Watch(look_s=0.001, stall_s=0.02)


class Coordinator:
    """Answers after so many looks; what it has moved rises with each."""

    def __init__(self, looks: int, *, moves: bool = True) -> None:
        self.done = asyncio.Event()
        self._left = looks
        self._moves = moves
        self._moved = 0

    async def moved(self) -> int:
        self._moved += self._moves
        self._left -= 1
        if not self._left:
            self.done.set()
        return self._moved

    async def answer(self) -> str:
        await self.done.wait()
        return "recorded"


async def test_s2_an_upload_that_moves_may_take_any_time() -> None:
    coordinator = Coordinator(100)
    assert await while_it_moves(coordinator.answer(), coordinator.moved, WATCH) == "recorded"


async def test_s2_an_upload_that_stands_still_is_given_up() -> None:
    coordinator = Coordinator(10**9, moves=False)
    with pytest.raises(Unreachable, match=r"not moved for 0\.02 s"):
        await while_it_moves(coordinator.answer(), coordinator.moved, WATCH)


async def test_a_coordinator_that_says_nothing_of_its_uploads_may_still_answer() -> None:
    coordinator = Coordinator(2)

    async def refuse() -> int:
        await coordinator.moved()
        raise Refused("http://c", 404)

    patient = Watch(look_s=0.001, stall_s=60)
    assert await while_it_moves(coordinator.answer(), refuse, patient) == "recorded"


async def test_a_refusal_is_passed_on() -> None:
    async def refused() -> str:
        raise Refused("http://c", 400, remote_code="Expired")

    with pytest.raises(Refused, match="http://c"):
        await while_it_moves(refused(), Coordinator(1).moved, WATCH)
