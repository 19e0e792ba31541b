"""A copy's bytes from one source as long as that is enough, and from several when it is not.

Begins with the one source of a `FailoverSource`. `Widening` says how many there should be; from the
second on they are read through a `Braid`. When that is over, one source goes on alone, the one that
gave the most, from the very next byte. A lone source that falls silent is left for another one much
sooner than a peer is given up otherwise, as long as there is one that has done no worse.

Everything but the constructor, the watch for silence and `close` runs in the ingest's thread.
"""

from __future__ import annotations

import asyncio
import time

from agent.copies.braid import Braid, first_buffers
from agent.copies.failover import FailoverSource
from agent.copies.lane import BraidRoom
from agent.copies.lineup import Lineup
from agent.copies.part_feed import PartFeed
from agent.copies.source_url import SourceUrl
from agent.copies.testimony import MAX_SPANS, Account, Hearing, Span
from agent.copies.widening import Reading, Widening, WideningPolicy


class CombinedSource:
    """A `depot.streams.sources.Source`; made on the event loop, and closed there."""

    def __init__(
        self,
        single: FailoverSource,
        lineup: Lineup,
        feed: PartFeed,
        room: BraidRoom,
        policy: WideningPolicy,
        hearing: Hearing | None = None,
    ) -> None:
        self._single = single
        self._lineup = lineup
        self._feed = feed
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._braid: Braid | None = None
        self._old: list[Braid] = []
        self._spans: list[Span] = []
        self._waited_s = 0.0
        self._aborted = False
        self._hearing = hearing
        # Made with the first read: what the ingest does before is not the source's time.
        self._widening: Widening | None = None
        self._policy = policy
        self._watch: asyncio.TimerHandle | None = None
        if policy.max_sources > 1:
            self._watch = self._loop.call_later(self._policy.silence_s / 4, self._look_for_silence)

    @property
    def position_bytes(self) -> int:
        """How much has been handed on."""
        return self._single.position_bytes

    @property
    def total_bytes(self) -> int | None:
        """The artifact's size, as far as it is known."""
        return self._single.total_bytes

    @property
    def served_by(self) -> SourceUrl:
        """Who gave the bytes last."""
        braid = self._braid
        sources = braid.sources if braid else ()
        return sources[0] if sources else self._single.body.url

    def testimony(self) -> Account:
        """Who gave which bytes."""
        braids = [*self._old, *([self._braid] if self._braid else [])]
        spans = [*self._spans, *(span for braid in braids for span in braid.spans)]
        others = frozenset(self._single.givers)
        if len(spans) >= MAX_SPANS:  # some were not remembered
            others |= {span.source for span in spans}
        return Account(spans, others)

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Source`.

        Raises:
            DepotError: no source is left to go on with.
            ConnectionAbortedError: `abort` was called.
        """
        count = self._read(buffer)
        if self._hearing is not None:
            self._hearing.hear(buffer[:count])
        return count

    def _read(self, buffer: memoryview) -> int:
        self._consider()
        while self._braid is not None:
            if count := self._braid.readinto(buffer):
                self._single.position_bytes += count
                return count
            self._go_on_alone()
        return self._single.readinto(buffer)

    def abort(self) -> None:
        """See `Source`."""
        self._aborted = True
        self._single.abort()
        if (braid := self._braid) is not None:
            braid.abort()

    async def close(self) -> None:
        """Wait until nothing reads for this copy any more."""
        if self._watch is not None:
            self._watch.cancel()
        for braid in [*self._old, *([self._braid] if self._braid else [])]:
            await braid.close()
        await self._feed.close_all()

    # How many

    def _consider(self) -> None:
        self._tidy()
        reading = self._reading()
        # A relay gives what it gets. Who joins its own sources takes from the chain behind them.
        if reading is None or (self._braid is None and self._single.body.answer.depth):
            return
        if self._widening is None:
            self._widening = Widening(self._policy, reading)
        braid = self._braid
        running = 1 if braid is None else len(braid.sources)
        wanted = self._widening.look(reading) if self._feed.search is None else running + 1
        if wanted > running:
            self._widen(braid, running, reading)
        elif braid is not None and wanted < running:
            braid.leave_out_slowest()
        if braid is not None and min(wanted, running) < 2 and self._feed.search is None:
            braid.drain()

    def _reading(self) -> Reading | None:
        position, total = self.position_bytes, self.total_bytes
        if total is None or position == total:
            return None
        waited_s = self._waited_s + self._single.waited_s
        if self._braid is not None:
            waited_s += self._braid.waited_s
        return Reading(time.monotonic(), position, waited_s, total - position)

    def _widen(self, braid: Braid | None, running: int, reading: Reading) -> None:
        """Look for one more source, and read from it as well once it is found."""
        search = self._feed.search
        if search is None:
            now = (self._single.body.url,) if braid is None else braid.sources
            total = reading.position_bytes + reading.left_bytes
            self._single.on_loop(self._feed.begin_search(now, reading.position_bytes, total))
        elif search.done():
            self._feed.search = None
            assert self._widening is not None
            source = None if search.cancelled() else search.result()
            if source and (self._begin(source) if braid is None else braid.add(source)):
                self._widening.begun(running + 1, reading)
            else:
                self._widening.lost(running)

    def _begin(self, source: SourceUrl) -> bool:
        total, first = self.total_bytes, self._single.body.url
        if total is None or not self._room.take(first_buffers(2)):
            return False
        try:
            self._single.on_loop(self._single.leave())
            self._braid = Braid(
                self._feed,
                self._room,
                (self.position_bytes, total),
                (first, source),
                self._loop,
            )
        except BaseException:  # the copy may have been given up: the room is everybody's
            self._room.give_back(first_buffers(2))
            raise
        if self._aborted:  # abort may have looked for it too early
            self._braid.abort()
        return True

    def _go_on_alone(self) -> None:
        braid, self._braid = self._braid, None
        assert braid is not None
        assert self._widening is not None
        self._old.append(braid)
        self._waited_s += braid.waited_s
        self._widening.lost(1)
        if self.position_bytes != self.total_bytes:
            self._single.go_on(prefer=braid.best)

    def _tidy(self) -> None:
        """Let go of the buffers of a braid that is over, which others may have a use for."""
        for braid in [each for each in self._old if each.quiet]:
            self._single.on_loop(braid.close())
            self._old.remove(braid)
            self._spans += braid.spans

    def _look_for_silence(self) -> None:
        if (braid := self._braid) is not None:
            braid.drop_silent(self._policy.silence_s, self._lineup.has_better_than)
        body = self._single.body
        # Of a chain of relays that all fall silent, the one next to the trouble turns away first.
        patience_s = self._policy.silence_s * (1 + body.answer.depth)
        if body.silent_s >= patience_s and self._lineup.has_better_than(body.url):
            self._single.turn_away(body, f"it has been silent for {body.silent_s:.1f} s")
        self._watch = self._loop.call_later(self._policy.silence_s / 4, self._look_for_silence)
