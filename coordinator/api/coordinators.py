"""Endpoints for the coordinators of the fleet: which there are, and forgetting one that is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web

from agent.api.queries import switch
from coordinator.api.fleet_view import FleetView
from coordinator.api.ids import IdInPath
from coordinator.api.presence import GONE_AFTER_S
from coordinator.database import coordinators
from coordinator.database.database import Database
from coordinator.errors import CoordinatorActive
from coordinator.replication_wire import CoordinatorsBody
from depot.http.openapi import Endpoint, Parameter
from depot.http.replies import json_reply, no_content

COORDINATOR_ID: Final = IdInPath("coordinator_id", "^[0-9a-f-]{1,64}$", "a UUID")
FORCE: Final = Parameter(
    name="force",
    where="query",
    schema={"type": "boolean"},
    required=False,
    description=f"Also one that was there in the last {round(GONE_AFTER_S)} s.",
)

_log = structlog.get_logger(__name__)


class CoordinatorApi:
    """Handlers for `/v1/coordinators`.

    Args:
        database: of the fleet.
        view: knows what is only where.
        own_id: of this coordinator.
        wake: has the sleds looked after at once.
        clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        view: FleetView,
        own_id: str,
        wake: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._view = view
        self._own_id = own_id
        self._wake = wake
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/v1/coordinators",
                operation_id="coordinator_list",
                handler=self.list,
                summary="List every coordinator of the fleet, and what is only in its staging.",
                response=CoordinatorsBody,
            ),
            Endpoint(
                method="DELETE",
                path="/v1/coordinators/{coordinator_id}",
                operation_id="coordinator_delete",
                handler=self.delete,
                summary="Forget a coordinator that is gone for good, with what it had staged.",
                description=(
                    "What was only in its staging counts as lost from then on. A coordinator that "
                    "is there after all says so again, and what it has staged."
                ),
                parameters=(COORDINATOR_ID.parameter, FORCE),
                status=204,
            ),
        )

    async def list(self, _: web.Request) -> web.Response:
        """GET /v1/coordinators."""
        return json_reply(await self._view.coordinators())

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /v1/coordinators/{coordinator_id}."""
        id_ = COORDINATOR_ID.of(request)
        if id_ == self._own_id:
            raise CoordinatorActive("that is this coordinator, which is there: ask another one")
        forced = switch(request.query, "force")
        gone_since_s = None if forced else self._clock() - GONE_AFTER_S
        await self._database.run(coordinators.forget, id_, gone_since_s=gone_since_s)
        _log.warning("coordinator forgotten", id=id_, forced=forced)
        self._wake()
        return no_content()
