"""What aiohttp's server lacks: header timeout, connection limits, and refusals as JSON.

Rules kept here:
- A connection that has not sent a whole request head `header_timeout_s` after it was opened, or
  after the first byte of a later head, is answered 408 and closed; one that has sent nothing at
  all is just closed (S2). A head that began while the request before it ran is timed from its end.
- A connection over a limit is answered 503 and closed, before anything of it is parsed (S1). One
  counts until it is lost and its request has ended: who leaves and comes back gets no more work out
  of a server at once than who stays.
- What cannot be parsed gets the common error body too; so does a request of another version of HTTP
  that can, in HTTP/1.1.
- An answer that the client does not take holds its connection for the idle timeout at most.
- A request that arrives whole, on a connection where nothing else is under way, is first shown to
  the fast path. What that does not answer is parsed as if it had never seen it.
- A put that was taken past the HTTP library is carried out once: what comes behind it waits for its
  answer, and no more than one read of that.

`aiohttp.web` has no public hook for any of these, so this module knows a few of `RequestHandler`'s
own attributes; tests hold each of them.
"""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from depot.errors import (
    DepotError,
    HeaderTimeout,
    Internal,
    InvalidRequest,
    LengthMismatch,
    TooManyConnections,
)
from depot.http.boundary import Boundary
from depot.http.door import Door, affordable_connections
from depot.http.fast_path import FastPath
from depot.http.fast_puts import FastPuts, TakenPut
from depot.http.hot_artifacts import HotArtifact
from depot.http.leftover import watch_leftover
from depot.http.limits import HttpLimits
from depot.http.problems import problem_response
from depot.http.refusals import Refusals
from depot.http.request_factory import in_our_version

log = structlog.get_logger("depot.http")


class DepotServer(web.Server):
    """Makes a `DepotConnection` for each connection that is accepted."""

    def __init__(
        self,
        inner: web.Server,
        limits: HttpLimits,
        fast_path: FastPath | None = None,
        fast_puts: FastPuts | None = None,
    ) -> None:
        super().__init__(
            inner.request_handler,
            request_factory=in_our_version(inner.request_factory),
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=limits.idle_timeout_s,
            lingering_time=0,
            max_headers=64,
        )
        self.limits = limits
        self.door = Door(affordable_connections(limits), limits.max_connections_per_client)
        self.refusals = Refusals(limits)
        self.fast_path = fast_path
        self.fast_puts = fast_puts

    def __call__(self) -> RequestHandler:
        """Make the protocol of one connection."""
        return DepotConnection(self, loop=self._loop, **self._kwargs)


class DepotConnection(RequestHandler):
    """One connection of a client."""

    __slots__ = (
        "_all_is_heard",
        "_boundary",
        "_client",
        "_fast_path",
        "_fast_puts",
        "_foregone",
        "_head_timer",
        "_heard",
        "_limits",
        "_running",
        "_server",
        "_taken",
        "_ticket",
        "_withheld",
    )

    def __init__(self, server: DepotServer, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._limits = server.limits
        self._fast_path = server.fast_path
        self._fast_puts = server.fast_puts
        self._client: str | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._heard = False
        self._running = False
        self._all_is_heard = False
        self._boundary = Boundary()
        # A whole request that the fast path has, and what it is to name when it tells of it.
        self._withheld = b""
        self._ticket: object | None = None
        # A put that is carried out, and how one has ended that is parsed next.
        self._taken: TakenPut | None = None
        self._foregone: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client in, or hand the connection over to be refused."""
        assert isinstance(transport, asyncio.Transport)
        client = _address(transport)
        try:
            self._server.door.enter(client)
        except TooManyConnections as error:
            log.warning("connection refused", peer=client, reason=str(error))
            self._server.refusals.send(transport, error)
            return
        self._client = client
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count the client out, unless its request still runs."""
        self._head_complete()
        super().connection_lost(exc)
        self._count_out_if_over()

    def data_received(self, data: bytes) -> None:
        """Take `data` past the HTTP library if that is possible, or parse it."""
        if self._taken is not None and data:
            self._taken.comes_behind(data, self.transport)
            return
        if self._withheld:
            data = self._take_back() + data
        elif self._takes_fast_path(data) or self._takes_put(data):
            return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Parse `data`, and watch how long a head takes."""
        waiting = self._waits_for_request()
        new = waiting and self._boundary.is_clean
        super().data_received(data)
        self._boundary.parsed(data, self._messages, new=new)
        if self._messages or not waiting:
            self._head_complete()
        elif data:
            self._heard = True
            self._expect_head()

    def _takes_fast_path(self, data: bytes) -> bool:
        if (fast_path := self._fast_path) is None:
            return False
        if (transport := self._free_transport()) is None:
            return False
        if (answer := fast_path.answer(data)) is not None:
            self._send(transport, answer)
            return True
        ticket = object()
        if not fast_path.fetch(data, partial(self._fetched, fast_path, ticket)):
            return False
        self._head_complete()
        self._withheld, self._ticket = data, ticket
        return True

    def _fetched(self, fast_path: FastPath, ticket: object, hot: HotArtifact | None) -> None:
        """Answer what was withheld, or parse it."""
        if ticket is not self._ticket or self.transport is None:
            return  # it was parsed already, or nobody waits for it
        data = self._take_back()
        answer = None if hot is None else fast_path.answer_with(hot)
        if answer is None:
            self._parse(data)
        else:
            self._send(self.transport, answer)

    def _takes_put(self, data: bytes) -> bool:
        fast_puts = self._fast_puts
        if fast_puts is None or self._free_transport() is None:
            return False
        if not fast_puts.begin(data, self._put_ended):
            return False
        self._head_complete()
        self._taken = TakenPut(data)
        return True

    def _put_ended(self, outcome: bytes | Exception | None) -> None:
        """Answer a put, or parse it; then what has come behind it."""
        taken, self._taken = self._taken, None
        transport = self.transport
        if taken is None or transport is None or transport.is_closing():
            self._count_out_if_over()
            return
        if isinstance(outcome, bytes):
            self._send(transport, outcome)
        else:
            self._foregone = outcome
            self._parse(taken.request)
        transport.resume_reading()
        if taken.behind:
            self.data_received(taken.behind)
        if taken.all_is_heard and not self.eof_received():
            transport.close()

    def take_foregone(self) -> Exception | None:
        """How the request that is parsed now has ended already; None: it has not."""
        foregone, self._foregone = self._foregone, None
        return foregone

    def _free_transport(self) -> asyncio.Transport | None:
        """The transport, if nothing is under way but the request that is about to be parsed."""
        transport = self.transport
        if transport is None or not self._waits_for_request() or self._upgraded:
            return None
        if not self._boundary.is_clean:
            return None
        return None if transport.get_write_buffer_size() else transport

    def _take_back(self) -> bytes:
        data, self._withheld, self._ticket = self._withheld, b"", None
        return data

    def _send(self, transport: asyncio.Transport, answer: bytes) -> None:
        self._head_complete()
        self._begin_idle_time()
        transport.write(answer)
        if transport.get_write_buffer_size():
            watch_leftover(transport, self._limits.pace)

    def _begin_idle_time(self) -> None:
        self._next_keepalive_close_time = self._loop.time() + self._limits.idle_timeout_s
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio wants it, aiohttp's is mute
        """Let a client that has sent all it will send still hear its answers.

        A body that has not ended by now ended early: it is no whole one, even if it reads like it.
        """
        if self._taken is not None:
            self._taken.all_is_heard = True
            return True
        if self._withheld:
            self._parse(self._take_back())
        content = self._boundary.content
        if content is None or self._waits_for_request():
            return False
        if not content.is_eof():
            content.set_exception(LengthMismatch(self._boundary.length_bytes, content.total_bytes))
        self._all_is_heard = True
        self._close_when_answered()
        return True

    async def start(self) -> None:
        """Answer requests until the connection ends; then see that it does end."""
        transport = self.transport
        self._running = True
        try:
            await super().start()
        finally:
            self._running = False
            self._count_out_if_over()
            # Closing waits for the client to take what is buffered, for ever if need be.
            if transport is not None and transport.get_write_buffer_size():
                self._loop.call_later(self._limits.idle_timeout_s, transport.abort)

    async def _handle_request(
        self, request: web.BaseRequest, *options: Any
    ) -> tuple[web.StreamResponse, bool]:
        try:
            try:
                response, reset = await super()._handle_request(request, *options)
            except ConnectionError:
                # Said by a result: the error would hold this request's open files and digests, and
                # aiohttp's loop the error, until the collector of cycles comes by.
                return web.StreamResponse(), True
            if isinstance(response, web.Response):
                # aiohttp keeps the last answer until the next request, which may be hours.
                response.body = None
            return response, reset
        finally:
            self._close_when_answered()
            if not self._messages and self._boundary.next_has_begun:
                self._heard = True
                self._expect_head()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp itself refuses: mostly requests that it cannot parse."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionResetError("nobody is left to hear it, or half an answer is sent")
        request_id = uuid4().hex
        problem: DepotError
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            reason = (message or "").partition("\n")[0][:200]
            problem = InvalidRequest(f"not a well-formed HTTP request: {reason}")
            log.info("request refused", request_id=request_id, peer=request.remote, reason=reason)
        else:
            problem = Internal("an unexpected error, which the server has logged with this id")
            log.error("request failed", request_id=request_id, peer=request.remote, exc_info=exc)
        response = problem_response(problem, request_id)
        response.force_close()
        return response

    def _close_when_answered(self) -> None:
        # What was pipelined before the client ended its output is answered too.
        if self._all_is_heard and not self._messages:
            self.close()

    def _count_out_if_over(self) -> None:
        """Count the client out once the connection is lost and nothing of it runs any more."""
        over = self._manager is None and not self._running and self._taken is None
        if over and self._client is not None:
            self._server.door.leave(self._client)
            self._client = None

    def _waits_for_request(self) -> bool:
        return not self._messages and self._waiter is not None and not self._waiter.done()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self._loop.call_later(
                self._limits.header_timeout_s, self._head_is_late
            )

    def _head_complete(self) -> None:
        self._heard = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        transport = self.transport
        if transport is None:
            return
        if not self._heard:
            self.force_close()
            return
        error = HeaderTimeout(
            f"expected a whole request head within {self._limits.header_timeout_s:g} s"
        )
        log.info("connection refused", peer=self._client, reason=str(error))
        # From here on the connection is the refusal's: this protocol must not close it.
        self.transport = None
        self.connection_lost(None)
        self._server.refusals.send(transport, error)

    def _process_keepalive(self) -> None:
        if self._heard or self._withheld or self._taken is not None:
            # A head that has begun is on the header timeout; its answer begins a new idle time.
            self._keepalive_handle = None
            return
        super()._process_keepalive()


def _address(transport: asyncio.Transport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else str(peer or "local")
