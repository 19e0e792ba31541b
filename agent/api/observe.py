"""Endpoints that show how the sled is: status, events, health, metrics. They change nothing."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from agent.api.queries import number
from agent.event_journal import Event
from agent.events import EventLog, EventPage
from agent.metrics import CONTENT_TYPE, Metrics
from agent.status import StatusSource
from agent.wire.events import EventBody, EventsBody
from agent.wire.fields import timestamp
from agent.wire.status import HealthBody, StatusBody
from depot.artifact import MAX_GENERATION
from depot.errors import NotReady
from depot.http.openapi import Endpoint, Parameter
from depot.http.replies import json_reply

MAX_EVENTS: Final = 1000
MAX_WAIT_S: Final = 30


def _number_in_query(name: str, description: str, *, least: int, most: int) -> Parameter:
    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Parameter(
        name=name, where="query", schema=schema, required=False, description=description
    )


AFTER: Final = _number_in_query(
    "after", "Only events numbered above this; 0 by default.", least=0, most=MAX_GENERATION
)
LIMIT: Final = _number_in_query(
    "limit", f"At most so many events; {MAX_EVENTS} by default.", least=1, most=MAX_EVENTS
)
WAIT_S: Final = _number_in_query(
    "wait_s",
    "Seconds to wait for an event when there is none; 0 by default.",
    least=0,
    most=MAX_WAIT_S,
)


class ObserveApi:
    """Handlers for what people, dashboards and probes look at."""

    def __init__(self, status: StatusSource, events: EventLog, metrics: Metrics) -> None:
        self._status = status
        self._events = events
        self._metrics = metrics

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/status",
                operation_id="status_get",
                handler=self.status,
                summary="Everything about this sled in one document.",
                response=StatusBody,
            ),
            Endpoint(
                method="GET",
                path="/events",
                operation_id="event_list",
                handler=self.events,
                summary="List events, oldest first; with `wait_s`, wait for the next one.",
                parameters=(AFTER, LIMIT, WAIT_S),
                response=EventsBody,
            ),
            Endpoint(
                method="GET",
                path="/health/live",
                operation_id="health_live",
                handler=self.live,
                summary="Whether the agent runs.",
                response=HealthBody,
            ),
            Endpoint(
                method="GET",
                path="/health/ready",
                operation_id="health_ready",
                handler=self.ready,
                summary="Whether it can take and serve artifacts; 503 with the reasons if not.",
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

    async def status(self, _: web.Request) -> web.Response:
        """GET /status."""
        return json_reply(self._status.read())

    async def events(self, request: web.Request) -> web.Response:
        """GET /events."""
        after = number(request.query, "after", default=0, most=MAX_GENERATION)
        limit = number(request.query, "limit", default=MAX_EVENTS, least=1, most=MAX_EVENTS)
        wait_s = number(request.query, "wait_s", default=0, most=MAX_WAIT_S)
        if wait_s:
            await self._events.wait(after, wait_s)
        return json_reply(events_body(await self._events.page(after, limit)))

    async def live(self, _: web.Request) -> web.Response:
        """GET /health/live."""
        return json_reply(HealthBody(status="ok"))

    async def ready(self, _: web.Request) -> web.Response:
        """GET /health/ready."""
        if reasons := self._status.reasons_not_ready():
            raise NotReady(reasons)
        return json_reply(HealthBody(status="ok"))

    async def metrics(self, _: web.Request) -> web.Response:
        """GET /metrics."""
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def events_body(page: EventPage) -> EventsBody:
    """Render a page of events."""
    return EventsBody(
        epoch=page.epoch,
        oldest=page.oldest,
        latest=page.latest,
        events=tuple(map(event_body, page.events)),
    )


def event_body(event: Event) -> EventBody:
    """Render one event; its number, time and kind win over fields of those names."""
    own = {"sequence": event.sequence, "time": timestamp(event.time), "kind": event.kind}
    return EventBody.model_validate({**event.fields, **own})
