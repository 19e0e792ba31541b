"""Opens parts of one artifact at several sources at once, on the event loop.

A source gives parts only if it answers a range with just that range, and agrees on the artifact's
size. Whatever it does instead is noted in the lineup: one that sends the whole is no use here, but
may be read alone, and so may one that is still receiving, whose parts would come no sooner. At most
one source of a host is read from: a second stream from the same machine only takes from the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from agent.copies.budgets import CopyShare
from agent.copies.feed import Fetcher
from agent.copies.lineup import Lineup
from agent.copies.peers import PeerBody
from agent.copies.source_url import SourceUrl
from depot.errors import BadSource, DepotCopy, TooLarge

SEARCH_TIMEOUT_S: Final = 2.0


class NoPart(Exception):
    """The source does not give the part; the lineup knows why."""


class PartFeed:
    """The parts of one copy.

    Attributes:
        search: the running, or last, search for one more source.
    """

    def __init__(self, fetcher: Fetcher, lineup: Lineup, share: CopyShare) -> None:
        self.search: asyncio.Task[SourceUrl | None] | None = None
        self._fetcher = fetcher
        self._lineup = lineup
        self._share = share
        self._open: dict[object, PeerBody] = {}
        self._gone: set[object] = set()

    async def begin_search(
        self, but: Collection[SourceUrl], at_byte: int, total_bytes: int
    ) -> None:
        """Look for one more source to read from, beside those that are read from now.

        What it finds has given one byte of the artifact as a part, so that nothing that goes well
        is left for a source that is of no use.
        """
        self.search = asyncio.create_task(self._find(but, at_byte, total_bytes))

    async def open(
        self, reader: object, source: SourceUrl, span: tuple[int, int], total_bytes: int
    ) -> PeerBody:
        """Open the bytes of `span` for a reader, and close what it had open before.

        Raises:
            NoPart: the source does not give them, or the reader was given up meanwhile.
        """
        await self._close(reader)
        body = await self._ask(source, span, total_bytes)
        if reader in self._gone:
            await body.close()
            raise NoPart
        body.limit(self._share.of(source))
        self._lineup.contributed(source)  # before anyone can read a byte of it
        self._open[reader] = body
        self._share.bodies = len(self._open)
        return body

    async def close(self, reader: object) -> None:
        """Close what a reader has open, or is about to, and open nothing more for it; idempotent.

        It may have been given up at any moment, so it is not asked for the body.
        """
        self._gone.add(reader)
        await self._close(reader)

    async def _close(self, reader: object) -> None:
        body = self._open.pop(reader, None)
        self._share.bodies = max(1, len(self._open))
        if body is not None:
            await body.close()

    async def broke(self, source: SourceUrl, why: str, at_byte: int, gave_bytes: int) -> None:
        """Note that a part ended badly."""
        self._lineup.broke(source, why, at_byte=at_byte, gave_bytes=gave_bytes)

    async def close_all(self) -> None:
        """Close what is open, which nobody reads any more, and end the search."""
        if self.search is not None:
            self.search.cancel()
            await asyncio.gather(self.search, return_exceptions=True)
        for reader in tuple(self._open):
            await self.close(reader)

    async def _find(
        self, but: Collection[SourceUrl], at_byte: int, total_bytes: int
    ) -> SourceUrl | None:
        # Whoever gives no part is not chosen again, so this ends.
        while (source := self._lineup.another(but)) is not None:
            try:
                async with asyncio.timeout(SEARCH_TIMEOUT_S):
                    body = await self._ask(source, (at_byte, at_byte + 1), total_bytes)
            except TimeoutError:
                slow = DepotCopy(f"no part within {SEARCH_TIMEOUT_S:g} s", transient=True)
                self._lineup.refused(source, slow, at_byte)
            except NoPart:
                continue
            else:
                await body.close()
                return source
        return None

    async def _ask(self, source: SourceUrl, span: tuple[int, int], total_bytes: int) -> PeerBody:
        """See `open`."""
        try:
            body = await self._fetcher.open(source, self._lineup.sha256, *span)
        except (BadSource, DepotCopy, TooLarge) as error:
            self._lineup.refused(source, error, span[0])
            raise NoPart from error
        answer = body.answer
        if answer.total_bytes != total_bytes:
            self._lineup.disagrees(source, f"it announces {answer.total_bytes} of {total_bytes}")
        elif answer.depth or (answer.starts_at_bytes, answer.ends_at_bytes) != span:
            self._lineup.gives_no_parts(source)
        else:
            return body
        await body.close()
        raise NoPart
