"""Looking at the fleet again and again, within a time.

A coordinator that is away for a moment, because it is upgraded, is asked again: whoever waits for
the fleet waits for that, too. Only one that never answered, with no end to the wait, is not. When
the time is over, what it said last stands.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final

from agent.cli.failures import ExitCode, Failure
from agent.cli.output import Output
from coordinator.client import CoordinatorClient
from coordinator.replication_wire import ReplicationBody
from depot.errors import Refused, Unreachable

LOOK_AGAIN_S: Final = 0.5
# Without any time to wait, too, there is one look.
LEAST_LOOK_S: Final = 1.0
AWAY_S: Final = 60.0
"""How long a coordinator may be away when there is no end to the wait."""


class Looks:
    """Looks at one coordinator's fleet; made while the event loop runs.

    Args:
        client: of the coordinator.
        url: where it is, for people.
        output: where it says that it is away.
        timeout_s: after which there are no more looks; None: never.
    """

    def __init__(
        self, client: CoordinatorClient, url: str, output: Output, timeout_s: float | None
    ) -> None:
        self._client = client
        self._url = url
        self._output = output
        self._end_s = None if timeout_s is None else _now_s() + timeout_s
        self._last: ReplicationBody | None = None
        self._said_at_s = 0.0

    @property
    def over(self) -> bool:
        """Whether the time is."""
        return self._end_s is not None and _now_s() >= self._end_s

    @property
    def silent_s(self) -> float:
        """How long ago the coordinator last said how far the fleet is."""
        return _now_s() - self._said_at_s

    async def first(self) -> ReplicationBody:
        """See how far the fleet is; of a coordinator that is away, within the time if there is one.

        Raises:
            Failure: the coordinator has not said in time.
            Unreachable, Refused.
        """
        told = False
        while True:
            try:
                return await self._look()
            except (Unreachable, Refused) as error:
                if not _is_away(error) or self._end_s is None or self.over:
                    raise
                if not told:
                    self._output.note(f"{error}; asking again")
                    told = True
            await asyncio.sleep(min(LOOK_AGAIN_S, max(0.0, self._end_s - _now_s())))

    async def _look(self) -> ReplicationBody:
        left_s = None
        if self._end_s is not None:
            left_s = max(LEAST_LOOK_S, self._end_s - _now_s())
        try:
            async with asyncio.timeout(left_s):
                self._last = await self._client.replication()
        except TimeoutError as error:
            raise self._not_said() from error
        self._said_at_s = _now_s()
        return self._last

    async def again(self) -> ReplicationBody:
        """See how far it is a moment later, or when the coordinator is back.

        What it said last when the time is over: a look that is cut off is no news of the fleet.

        Raises:
            Failure: as `first`, when it has never said anything.
            Unreachable, Refused.
        """
        try:
            return await self._look_again()
        except Failure:
            if self._last is None:
                raise
            return self._last

    async def _look_again(self) -> ReplicationBody:
        away_since_s: float | None = None
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            try:
                return await self._look()
            except (Unreachable, Refused) as error:
                if not _is_away(error):
                    raise
                if away_since_s is None:
                    away_since_s = _now_s()
                    self._output.note(f"{error}; asking again")
                if self.over:
                    raise self._not_said() from error
                if self._end_s is None and _now_s() - away_since_s >= AWAY_S:
                    raise

    def _not_said(self) -> Failure:
        return Failure(
            f"the coordinator at {self._url} did not say in time how far the fleet is",
            ExitCode.LOCAL,
            code="TimedOut",
            hint="is it well? its log, and the one of the service manager, say more",
        )


def _is_away(error: Unreachable | Refused) -> bool:
    return isinstance(error, Unreachable) or error.status == HTTPStatus.SERVICE_UNAVAILABLE


def _now_s() -> float:
    return asyncio.get_running_loop().time()
