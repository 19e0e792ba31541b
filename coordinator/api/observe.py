"""Endpoints for probes and Prometheus. They change nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from agent.metrics import CONTENT_TYPE
from coordinator.api.metrics import FleetMetrics
from coordinator.wire import HealthBody
from depot.errors import NotReady
from depot.http.openapi import Endpoint
from depot.http.replies import json_reply


class ObserveApi:
    """Handlers for health and metrics.

    Args:
        reasons_not_ready: looks why the coordinator cannot do its work; empty when it can.
        metrics: what is counted.
    """

    def __init__(
        self,
        reasons_not_ready: Callable[[], Awaitable[Sequence[str]]],
        metrics: FleetMetrics,
    ) -> None:
        self._reasons_not_ready = reasons_not_ready
        self._metrics = metrics

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
            Endpoint(
                method="GET",
                path="/metrics",
                operation_id="metrics_get",
                handler=self.metrics,
                summary="Figures in the Prometheus text format.",
                response="text/plain",
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

    async def metrics(self, _: web.Request) -> web.Response:
        """GET /metrics."""
        return web.Response(
            body=await self._metrics.render(), headers={"Content-Type": CONTENT_TYPE}
        )
