"""Leaving, where passes are made on demand only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace

from coordinator.api.quiescing import LOOK_AGAIN_S, LOOKS_FOR_A_PASS, Quiesce
from depot.artifact import ArtifactHash
from tests.coordinator.replication.virtual import run

X = ArtifactHash.of(b"x")


class Passes:
    """A cycle whose first pass leads nowhere, and the staging depot behind it."""

    def __init__(self) -> None:
        self.reporting = SimpleNamespace(current=lambda: SimpleNamespace(passes=1))
        self.made = 0

    def activate(self) -> None:
        self.made += 1

    def go_on(self) -> None:
        self.made += 1

    async def only_here(self, *, after_pass: int) -> Sequence[ArtifactHash]:
        return [X] if self.made < 2 else []


def test_f5_a_pass_that_led_nowhere_is_not_the_last_one_while_something_is_only_here() -> None:
    async def scenario() -> None:
        passes = Passes()
        desk = SimpleNamespace(running=0, quiescing=None)
        quiesce = Quiesce(desk, passes, passes)  # type: ignore[arg-type]
        quiesce.begin()
        task = asyncio.create_task(quiesce.run())
        async with asyncio.timeout(2 * LOOK_AGAIN_S * LOOKS_FOR_A_PASS):
            await quiesce.done.wait()
        task.cancel()
        assert passes.made == 2

    run(scenario())
