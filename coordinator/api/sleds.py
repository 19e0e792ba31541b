"""Endpoints for sleds: who is in the fleet, and the remedies for one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web

from agent.copies.source_url import SourceUrl
from coordinator.api.ids import IdInPath
from coordinator.api.sled_desk import SledDesk
from coordinator.database import sleds
from coordinator.database.database import Database
from coordinator.values import SledPolicy, SledState
from coordinator.wire import (
    ExpungedBody,
    SledBody,
    SledPolicyBody,
    SledPutBody,
    SledResetBody,
    SledsBody,
)
from depot.artifact import MAX_GENERATION, Generation
from depot.errors import InvalidRequest
from depot.http.openapi import Endpoint, Parameter
from depot.http.replies import json_reply, no_content
from depot.http.requests import read_json

DEFAULT_DEPOT_PORT: Final = 12348
SLED_ID: Final = IdInPath(
    "sled_id",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
    "1 to 128 letters, digits, dots, dashes and underscores, the first a letter or digit",
)
EXPECTED_IN_QUERY: Final = Parameter(
    name="expected_generation",
    where="query",
    schema={"type": "integer", "minimum": 0, "maximum": MAX_GENERATION},
    required=False,
)

_log = structlog.get_logger(__name__)


class SledApi:
    """Handlers for `/v1/sleds`.

    Args:
        database: of the fleet.
        desk: talks to one sled's agent.
        wake: has the sleds looked after at once.
    """

    def __init__(self, database: Database, desk: SledDesk, wake: Callable[[], None]) -> None:
        self._database = database
        self._desk = desk
        self._wake = wake

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/v1/sleds",
                operation_id="sled_list",
                handler=self.list,
                summary="List every sled.",
                response=SledsBody,
            ),
            Endpoint(
                method="GET",
                path="/v1/sleds/{sled_id}",
                operation_id="sled_get",
                handler=self.get,
                summary="Get one sled.",
                parameters=(SLED_ID.parameter,),
                response=SledBody,
            ),
            Endpoint(
                method="PUT",
                path="/v1/sleds/{sled_id}",
                operation_id="sled_put",
                handler=self.put,
                summary="Add a sled, or say where it is now; by an operator or its agent.",
                parameters=(SLED_ID.parameter,),
                request=SledPutBody,
                response=SledBody,
            ),
            Endpoint(
                method="DELETE",
                path="/v1/sleds/{sled_id}",
                operation_id="sled_delete",
                handler=self.delete,
                summary="Forget an expunged sled.",
                description="An agent that still registers itself under this id is a new sled.",
                parameters=(SLED_ID.parameter,),
                status=204,
            ),
            *self._remedies(),
        )

    def _remedies(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                method="PUT",
                path="/v1/sleds/{sled_id}/policy",
                operation_id="sled_policy_put",
                handler=self.put_policy,
                summary="Expunge a sled, which stops all work with it, or put it in service again.",
                parameters=(SLED_ID.parameter,),
                request=SledPolicyBody,
                response=ExpungedBody,
            ),
            Endpoint(
                method="POST",
                path="/v1/sleds/{sled_id}/reset",
                operation_id="sled_reset",
                handler=self.reset,
                summary="Make a sled that is ahead for good forget its config and generation.",
                description="With `expected_generation`, only while the sled is at that one: "
                "409 `CONFIG_GENERATION` when it has moved on.",
                parameters=(SLED_ID.parameter, EXPECTED_IN_QUERY),
                response=SledResetBody,
            ),
        )

    async def list(self, _: web.Request) -> web.Response:
        """GET /v1/sleds."""
        found = await self._database.run(sleds.every)
        return json_reply(SledsBody(items=tuple(map(SledBody.of, found))))

    async def get(self, request: web.Request) -> web.Response:
        """GET /v1/sleds/{sled_id}."""
        sled_id = SLED_ID.of(request)
        found = await self._database.run(lambda tx: sleds.get(tx, sled_id))
        return json_reply(SledBody.of(found))

    async def put(self, request: web.Request) -> web.Response:
        """PUT /v1/sleds/{sled_id}."""
        sled_id = SLED_ID.of(request)
        agent_url, depot_url = urls_of(await read_json(request, SledPutBody), self._desk.check)
        found = await self._database.run(lambda tx: sleds.upsert(tx, sled_id, agent_url, depot_url))
        if found.state in (None, SledState.UNREACHABLE):  # it is new, or it is back
            self._wake()
        return json_reply(SledBody.of(found))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /v1/sleds/{sled_id}."""
        sled_id = SLED_ID.of(request)
        await self._database.run(lambda tx: sleds.remove(tx, sled_id))
        _log.info("sled removed", sled=sled_id)
        return no_content()

    async def put_policy(self, request: web.Request) -> web.Response:
        """PUT /v1/sleds/{sled_id}/policy."""
        sled_id = SLED_ID.of(request)
        policy = SledPolicy((await read_json(request, SledPolicyBody)).policy)
        found = await self._database.run(lambda tx: sleds.set_policy(tx, sled_id, policy))
        self._wake()
        notes = await self._desk.what_stays(found) if policy is SledPolicy.EXPUNGED else ()
        return json_reply(ExpungedBody(**SledBody.of(found).model_dump(), notes=notes))

    async def reset(self, request: web.Request) -> web.Response:
        """POST /v1/sleds/{sled_id}/reset."""
        sled_id = SLED_ID.of(request)
        found = await self._database.run(lambda tx: sleds.get(tx, sled_id))
        forgotten = await self._desk.reset(found, expected_generation(request))
        self._wake()
        return json_reply(SledResetBody(id=sled_id, forgotten_generation=int(forgotten)))


def expected_generation(request: web.Request) -> Generation | None:
    """The generation in the query, if there is one; raises InvalidRequest when it is none."""
    values = request.query.getall("expected_generation", [])
    if len(values) > 1:
        raise InvalidRequest(f"expected_generation: expected at most one, found {len(values)}")
    return Generation.parse(values[0]) if values else None


def urls_of(body: SledPutBody, check: Callable[[str, str], SourceUrl]) -> tuple[str, str]:
    """Where a sled's agent and its depot listen, normalised; `check` reads a field.

    Raises:
        BadSource: one of them is no URL, or not one where a sled may be.
        InvalidRequest: the depot's port is said twice.
    """
    agent = check("agent_url", body.agent_url)
    if body.depot_url is None:
        port = body.repo_depot_port or DEFAULT_DEPOT_PORT
        return str(agent), str(SourceUrl(agent.scheme, agent.host, port))
    if body.repo_depot_port is not None:
        raise InvalidRequest("repo_depot_port: expected none beside depot_url, which has a port")
    return str(agent), str(check("depot_url", body.depot_url))
