"""Endpoints for the releases that are recorded; how one gets there is `uploads`'.

A release can have some ten thousand artifacts, so answers with one are rendered in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog
from aiohttp import web

from agent.api.queries import number
from coordinator.api.pruning import PruneDesk, Retention
from coordinator.database import releases
from coordinator.database.database import Database
from coordinator.wire import (
    KeptReleaseBody,
    PruneBody,
    PrunedBody,
    ReleaseBody,
    ReleasesBody,
)
from depot.http.openapi import Endpoint, Parameter
from depot.http.replies import json_reply, no_content
from depot.http.requests import read_json

MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100

VERSION_IN_PATH: Final = Parameter(name="version", where="path", schema={"type": "string"})
PAGE: Final = Parameter(
    name="page",
    where="query",
    schema={"type": "string"},
    required=False,
    description="`next_page` of the answer before.",
)
LIMIT: Final = Parameter(
    name="limit",
    where="query",
    schema={"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
    required=False,
    description=f"At most so many; {DEFAULT_PAGE} by default. Fewer when they name many artifacts.",
)


_log = structlog.get_logger(__name__)


class ReleaseApi:
    """Handlers for `/v1/releases`.

    Args:
        database: of the fleet.
        pruning: removes releases that nobody needs.
        retention: how many stay, unless a request says otherwise.
        wake: has the sleds told at once.
    """

    def __init__(
        self,
        database: Database,
        pruning: PruneDesk,
        retention: Retention,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._pruning = pruning
        self._retention = retention
        self._wake = wake

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="POST",
                path="/v1/releases/prune",
                operation_id="release_prune",
                handler=self.prune,
                summary="Forget releases that nobody needs; or say which, with `dry_run`.",
                request=PruneBody,
                response=PrunedBody,
            ),
            Endpoint(
                method="GET",
                path="/v1/releases",
                operation_id="release_list",
                handler=self.list,
                summary="List releases by their versions, a page at a time.",
                parameters=(PAGE, LIMIT),
                response=ReleasesBody,
            ),
            Endpoint(
                method="GET",
                path="/v1/releases/{version}",
                operation_id="release_get",
                handler=self.get,
                summary="Get one release.",
                parameters=(VERSION_IN_PATH,),
                response=ReleaseBody,
            ),
            Endpoint(
                method="DELETE",
                path="/v1/releases/{version}",
                operation_id="release_delete",
                handler=self.delete,
                summary="Forget a release; sleds drop what no other one has.",
                parameters=(VERSION_IN_PATH,),
                status=204,
            ),
        )

    async def prune(self, request: web.Request) -> web.Response:
        """POST /v1/releases/prune."""
        body = await read_json(request, PruneBody)
        given = {"previous_targets": body.keep_previous_targets, "newest": body.keep_newest}
        named = {name: count for name, count in given.items() if count is not None}
        pruned = await self._pruning.prune(replace(self._retention, **named), dry_run=body.dry_run)
        kept = tuple(KeptReleaseBody(version=version, why=why) for version, why in pruned.kept)
        return json_reply(PrunedBody(dry_run=body.dry_run, removed=pruned.removed, kept=kept))

    async def list(self, request: web.Request) -> web.Response:
        """GET /v1/releases."""
        after = request.query.get("page")
        limit = number(request.query, "limit", default=DEFAULT_PAGE, least=1, most=MAX_PAGE)
        found, next_page = await self._database.run(lambda tx: releases.page(tx, after, limit))

        def render() -> web.Response:
            items = tuple(map(ReleaseBody.of, found))
            return json_reply(ReleasesBody(items=items, next_page=next_page))

        return await asyncio.to_thread(render)

    async def get(self, request: web.Request) -> web.Response:
        """GET /v1/releases/{version}."""
        version = request.match_info["version"]
        found = await self._database.run(lambda tx: releases.get(tx, version))
        return await asyncio.to_thread(lambda: json_reply(ReleaseBody.of(found)))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /v1/releases/{version}."""
        version = request.match_info["version"]
        await self._database.run(lambda tx: releases.remove(tx, version))
        _log.info("release removed", version=version)
        self._wake()
        return no_content()
