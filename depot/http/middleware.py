"""What every request of both servers goes through, around its handler.

Rules kept here:
- Every answer has `x-request-id`; every refusal has the common JSON body, also unknown paths,
  wrong methods and unknown expectations.
- While the server drains, new requests are refused (S3).
- What a browser asks for somebody else's web page is refused (`depot.http.browsers`).
- An unexpected exception is a 500 without a traceback, which is in the log (S4). A client that
  leaves is not one: peers come and go, and that is worth no line above debug.
- The answer is sent here, for as long as the client keeps the pace. A body that nobody read is then
  taken in, bounded by bytes and time, so that the client can read its answer; the connection closes
  after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Final
from uuid import uuid4

import structlog
from aiohttp import BytesIOPayload, HttpVersion11, hdrs, web
from aiohttp.typedefs import Middleware

from depot.errors import (
    DepotError,
    ExpectationFailed,
    HttpVersionNotSupported,
    Internal,
    InvalidRequest,
    LengthMismatch,
    MethodNotAllowed,
    NotFound,
    ShuttingDown,
)
from depot.http.activity import Activity
from depot.http.browsers import OwnNames, refuse_strangers
from depot.http.held_bodies import HeldBodies
from depot.http.limits import HttpLimits
from depot.http.patience import patience
from depot.http.problems import PROBLEMS, REQUEST_ID_HEADER, Problems, Row, problem_response, row_of
from depot.http.requests import (
    BODY_TAKEN,
    FOREGONE,
    HELD_BODY,
    LIMITS,
    OTHER_VERSION,
    REQUEST_ID,
    check_transfer_coding,
    expects_continue,
    header,
)
from depot.http.versions import ApiInfo

log = structlog.get_logger("depot.http")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SERVER_NAME: Final = "sled-depot"
WHOLE_BYTES: Final = 256 << 10
AT_ONCE_BYTES: Final = 16 << 10
_STARTED: Final = web.RequestKey("started", bool)


def front(
    api: ApiInfo,
    activity: Activity,
    bodies: HeldBodies,
    own: OwnNames,
    problems: Problems = PROBLEMS,
) -> Middleware:
    """Make the middleware of one server, which is called by its `own` names."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = uuid4().hex
        with activity.request(), bodies.request() as request[HELD_BODY]:
            try:
                if (foregone := request.get(FOREGONE)) is not None:
                    raise foregone
                _refuse_early(request, api, activity)
                refuse_strangers(request, own)
                response = await handler(request)
            except ConnectionError as error:
                # The client's own: a lost connection to anyone else is a DepotError by now.
                log.debug("client went away", **_named(request))
                _abort(request)
                raise ConnectionResetError("the client is gone") from error
            except Exception as error:
                response = _answer_to(request, error, problems)
            await _finish(request, response, draining=activity.draining)
            return response

    return middleware


async def add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Signal handler: runs when any response is about to be sent, also a streamed one."""
    request[_STARTED] = True
    response.headers[hdrs.SERVER] = SERVER_NAME
    if request_id := request.get(REQUEST_ID):
        response.headers[REQUEST_ID_HEADER] = request_id


async def defer_continue(request: web.Request) -> None:
    """Expect handler of every route: says nothing, because the refusals come first."""


async def unknown_path(request: web.Request) -> web.StreamResponse:
    """Handler of whatever no other route takes.

    It is a route and not an absence of one because aiohttp answers `Expect: 100-continue` by
    itself where no route matches.
    """
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource is not request.match_info.route.resource:
            allowed |= (await resource.resolve(request))[1]
    path = request.path[:200]
    if allowed:
        raise MethodNotAllowed(request.method, path, sorted(allowed))
    raise NotFound(f"no such path: {path}")


def _refuse_early(request: web.Request, api: ApiInfo, activity: Activity) -> None:
    if activity.draining:
        raise ShuttingDown("this server is shutting down and takes no new requests")
    if version := request.get(OTHER_VERSION):
        raise HttpVersionNotSupported(f"expected HTTP/1.1 or HTTP/1.0, found HTTP/{version}")
    api.check(header(request, "api-version"))
    check_transfer_coding(request)
    expected = header(request, hdrs.EXPECT)
    if expected and request.version >= HttpVersion11 and not expects_continue(request):
        raise ExpectationFailed(f"Expect: expected 100-continue, found {expected[:80]!r}")


def _answer_to(request: web.Request, error: Exception, problems: Problems) -> web.StreamResponse:
    """Log `error` and make its answer; raises ConnectionResetError when there can be none."""
    problem = as_problem(error)
    _log(request, problem, error, row_of(problem, problems))
    if not _connected(request):
        raise ConnectionResetError("the client is gone") from error
    if request.get(_STARTED):
        # Cut short, never ended cleanly: the client must not take half a body for a whole (B2).
        _abort(request)
        raise ConnectionResetError("the answer was broken off") from error
    return problem_response(problem, request[REQUEST_ID], problems)


def _connected(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def as_problem(error: Exception) -> DepotError:
    """What the client is told about `error`."""
    match error:
        case DepotError():
            return error
        case web.RequestPayloadError():
            return InvalidRequest(f"the body is not well-formed: {error}")
        case web.HTTPNotFound():
            return NotFound("no such path")
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(error.method, "this path", sorted(error.allowed_methods))
        case _:
            return Internal("an unexpected error, which the server has logged with this id")


def _named(request: web.Request) -> dict[str, object]:
    """What log lines call a request by."""
    return {
        "request_id": request[REQUEST_ID],
        "method": request.method,
        "path": request.path,
        "peer": request.remote,
    }


def _log(request: web.Request, problem: DepotError, error: Exception, row: Row) -> None:
    if isinstance(problem, Internal):
        log.error("request failed", exc_info=error, **_named(request))
        return
    log.log(
        row.log_level,
        "request refused",
        status=row.status,
        error_code=problem.code,
        reason=str(problem),
        **_named(request),
    )


async def _finish(request: web.Request, response: web.StreamResponse, *, draining: bool) -> None:
    unread = not request.content.is_eof()
    if unread or draining:
        response.force_close()
    limits = request.app[LIMITS]
    await _send(request, response, limits)
    if unread and not request.get(BODY_TAKEN):
        await drain_body(request, limits)


async def _send(request: web.Request, response: web.StreamResponse, limits: HttpLimits) -> None:
    _divide(response)
    try:
        if _goes_at_once(request, response):
            await response.prepare(request)
            await response.write_eof()
            return
        async with patience(request, limits.pace):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError as error:
        _abort(request)
        raise ConnectionResetError("the client does not take its answer") from error


def _goes_at_once(request: web.Request, response: web.StreamResponse) -> bool:
    """Tell whether an answer is handed to the transport whole, without waiting for the client.

    Not behind others that it has not taken: those are waited for with it.
    """
    if request.transport is None or request.transport.get_write_buffer_size():
        return False
    body = response.body if isinstance(response, web.Response) else b""
    return isinstance(body, bytes) and 0 < len(body) <= AT_ONCE_BYTES


def _divide(response: web.StreamResponse) -> None:
    """Have a large body written block by block: the transport copies what it cannot send yet."""
    if not isinstance(response, web.Response):
        return
    content = response.body
    if isinstance(content, bytes) and len(content) > WHOLE_BYTES:
        response.body = BytesIOPayload(BytesIO(content), content_type=response.content_type)


async def drain_body(request: web.Request, limits: HttpLimits) -> None:
    """Take in and drop what is left of a body, up to the limits for refused ones."""
    left_bytes = limits.refused_drain_bytes
    try:
        async with asyncio.timeout(limits.refused_drain_s):
            while left_bytes > 0 and not request.content.at_eof():
                left_bytes -= len(await request.content.readany())
    except (TimeoutError, ConnectionError, web.RequestPayloadError, LengthMismatch):
        return  # The answer is sent; whatever the client does now is its own affair.
