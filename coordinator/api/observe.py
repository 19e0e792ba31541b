"""Endpoints that show how the coordinator is. They change nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from coordinator.wire import HealthBody
from depot.errors import NotReady
from depot.http.openapi import Endpoint
from depot.http.replies import json_reply


class ObserveApi:
    """Handlers for probes.

    Args:
        reasons_not_ready: looks why the coordinator cannot do its work; empty when it can.
    """

    def __init__(self, reasons_not_ready: Callable[[], Awaitable[Sequence[str]]]) -> None:
        self._reasons_not_ready = reasons_not_ready

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/health/live",
                operation_id="health_live",
                handler=self.live,
                summary="Whether the coordinator runs.",
                response=HealthBody,
            ),
            Endpoint(
                method="GET",
                path="/health/ready",
                operation_id="health_ready",
                handler=self.ready,
                summary="Whether it can do its work; 503 with the reasons if not.",
                response=HealthBody,
            ),
        )

    async def live(self, _: web.Request) -> web.Response:
        """GET /health/live."""
        return json_reply(HealthBody(status="ok"))

    async def ready(self, _: web.Request) -> web.Response:
        """GET /health/ready."""
        if reasons := await self._reasons_not_ready():
            raise NotReady(reasons)
        return json_reply(HealthBody(status="ok"))
