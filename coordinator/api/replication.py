"""Endpoints for replication: how far the fleet is, what was done, and having a pass made."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from agent.api.queries import number
from coordinator.api.fleet_view import FleetView
from coordinator.api.quiescing import Quiesce
from coordinator.api.sleds import SLED_ID
from coordinator.database import history
from coordinator.database.database import Database
from coordinator.replication.cycle import Cycle
from coordinator.replication_wire import (
    ActivatedBody,
    HistoryBody,
    QuiesceBody,
    ReplicationBody,
    RequestBody,
)
from coordinator.values import MAX_HISTORY
from depot.artifact import ArtifactHash
from depot.http.openapi import SHA256_SCHEMA, Endpoint, Parameter
from depot.http.replies import json_reply

DEFAULT_HISTORY: Final = 100
ARTIFACT: Final = Parameter(
    name="artifact",
    where="query",
    schema=SHA256_SCHEMA,
    required=False,
    description="Only requests about this artifact.",
)
SLED: Final = Parameter(
    name="sled",
    where="query",
    schema={"type": "string", "pattern": SLED_ID.pattern},
    required=False,
    description="Only requests to this sled.",
)
LIMIT: Final = Parameter(
    name="limit",
    where="query",
    schema={"type": "integer", "minimum": 1, "maximum": MAX_HISTORY},
    required=False,
    description=f"At most so many; {DEFAULT_HISTORY} by default.",
)


class ReplicationApi:
    """Handlers for `/v1/replication` and `/v1/quiesce`."""

    def __init__(self, database: Database, cycle: Cycle, view: FleetView, quiesce: Quiesce) -> None:
        self._database = database
        self._cycle = cycle
        self._view = view
        self._quiesce = quiesce

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/v1/replication",
                operation_id="replication_get",
                handler=self.status,
                summary="How far the fleet is.",
                response=ReplicationBody,
            ),
            Endpoint(
                method="POST",
                path="/v1/replication/activate",
                operation_id="replication_activate",
                handler=self.activate,
                summary="Have a pass begin now, also when activation is manual.",
                response=ActivatedBody,
                status=202,
            ),
            Endpoint(
                method="GET",
                path="/v1/replication/history",
                operation_id="replication_history",
                handler=self.history,
                summary="List the recent requests to sleds, newest first.",
                parameters=(ARTIFACT, SLED, LIMIT),
                response=HistoryBody,
            ),
            Endpoint(
                method="POST",
                path="/v1/quiesce",
                operation_id="quiesce",
                handler=self.quiesce,
                summary="Take no more uploads, and end when nothing is only in the staging here.",
                response=QuiesceBody,
                status=202,
            ),
        )

    async def status(self, _: web.Request) -> web.Response:
        """GET /v1/replication."""
        return json_reply(await self._view.read())

    async def activate(self, _: web.Request) -> web.Response:
        """POST /v1/replication/activate."""
        passes = self._cycle.reporting.current().passes
        self._cycle.activate()
        return json_reply(ActivatedBody(passes=passes), status=202)

    async def history(self, request: web.Request) -> web.Response:
        """GET /v1/replication/history."""
        text, sled_id = request.query.get("artifact"), request.query.get("sled")
        artifact = None if text is None else ArtifactHash.parse(text)
        limit = number(request.query, "limit", default=DEFAULT_HISTORY, least=1, most=MAX_HISTORY)
        # What was noted a moment ago is to be there, too.
        await self._cycle.reporting.flush()
        found = await self._database.run(
            history.read, artifact=artifact, sled_id=sled_id, limit=limit
        )
        return json_reply(HistoryBody(items=tuple(map(RequestBody.of, found))))

    async def quiesce(self, _: web.Request) -> web.Response:
        """POST /v1/quiesce."""
        self._quiesce.begin()
        return json_reply(QuiesceBody(only_here=len(await self._view.only_here())), status=202)
