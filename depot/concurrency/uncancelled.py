"""What has to be done to its end once it was begun."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that goes on when its caller is cancelled, who is not kept by it."""
    return await asyncio.shield(asyncio.ensure_future(work))
