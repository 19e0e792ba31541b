"""Waiting for an upload's answer as long as the upload gets on, however long that is (S2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from depot.errors import DepotError, Unreachable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How closely an upload is watched.

    Attributes:
        look_s: between two looks, and how long one may take.
        stall_s: how long it may stand still before it is given up.
    """

    look_s: float = 10.0
    stall_s: float = 120.0


DEFAULT_WATCH: Final = Watch()


async def while_it_moves(
    work: Coroutine[Any, Any, T], moved: Callable[[], Awaitable[int]], watch: Watch
) -> T:
    """Wait for `work`; `moved` tells how many bytes the coordinator has moved so far.

    Raises:
        Unreachable: that has stood still too long, or could not be asked.
        whatever `work` raises.
    """
    task = asyncio.ensure_future(work)
    now_s = asyncio.get_running_loop().time
    seen, since_s = -1, now_s()
    try:
        while True:
            await asyncio.wait([task], timeout=watch.look_s)
            if task.done():
                return task.result()
            looked = await _look(moved, watch)
            if looked is not None and looked != seen:
                seen, since_s = looked, now_s()
            elif now_s() - since_s >= watch.stall_s:
                raise Unreachable(f"the upload has not moved for {watch.stall_s:g} s")
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _look(moved: Callable[[], Awaitable[int]], watch: Watch) -> int | None:
    try:
        async with asyncio.timeout(watch.look_s):
            return await moved()
    except (DepotError, TimeoutError):
        return None
