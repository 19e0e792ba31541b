"""Endpoints for the roots of trust that releases are verified with."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from coordinator.database import trust
from coordinator.database.database import Database
from coordinator.releases.trust import root_facts
from coordinator.wire import TrustRootAddedBody, TrustRootBody, TrustRootsBody
from depot.http.openapi import Endpoint, Parameter
from depot.http.problems import JSON_TYPE
from depot.http.replies import json_reply, no_content
from depot.http.requests import read_json_content

ROOT_IN_PATH = Parameter(name="root_id", where="path", schema={"type": "string"})


class TrustApi:
    """Handlers for `/v1/trust-roots`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/v1/trust-roots",
                operation_id="trust_root_list",
                handler=self.list,
                summary="List every root of trust.",
                response=TrustRootsBody,
            ),
            Endpoint(
                method="POST",
                path="/v1/trust-roots",
                operation_id="trust_root_add",
                handler=self.add,
                summary="Trust releases that a root.json of TUF verifies.",
                description=(
                    "The same root.json again has the same id. It may have expired: that is "
                    "judged at each upload."
                ),
                request=JSON_TYPE,
                response=TrustRootAddedBody,
                status=201,
            ),
            Endpoint(
                method="GET",
                path="/v1/trust-roots/{root_id}",
                operation_id="trust_root_get",
                handler=self.get,
                summary="Get a root.json as it was added.",
                parameters=(ROOT_IN_PATH,),
                response=JSON_TYPE,
            ),
            Endpoint(
                method="DELETE",
                path="/v1/trust-roots/{root_id}",
                operation_id="trust_root_delete",
                handler=self.delete,
                summary="Trust a root no longer; releases that it verified stay.",
                parameters=(ROOT_IN_PATH,),
                status=204,
            ),
        )

    async def list(self, _: web.Request) -> web.Response:
        """GET /v1/trust-roots."""
        roots = await self._database.run(trust.every)
        return json_reply(TrustRootsBody(items=tuple(map(TrustRootBody.of, roots))))

    async def add(self, request: web.Request) -> web.Response:
        """POST /v1/trust-roots."""
        content = await read_json_content(request)
        facts = await asyncio.to_thread(root_facts, content)
        root = await self._database.run(
            lambda tx: trust.add(tx, content, facts.version, time.time())
        )
        return json_reply(TrustRootAddedBody(id=root.id), status=201)

    async def get(self, request: web.Request) -> web.Response:
        """GET /v1/trust-roots/{root_id}."""
        root_id = request.match_info["root_id"]
        root = await self._database.run(lambda tx: trust.get(tx, root_id))
        return web.Response(body=root.content, content_type=JSON_TYPE)

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /v1/trust-roots/{root_id}."""
        root_id = request.match_info["root_id"]
        await self._database.run(lambda tx: trust.remove(tx, root_id))
        return no_content()
