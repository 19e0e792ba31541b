"""The answer to a request for an artifact that is still being received: a relay.

Rules kept here:
- The head says that the artifact is still arriving, and how many relays its bytes have come
  through. It has the artifact's entity tag, so that a receiver whose relay breaks off resumes at
  that byte from any other depot; nobody may keep it in a cache, because nobody has verified it.
- What is withheld until the whole hash is right is said in `depot.writing.arriving`. An answer that
  cannot be ended is cut short of Content-Length, never ended cleanly (B2).
- What came just now is sent from memory, without a thread: at most a piece at a time, and the
  socket takes it or the reader waits.
- A reader waits on the event loop, for as long as the client is there and the sender keeps its
  pace; readers never take more than half of the server's connections (S1).
- A dataset that fails is left for the other one at the exact byte (B4). One that is only busy gets
  its turn again, after the other.
- The bytes are never encoded: what is sent has to arrive at the pace at which it is received.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Self

import structlog
from aiohttp import web

from depot.artifact import ArtifactHash
from depot.errors import BodyTimeout, Io, NotFound, TooManyConnections
from depot.http.conditional import Plan, entity_tag, plan_answer
from depot.http.limits import HttpLimits
from depot.http.outlet import Outlet, outlet
from depot.http.pump import Pump, Sent
from depot.http.relay_headers import arriving_headers
from depot.http.responder import ArtifactReader, conditions_of, headers_of, refuse
from depot.mirrors.open_artifact import OpenArtifact
from depot.os_errors import describe_error
from depot.streams.budget import Budget
from depot.writing.arriving import Arrival, Arrivals

log = structlog.get_logger("depot.http")

LOOK_EVERY_S: Final = 1.0


class ArrivingResponder:
    """Answers requests for artifacts that a store is receiving."""

    def __init__(
        self,
        arrivals: Arrivals,
        store: ArtifactReader,
        pump: Pump,
        limits: HttpLimits,
        budget: Budget,
    ) -> None:
        self._arrivals = arrivals
        self._store = store
        self._pump = pump
        self._budget = budget
        self._pace = limits.pace
        self._most_readers = max(1, limits.max_connections // 2)

    async def answer(
        self, request: web.Request, artifact: ArtifactHash
    ) -> web.StreamResponse | None:
        """Answer a GET or HEAD; None when the artifact is held, or not even arriving.

        Raises:
            PreconditionFailed, RangeNotSatisfiable.
            TooManyConnections: enough of them wait for what arrives.
        """
        arrival = self._arrivals.find(artifact)
        if arrival is None:
            return None
        plan = plan_answer(
            request.method, arrival.size_bytes, entity_tag(artifact), conditions_of(request)
        )
        refuse(request, artifact, plan, arrival.size_bytes)
        headers = {
            **headers_of(artifact, plan, arrival.size_bytes),
            **arriving_headers(arrival.depth),
            "Cache-Control": "no-store",
        }
        response = web.StreamResponse(status=plan.status, headers=headers)
        if request.method != "HEAD" and plan.length_bytes:
            await self._relay(request, response, arrival, plan)
        return response

    async def _relay(
        self, request: web.Request, response: web.StreamResponse, arrival: Arrival, plan: Plan
    ) -> None:
        if self._arrivals.readers >= self._most_readers:
            raise TooManyConnections(f"{self._most_readers} clients wait for what arrives here")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as until_cut:
                # Or a client that takes nothing would keep the file of a write that has failed.
                with arrival.reading(lambda: until_cut.reschedule(loop.time())):
                    async with outlet(request, response, self._pace) as out:
                        with _Copies(self._arrivals, self._store, arrival) as copies:
                            await self._send(request, out, copies, plan)
        except TimeoutError as error:
            raise NotFound(f"{arrival.sha256} did not arrive") from error

    async def _send(self, request: web.Request, out: Outlet, copies: _Copies, plan: Plan) -> None:
        offset, end = plan.start, plan.start + plan.length_bytes
        while offset < end:
            part = await self._await_part(request, copies, offset, end)
            async with out.granted(self._budget, part.end - offset) as step_bytes:
                if isinstance(part.source, memoryview):
                    await _send_now(out, part.source[:step_bytes])
                    sent = Sent(offset + step_bytes)
                else:
                    sent = await self._pump.send(out, part.source, offset, offset + step_bytes)
            self._arrivals.relayed_bytes += sent.offset - offset
            offset = sent.offset
            if sent.error is not None:
                copies.failed(sent.error, offset, copy_is_bad=sent.copy_is_bad)
            if sent.in_doubt:
                raise Io(f"{copies.arrival.sha256}: what was sent of it may be wrong")

    async def _await_part(
        self, request: web.Request, copies: _Copies, offset: int, end: int
    ) -> _Part:
        """Wait until there is more after `offset`.

        Raises:
            NotFound, NoDataset: it is not going to be the artifact, or no dataset has it.
            BodyTimeout: nothing has arrived for too long.
            ConnectionResetError: the client is gone.
        """
        look_s = min(LOOK_EVERY_S, self._pace.idle_timeout_s)
        waited_s = 0.0
        while (part := await copies.next_part(offset, end)) is None:
            if waited_s >= self._pace.idle_timeout_s:
                raise BodyTimeout(f"nothing has arrived for {waited_s:.0f} s")
            # Of one that has only hung up, the next bytes tell: it may still be listening.
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client is gone")
            waited_s = 0.0 if await copies.arrival.changes(look_s) else waited_s + look_s
        return part


@dataclass(frozen=True, slots=True)
class _Part:
    """What can be sent now, up to byte `end`: from a file or from memory."""

    end: int
    source: OpenArtifact | memoryview


async def _send_now(out: Outlet, content: memoryview) -> None:
    """Send bytes that are in memory, as the client takes them.

    Raises:
        ConnectionResetError: the client is gone.
        BodyTimeout: the client is too slow.
    """
    while content:
        try:
            sent_bytes = out.socket.send(content)
            content = content[sent_bytes:]
            out.sent_bytes += sent_bytes
        except BlockingIOError:
            await out.writable()
        except OSError as error:
            raise ConnectionResetError("the client is gone") from error


class _Copies:
    """The files of one arrival, of which one is open; a context manager that closes it."""

    def __init__(self, arrivals: Arrivals, store: ArtifactReader, arrival: Arrival) -> None:
        self.arrival = arrival
        self._arrivals = arrivals
        self._store = store
        self._opened: OpenArtifact | None = None
        self._stored = False
        self._failed: set[int] = set()
        # Only the last that was, so that those that all are take turns.
        self._busy: frozenset[int] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    async def next_part(self, offset: int, end: int) -> _Part | None:
        """Find what there is after `offset`; None when there is nothing yet.

        Raises:
            NotFound, NoDataset: there never will be.
        """
        if not self._arrivals.may_go_on(self.arrival):
            raise NotFound(f"{self.arrival.sha256} did not arrive")
        if content := self.arrival.in_memory(offset, end):
            return _Part(offset + len(content), content)
        return await self._open_part(offset, end)

    async def _open_part(self, offset: int, end: int) -> _Part | None:
        index, limit = self._furthest(offset, end)
        is_open = self._opened is not None and self._opened.dataset == index
        # By its own name: that of a write that has landed is gone.
        if self.arrival.landed and (limit < end or not is_open):
            return _Part(end, await self._open_stored())
        if index is None or limit <= offset:
            return None
        opened = await self._open_staged(index)
        return None if opened is None else _Part(limit, opened)

    def _furthest(self, offset: int, end: int) -> tuple[int | None, int]:
        """The dataset to read from now, and how far; one that was busy if no other has anything."""
        index, limit = None, 0
        for exclude in (self._failed | self._busy, self._failed) if not self._stored else ():
            index = self.arrival.furthest(end, exclude)
            limit = 0 if index is None else self.arrival.limit(index, end)
            if limit > offset:
                break
        return index, limit

    def failed(self, error: OSError, offset: int, *, copy_is_bad: bool) -> None:
        """Go on without the file that is open, for now if that is not bad."""
        assert self._opened is not None
        log.error(
            "artifact copy failed while it was relayed",
            sha256=str(self.arrival.sha256),
            dataset=self._opened.place,
            offset=offset,
            reason=describe_error(error),
        )
        if self._stored and copy_is_bad:
            self._store.read_failed(self._opened, error)
        if copy_is_bad:
            self._failed.add(self._opened.dataset)
        else:
            self._busy = frozenset({self._opened.dataset})
        self._close()

    async def _open_staged(self, index: int) -> OpenArtifact | None:
        if self._opened is None or self._opened.dataset != index:
            self._close()
            try:
                self._opened = await self._arrivals.open(self.arrival, index)
            except OSError:
                # Perhaps it has got its name just now: once it has landed it is opened by that.
                self._failed.add(index)
                return None
        self._arrivals.check_reads(self.arrival, self._opened)
        return self._opened

    async def _open_stored(self) -> OpenArtifact:
        if not self._stored:
            self._close()
            self._stored, self._failed = True, set()
        if self._opened is None:
            try:
                self._opened = await self._open_copy(self._failed | self._busy)
            except NotFound:
                if not self._busy:
                    raise
                self._opened = await self._open_copy(self._failed)
        return self._opened

    async def _open_copy(self, exclude: Collection[int]) -> OpenArtifact:
        return await self._store.open_artifact(self.arrival.sha256, exclude=frozenset(exclude))

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()
