"""Endpoints for copies: have this sled fetch an artifact, and see how that goes."""

from __future__ import annotations

from aiohttp import web

from agent.api.verbs import Copies, Store
from agent.copies.record import CopyRecord
from agent.wire.copies import CopiesBody, CopyBody, CopyFromDepotBody, CopyStartedBody
from agent.wire.fields import timestamp
from depot.http.openapi import GENERATION_IN_QUERY, SHA256_IN_PATH, Endpoint, Parameter
from depot.http.replies import json_reply
from depot.http.requests import artifact_hash, query_generation, read_json


class CopyApi:
    """Handlers for `copy-from-depot` and `/copies`."""

    def __init__(self, store: Store, copies: Copies) -> None:
        self._store = store
        self._copies = copies

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="POST",
                path="/artifacts/{sha256}/copy-from-depot",
                operation_id="artifact_copy_from_depot",
                handler=self.start,
                summary="Fetch an artifact from another sled's depot.",
                description="Answers once a source has said that it has the artifact.",
                parameters=(SHA256_IN_PATH, GENERATION_IN_QUERY),
                request=CopyFromDepotBody,
                response=CopyStartedBody,
                status=202,
            ),
            Endpoint(
                method="GET",
                path="/copies",
                operation_id="copy_list",
                handler=self.list,
                summary="List running and recent copies, oldest first.",
                response=CopiesBody,
            ),
            Endpoint(
                method="GET",
                path="/copies/{copy_id}",
                operation_id="copy_get",
                handler=self.get,
                summary="Get one copy.",
                parameters=(Parameter(name="copy_id", where="path", schema={"type": "string"}),),
                response=CopyBody,
            ),
        )

    async def start(self, request: web.Request) -> web.Response:
        """POST /artifacts/{sha256}/copy-from-depot."""
        sha256, generation = artifact_hash(request), query_generation(request)
        self._store.require_dataset()
        body = await read_json(request, CopyFromDepotBody)
        copy_id = await self._copies.start(sha256, generation, body.sources())
        return json_reply(CopyStartedBody(copy_id=copy_id), status=202)

    async def list(self, _: web.Request) -> web.Response:
        """GET /copies."""
        return json_reply(CopiesBody(copies=tuple(map(copy_body, self._copies.list()))))

    async def get(self, request: web.Request) -> web.Response:
        """GET /copies/{copy_id}."""
        return json_reply(copy_body(self._copies.get(request.match_info["copy_id"])))


def copy_body(record: CopyRecord) -> CopyBody:
    """Render a copy."""
    return CopyBody(
        copy_id=record.copy_id,
        sha256=str(record.sha256),
        generation=int(record.generation),
        sources=tuple(record.sources),
        state=record.state,
        bytes_done=record.bytes_done,
        bytes_total=record.bytes_total,
        started_at=timestamp(record.started_at),
        finished_at=timestamp(record.finished_at),
        error=record.error,
        datasets=record.datasets,
        successful_writes=record.successful_writes,
    )
