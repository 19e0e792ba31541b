"""An app made of an endpoint table, and a listening server for it.

A server that stops goes on listening while it drains: clients get 503 `ShuttingDown` and not a
refused connection, running requests finish, and what has not finished in time is cancelled (S3).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import cache
from typing import Final

from aiohttp import web
from yarl import URL

from depot.http.activity import Activity
from depot.http.browsers import OwnNames
from depot.http.fast_path import FAST_PATH
from depot.http.fast_puts import FAST_PUTS
from depot.http.held_bodies import HeldBodies
from depot.http.limits import HttpLimits
from depot.http.middleware import add_request_id, defer_continue, front, unknown_path
from depot.http.openapi import Endpoint, openapi_document
from depot.http.problems import JSON_TYPE, PROBLEMS, Problems
from depot.http.protocol import DepotServer
from depot.http.requests import LIMITS
from depot.http.versions import ApiInfo

BACKLOG: Final = 512
# How long a cancelled request may take to clean up behind itself.
CANCEL_GRACE_S: Final = 5.0

ACTIVITY: Final = web.AppKey("activity", Activity)


def make_app(
    endpoints: Sequence[Endpoint],
    *,
    api: ApiInfo,
    limits: HttpLimits | None = None,
    problems: Problems = PROBLEMS,
    own: OwnNames | None = None,
) -> web.Application:
    """Make the app that serves `endpoints` and, at /openapi.json, their description.

    `problems` has a row for each error that a handler may raise, those of `depot.http` among them.
    Without its `own` names, the server is one that nobody told them.
    """
    activity, limits = Activity(), limits or HttpLimits()
    bodies = HeldBodies(limits.json_memory_bytes)
    own = own or OwnNames.of(None)
    app = web.Application(middlewares=[front(api, activity, bodies, own, problems)])
    app[ACTIVITY] = activity
    app[LIMITS] = limits
    app.on_response_prepare.append(add_request_id)
    table = with_description(endpoints, api)
    routed = {(endpoint.method, endpoint.path) for endpoint in table}
    for endpoint in table:
        _add_route(app, endpoint.method, endpoint)
        if endpoint.method == "GET" and ("HEAD", endpoint.path) not in routed:
            _add_route(app, "HEAD", endpoint)
    app.router.add_route("*", "/{tail:(?s:.*)}", unknown_path, expect_handler=defer_continue)
    return app


def with_description(endpoints: Sequence[Endpoint], api: ApiInfo) -> tuple[Endpoint, ...]:
    """The table with a row for the document that describes it."""

    @cache
    def document() -> bytes:
        return json.dumps(openapi_document(table, api)).encode()

    async def describe(_: web.Request) -> web.Response:
        # Made when somebody asks, in a thread: that takes as long as the rest of a small start.
        return web.Response(body=await asyncio.to_thread(document), content_type=JSON_TYPE)

    own = Endpoint(
        method="GET",
        path="/openapi.json",
        operation_id="api_description",
        handler=describe,
        summary="This document.",
        response=JSON_TYPE,
    )
    table = (*endpoints, own)
    return table


def _add_route(app: web.Application, method: str, endpoint: Endpoint) -> None:
    app.router.add_route(method, endpoint.path, endpoint.handler, expect_handler=defer_continue)


class HttpService:
    """One listening server for one app.

    Attributes:
        name: for people.
        url: where it listens, with the port that was really bound; empty until `start`.
    """

    def __init__(self, app: web.Application, *, limits: HttpLimits, name: str) -> None:
        self.name = name
        self.url = ""
        self._limits = limits
        self._activity = app[ACTIVITY]
        self._fast_path = app.get(FAST_PATH)
        self._fast_puts = app.get(FAST_PUTS)
        # The runner starts and cleans up the app; it never listens itself.
        self._runner = web.AppRunner(app)
        self._server: DepotServer | None = None
        self._listener: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._server.door.connections if self._server is not None else 0

    async def start(self, host: str, port: int) -> None:
        """Listen on `host` and `port` (0 picks a free one); raises OSError when that is taken."""
        await self._runner.setup()
        assert self._runner.server is not None
        self._server = DepotServer(
            self._runner.server, self._limits, self._fast_path, self._fast_puts
        )
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._server, host.strip("[]"), port, backlog=BACKLOG
            )
        except OSError:
            await self._runner.cleanup()
            raise
        address, bound_port = self._listener.sockets[0].getsockname()[:2]
        self.url = str(URL.build(scheme="http", host=address, port=bound_port))

    async def stop(self, drain_timeout_s: float) -> None:
        """Take no new work, let running requests finish for `drain_timeout_s`, then close."""
        try:
            await self.drain(drain_timeout_s)
        finally:
            await self.close()

    async def drain(self, drain_timeout_s: float) -> None:
        """Take no new work and wait for what runs, still listening.

        Apart from `close` for a process with several servers: as long as one of them drains, all
        of them answer `ShuttingDown` instead of refusing the connection.
        """
        self._activity.draining = True
        for timeout_s in (drain_timeout_s, CANCEL_GRACE_S):
            try:
                async with asyncio.timeout(timeout_s):
                    await self._activity.idle()
            except TimeoutError:
                self._activity.cancel()

    async def close(self) -> None:
        """Stop listening and close every connection; closing twice does nothing."""
        if self._listener is not None:
            self._listener.close()
        if self._server is not None:
            self._server.pre_shutdown()
            await self._server.shutdown(CANCEL_GRACE_S)
            self._server.refusals.hush()
        await self._runner.cleanup()
