"""Opens one source after another for one copy, on the event loop, and closes what it opened.

At most one connection is open at a time. A source that is asked to go on in the middle has to agree
on the artifact's size with what was announced before, else its bytes could not be told from the
rest of another artifact until the very end.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from agent.copies.budgets import CopyShare
from agent.copies.lineup import Lineup
from agent.copies.peers import PeerBody
from agent.copies.source_url import SourceUrl
from depot.artifact import ArtifactHash
from depot.errors import BadSource, DepotCopy, TooLarge


class Fetcher(Protocol):
    """What opens an artifact at a peer; see `PeerFetcher.open`."""

    async def open(
        self, source: SourceUrl, sha256: ArtifactHash, offset_bytes: int = 0
    ) -> PeerBody:
        """Ask `source` for the artifact from `offset_bytes` on."""


class SourceFeed:
    """The bodies of one copy, one at a time."""

    def __init__(self, fetcher: Fetcher, lineup: Lineup, share: CopyShare) -> None:
        self._fetcher = fetcher
        self._lineup = lineup
        self._share = share
        self._current: PeerBody | None = None
        self._opened_at_byte = 0

    async def first(self, *, untried_only: bool) -> PeerBody | None:
        """Open the artifact from its first byte; None when no source gives it.

        Args:
            untried_only: ask only sources that were never asked, and so without pauses.
        """
        return await self._open(0, None, untried_only=untried_only)

    async def replace(self, at_byte: int, total_bytes: int | None, why: str) -> PeerBody:
        """Go on at `at_byte` with the next source, the current body having ended badly.

        Raises:
            DepotError: no source does; the message says why for each.
        """
        assert self._current is not None
        gave_bytes = at_byte - self._opened_at_byte
        self._lineup.broke(self._current.url, why, at_byte=at_byte, gave_bytes=gave_bytes)
        await self.close()
        body = await self._open(at_byte, total_bytes, untried_only=False)
        if body is None:
            raise self._lineup.failure()
        return body

    async def close(self) -> None:
        """Close the current body; idempotent."""
        if self._current is not None:
            body, self._current = self._current, None
            await body.close()

    async def _open(
        self, at_byte: int, total_bytes: int | None, *, untried_only: bool
    ) -> PeerBody | None:
        while choice := self._lineup.choose(untried_only=untried_only):
            await asyncio.sleep(choice.delay_s)
            try:
                body = await self._fetcher.open(choice.source, self._lineup.sha256, at_byte)
            except (BadSource, DepotCopy, TooLarge) as error:
                self._lineup.refused(choice.source, error, at_byte)
                continue
            if objection := _objection(body, at_byte, total_bytes):
                self._lineup.disagrees(choice.source, objection)
                await body.close()
                continue
            body.limit(self._share.of(choice.source))
            self._current, self._opened_at_byte = body, at_byte
            return body
        return None


def _objection(body: PeerBody, at_byte: int, total_bytes: int | None) -> str | None:
    """Why `body` cannot be the rest of what was begun; None when it may be."""
    found = body.answer.total_bytes
    if found is None or (total_bytes is None and found >= at_byte) or found == total_bytes:
        return None
    expected = f"more than {at_byte}" if total_bytes is None else str(total_bytes)
    return f"it announces {found} bytes where another source announced {expected}"
