"""Opens one source after another for one copy, on the event loop, and closes what it opened.

One body is open at a time. When the head of an answer does not come soon, the next source is asked
as well, and whoever answers first gives the body; the others are hung up on. A source that is asked
to go on in the middle has to agree on the artifact's size with what was announced before, else its
bytes could not be told from the rest of another artifact until the very end.

A source may itself be a relay, which is still receiving. This copy is then a relay of the next
depth for whoever reads from this sled, as long as the attempt lasts, and goes on with none but
sources of less: so sleds never wait for each other in a circle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from agent.copies.budgets import CopyShare
from agent.copies.lineup import Choice, Lineup
from agent.copies.peers import PeerBody
from agent.copies.source_url import SourceUrl
from depot.artifact import ArtifactHash
from depot.errors import BadSource, DepotCopy, TooLarge
from depot.writing.arriving import MAX_DEPTH


class Fetcher(Protocol):
    """What opens an artifact at a peer; see `PeerFetcher.open`."""

    async def open(
        self,
        source: SourceUrl,
        sha256: ArtifactHash,
        offset_bytes: int = 0,
        end_bytes: int | None = None,
    ) -> PeerBody:
        """Ask `source` for the artifact from `offset_bytes` on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """When more than one source is asked for the same bytes.

    Attributes:
        max_sources: how many requests may wait for their answer at once; 1: one after the other.
        after_s: how long each has before the next source is asked as well.
    """

    max_sources: int = 4
    after_s: float = 0.5


class SourceFeed:
    """The bodies of one copy, one at a time.

    Attributes:
        depth: as a relay, in the running attempt.
    """

    def __init__(self, fetcher: Fetcher, lineup: Lineup, share: CopyShare, hedge: Hedge) -> None:
        self._fetcher = fetcher
        self._lineup = lineup
        self._share = share
        self._hedge = hedge
        self.depth = 1
        self._current: PeerBody | None = None
        self._opened_at_byte = 0

    async def first(self, *, untried_only: bool) -> PeerBody | None:
        """Open the artifact from its first byte; None when no source gives it.

        Args:
            untried_only: ask only sources that were never asked, and so without pauses.
        """
        self.depth = MAX_DEPTH + 1
        body = await self._open(0, None, untried_only=untried_only)
        if body is not None:
            self.depth = body.answer.depth + 1
        return body

    async def replace(self, at_byte: int, total_bytes: int | None, why: str) -> PeerBody:
        """Go on at `at_byte` with the next source, the current body having ended badly.

        Raises:
            DepotError: no source does; the message says why for each.
        """
        assert self._current is not None
        self._lineup.broke(
            self._current.url,
            why,
            at_byte=at_byte,
            gave_bytes=at_byte - self._opened_at_byte,
            arriving=self._current.answer.depth > 0,
        )
        await self.close()
        body = await self._open(at_byte, total_bytes, untried_only=False)
        if body is None:
            raise self._lineup.failure()
        return body

    async def leave(self) -> None:
        """Close the current body, whose bytes so far count."""
        if self._current is not None:
            self._lineup.contributed(self._current.url)
        await self.close()

    async def go_on(
        self, at_byte: int, total_bytes: int | None, prefer: SourceUrl | None
    ) -> PeerBody:
        """Go on at `at_byte` after `leave`, with `prefer` if that can be.

        Raises:
            DepotError: no source does; the message says why for each.
        """
        body = await self._open(at_byte, total_bytes, untried_only=False, prefer=prefer)
        if body is None:
            raise self._lineup.failure()
        return body

    async def close(self) -> None:
        """Close the current body; idempotent."""
        if self._current is not None:
            body, self._current = self._current, None
            await body.close()

    async def _open(
        self,
        at_byte: int,
        total_bytes: int | None,
        *,
        untried_only: bool,
        prefer: SourceUrl | None = None,
    ) -> PeerBody | None:
        """Ask one source, and the next as well whenever no answer comes soon; the first wins."""
        asked: dict[asyncio.Task[PeerBody], SourceUrl] = {}
        try:
            while True:
                choose = partial(
                    self._lineup.choose,
                    untried_only=untried_only,
                    prefer=prefer,
                    but=tuple(asked.values()),
                )
                if not self._ask_another(asked, at_byte, choose) and not asked:
                    return None
                for task in await self._answers(asked):
                    source = asked.pop(task)
                    body = await self._accepted(task, source, at_byte, total_bytes)
                    if body is not None:
                        self._lineup.answered(
                            source, asked.values(), arriving=body.answer.depth > 0
                        )
                        body.limit(self._share.of(source))
                        self._current, self._opened_at_byte = body, at_byte
                        return body
        finally:
            await _give_up(asked)

    def _ask_another(
        self,
        asked: dict[asyncio.Task[PeerBody], SourceUrl],
        at_byte: int,
        choose: Callable[[], Choice | None],
    ) -> bool:
        if len(asked) >= self._hedge.max_sources:
            return False
        choice = choose()
        if choice is None:
            return False
        asked[asyncio.create_task(self._ask(choice, at_byte))] = choice.source
        return True

    async def _ask(self, choice: Choice, at_byte: int) -> PeerBody:
        await asyncio.sleep(choice.delay_s)
        return await self._fetcher.open(choice.source, self._lineup.sha256, at_byte)

    async def _answers(
        self, asked: Collection[asyncio.Task[PeerBody]]
    ) -> Collection[asyncio.Task[PeerBody]]:
        """Those that have ended, none when it is time to ask another source."""
        may_ask = len(asked) < self._hedge.max_sources
        timeout_s = self._hedge.after_s if may_ask else None
        done, _ = await asyncio.wait(asked, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return done

    async def _accepted(
        self,
        task: asyncio.Task[PeerBody],
        source: SourceUrl,
        at_byte: int,
        total_bytes: int | None,
    ) -> PeerBody | None:
        """What an answer gives; None when that is nothing of use, and the lineup knows why."""
        try:
            body = task.result()
        except (BadSource, DepotCopy, TooLarge) as error:
            self._lineup.refused(source, error, at_byte)
            return None
        objection = _objection(body, at_byte, total_bytes) or _circle(body, self.depth)
        if objection:
            self._lineup.disagrees(source, objection)
            await body.close()
            return None
        return body


async def _give_up(asked: Collection[asyncio.Task[PeerBody]]) -> None:
    """End requests that nobody waits for any more, also those that are being answered just now."""
    for task in asked:
        task.cancel()
    for outcome in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(outcome, PeerBody):
            await outcome.close()


def _objection(body: PeerBody, at_byte: int, total_bytes: int | None) -> str | None:
    """Why `body` cannot be the rest of what was begun; None when it may be."""
    found = body.answer.total_bytes
    if found is None or (total_bytes is None and found >= at_byte) or found == total_bytes:
        return None
    expected = f"more than {at_byte}" if total_bytes is None else str(total_bytes)
    return f"it announces {found} bytes where another source announced {expected}"


def _circle(body: PeerBody, depth: int) -> str | None:
    """Why `body` may in the end come from here; None when it does not."""
    if body.answer.depth < depth:
        return None
    return f"it is a relay of depth {body.answer.depth}, this copy one of depth {depth}"
