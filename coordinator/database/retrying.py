"""Doing something with the database until nobody is in the way.

Rules kept here:
- What another transaction got in the way of is tried again, after a random back-off that doubles.
- What may have been committed, because the connection broke then, is never tried again.
- Whatever the driver raises is `DatabaseUnavailable` outside. Only what this program did wrong, a
  constraint violated time and again, comes out as it is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from sqlalchemy.exc import IntegrityError

from coordinator.database.failures import FAILURES, Failure, judge, reason
from coordinator.errors import DatabaseUnavailable
from depot.errors import InvalidRequest

_T = TypeVar("_T")
_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.5
_MAX_VIOLATIONS: Final = 5


async def until_done(
    attempt: Callable[[], Awaitable[_T]], *, patience_s: float, rng: random.Random
) -> _T:
    """Call `attempt` until it returns, for `patience_s` at most before the last one begins.

    Raises:
        DatabaseUnavailable: the database cannot be used, or others are in the way for too long.
        InvalidRequest: a value is one that the database cannot hold.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + patience_s
    pause_s, violations = _FIRST_PAUSE_S, 0
    while True:
        try:
            return await attempt()
        except FAILURES as error:
            failure = judge(error)
            violations += failure is Failure.VIOLATION
            if failure is Failure.BAD_VALUE:
                raise InvalidRequest(
                    "the database cannot hold a value: a NUL perhaps, or too large a number"
                ) from error
            if isinstance(error, IntegrityError) and violations >= _MAX_VIOLATIONS:
                raise
            too_late = violations >= _MAX_VIOLATIONS or loop.time() >= give_up_at
            if failure is Failure.UNAVAILABLE or too_late:
                raise DatabaseUnavailable(
                    f"the database cannot be used now: {reason(error)}"
                ) from error
        await asyncio.sleep(rng.uniform(0, pause_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
