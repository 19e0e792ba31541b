"""Endpoints for the quarantine: what was set aside, and what an operator does with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from agent.api.queries import switch
from agent.api.verbs import Store
from agent.wire.fields import timestamp
from agent.wire.quarantine import QuarantineBody, QuarantinedBody
from depot.http.openapi import Endpoint, Parameter
from depot.http.replies import json_reply, no_content
from depot.quarantine.keeper import Quarantined

ID_IN_PATH: Final = Parameter(name="id", where="path", schema={"type": "string"})
FORCE: Final = Parameter(
    name="force",
    where="query",
    schema={"type": "boolean"},
    required=False,
    description="Delete it even if it is the last copy; false by default.",
)


class QuarantineApi:
    """Handlers for `/quarantine`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/quarantine",
                operation_id="quarantine_list",
                handler=self.list,
                summary="List the damaged copies that were set aside, oldest first.",
                response=QuarantineBody,
            ),
            Endpoint(
                method="POST",
                path="/quarantine/{id}/restore",
                operation_id="quarantine_restore",
                handler=self.restore,
                summary="Give a copy its name back, if its bytes hash to it.",
                parameters=(ID_IN_PATH,),
                status=204,
            ),
            Endpoint(
                method="DELETE",
                path="/quarantine/{id}",
                operation_id="quarantine_purge",
                handler=self.purge,
                summary="Delete a copy; the last one of an artifact only with force.",
                parameters=(ID_IN_PATH, FORCE),
                status=204,
            ),
        )

    async def list(self, _: web.Request) -> web.Response:
        """GET /quarantine."""
        return await asyncio.to_thread(
            lambda: json_reply(quarantine_body(self._store.quarantined()))
        )

    async def restore(self, request: web.Request) -> web.Response:
        """POST /quarantine/{id}/restore."""
        await self._store.restore_quarantined(request.match_info["id"])
        return no_content()

    async def purge(self, request: web.Request) -> web.Response:
        """DELETE /quarantine/{id}."""
        force = switch(request.query, FORCE.name)
        await self._store.purge_quarantined(request.match_info["id"], force=force)
        return no_content()


def quarantine_body(quarantined: Iterable[Quarantined]) -> QuarantineBody:
    """Render the listing."""
    return QuarantineBody(quarantined=tuple(map(_body, quarantined)))


def _body(found: Quarantined) -> QuarantinedBody:
    return QuarantinedBody(
        id=found.id,
        sha256=str(found.file.artifact),
        dataset=found.dataset,
        reason=str(found.file.reason),
        time=timestamp(found.file.time_ms / 1000),
        size_bytes=found.file.size_bytes,
        path=found.path,
        last_copy=found.last_copy,
    )
