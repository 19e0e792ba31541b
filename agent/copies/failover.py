"""One stream of artifact bytes out of several peers, for the worker thread of an ingest.

Where a peer breaks, stalls or ends early, the next one goes on from that byte; the reader notices
nothing but the pause. A peer that answers with the whole artifact instead of the rest has the part
that is here already dropped. Bytes are counted once they are handed on, so `position_bytes` is the
progress of the copy, and may be read from any thread.

Runs in the worker thread; the feed runs on the event loop. Nobody waits for a thread on the loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Coroutine
from typing import Any, TypeVar

from agent.copies.feed import SourceFeed
from agent.copies.peers import PeerBody
from agent.copies.source_url import SourceUrl
from depot.errors import BodyTimeout, LengthMismatch

T = TypeVar("T")


class FailoverSource:
    """A `depot.streams.sources.Source` over a feed, beginning with its first body."""

    def __init__(self, feed: SourceFeed, first: PeerBody) -> None:
        self.position_bytes = 0
        self.total_bytes = first.answer.total_bytes
        self.body = first
        """The body that is read now, or was read last."""
        self.givers: set[SourceUrl] = set()
        """Those whose bytes were handed on."""
        self._body_at_byte = first.answer.starts_at_bytes
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._pending: concurrent.futures.Future[Any] | None = None
        self._aborted = False
        self._ended = False
        self._waited_s = 0.0
        self._turned_away: tuple[PeerBody, str] | None = None

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Source`.

        Raises:
            DepotError: no source is left to go on with.
            ConnectionAbortedError: `abort` was called.
        """
        while not self._aborted and not self._ended:
            try:
                count = self._read(buffer)
            except (BodyTimeout, LengthMismatch, OSError) as error:
                self._fail_over(error)
            else:
                self._ended = count == 0
                self.position_bytes += count
                if count:
                    self.givers.add(self.body.url)
                return count
        if self._aborted:
            raise ConnectionAbortedError("the copy was given up")
        return 0

    @property
    def waited_s(self) -> float:
        """How long its sources have been waited for, in all."""
        meter = self.body.meter
        return self._waited_s + (meter.waited_s if meter else 0.0)

    def turn_away(self, body: PeerBody, why: str) -> None:
        """Have the read of `body` go on with another source; from any thread."""
        self._turned_away = (body, why)
        body.content.abort()

    async def leave(self) -> None:
        """Close the current body in good terms; `go_on` has to be called before the next read."""
        await self._feed.leave()

    def go_on(self, prefer: SourceUrl | None) -> None:
        """Go on at `position_bytes` after `leave`, with `prefer` if that can be."""
        self._replace(self._feed.go_on(self.position_bytes, self.total_bytes, prefer))

    def abort(self) -> None:
        """See `Source`."""
        self._aborted = True
        self.body.content.abort()
        if (pending := self._pending) is not None:
            pending.cancel()

    def _read(self, buffer: memoryview) -> int:
        """Some of the next bytes; 0 at the end, as far as this body tells."""
        if self.position_bytes == self.total_bytes:
            return 0
        while (surplus := self.position_bytes - self._body_at_byte) > 0:
            # What is read here is overwritten below or by the next call: nobody sees it.
            self._body_at_byte += self._receive(buffer[:surplus])
        left = None if self.total_bytes is None else self.total_bytes - self.position_bytes
        count = self._receive(buffer[:left])
        self._body_at_byte += count
        return count

    def _receive(self, buffer: memoryview) -> int:
        count = self.body.content.readinto(buffer)
        if count == 0 and (
            self._body_at_byte < self.position_bytes or self.total_bytes is not None
        ):
            raise LengthMismatch(self.total_bytes or self.position_bytes, self._body_at_byte)
        return count

    def _fail_over(self, error: Exception) -> None:
        if self._aborted:
            return
        why = str(error) or type(error).__name__
        if self._turned_away is not None and self._turned_away[0] is self.body:
            why = self._turned_away[1]
        self._replace(self._feed.replace(self.position_bytes, self.total_bytes, why))

    def _replace(self, step: Coroutine[Any, Any, PeerBody]) -> None:
        self._waited_s = self.waited_s
        self.body = self.on_loop(step)
        self._body_at_byte = self.body.answer.starts_at_bytes
        if self.total_bytes is None:
            self.total_bytes = self.body.answer.total_bytes

    def on_loop(self, step: Coroutine[Any, Any, T]) -> T:
        """Run `step` on the event loop and wait for it here; `abort` ends the wait."""
        self._pending = pending = asyncio.run_coroutine_threadsafe(step, self._loop)
        if self._aborted:  # abort may have looked for it too early
            pending.cancel()
        try:
            return pending.result()
        except concurrent.futures.CancelledError:
            raise ConnectionAbortedError("the copy was given up") from None
        finally:
            self._pending = None
