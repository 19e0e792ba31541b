"""Endpoints for artifacts: list them, put one, say where one is."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

from aiohttp import web

from agent.api.long_bodies import render_listing
from agent.api.verbs import RunningPut, Store
from agent.wire.artifacts import (
    ArtifactCopyDetail,
    ArtifactDetailBody,
    ArtifactListBody,
    ArtifactPutBody,
)
from agent.wire.fields import timestamp
from depot.errors import InvalidRequest, LengthMismatch
from depot.http.body import decoded_length, request_body
from depot.http.openapi import GENERATION_IN_QUERY, OCTETS, SHA256_IN_PATH, Endpoint
from depot.http.problems import JSON_TYPE
from depot.http.replies import json_reply
from depot.http.requests import (
    LIMITS,
    artifact_hash,
    body_blocks,
    expects_continue,
    query_generation,
    read_body,
    send_continue,
)
from depot.reading.answers import ArtifactDetail
from depot.writing.stored import Stored


class ArtifactApi:
    """Handlers for `/artifacts`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/artifacts",
                operation_id="artifact_list",
                handler=self.list,
                summary="List the config's artifacts that are here, with the number of copies.",
                response=ArtifactListBody,
            ),
            Endpoint(
                method="PUT",
                path="/artifacts/{sha256}",
                operation_id="artifact_put",
                handler=self.put,
                summary="Put an artifact on every dataset.",
                description=(
                    "With `Expect: 100-continue`, every refusal that does not need the body is "
                    "sent instead of 100, and so is the success for an artifact that is here "
                    "already. `Content-Encoding: zstd` is decoded; no other coding is."
                ),
                parameters=(SHA256_IN_PATH, GENERATION_IN_QUERY),
                request=OCTETS,
                response=ArtifactPutBody,
            ),
            Endpoint(
                method="GET",
                path="/artifacts/{sha256}",
                operation_id="artifact_get",
                handler=self.get,
                summary="Say where an artifact is on this sled.",
                parameters=(SHA256_IN_PATH,),
                response=ArtifactDetailBody,
            ),
        )

    async def list(self, _: web.Request) -> web.Response:
        """GET /artifacts."""
        listing = self._store.list_artifacts()
        content = await asyncio.to_thread(render_listing, listing)
        return web.Response(body=content, content_type=JSON_TYPE)

    async def put(self, request: web.Request) -> web.Response:
        """PUT /artifacts/{sha256}."""
        sha256, generation = artifact_hash(request), query_generation(request)
        self._store.require_dataset()
        async with self._store.begin_put(sha256, generation, decoded_length(request)) as put:
            if put.held is None:
                return put_reply(await receive(put, request))
            detail = await self._store.describe(sha256)
        await let_finish(request, max(copy.size_bytes or 0 for copy in detail.copies))
        return put_reply(put.held)

    async def get(self, request: web.Request) -> web.Response:
        """GET /artifacts/{sha256}."""
        detail = await self._store.describe(artifact_hash(request))
        return json_reply(detail_body(detail))


async def receive(put: RunningPut, request: web.Request) -> Stored:
    """Ask for the body and store it."""
    if put.wants_whole:
        await send_continue(request)
        return await put.store(await read_body(request))
    async with request_body(request, request.app[LIMITS]) as source:
        await send_continue(request)
        return await put.receive(source)


async def let_finish(request: web.Request, size_bytes: int) -> None:
    """Drop the body that a client sends without having asked whether it is wanted.

    Such a client reads no answer before it has sent everything, so the middleware's short drain
    would turn its success into a broken connection. A body longer than the artifact is none.

    Raises:
        BodyTimeout: it dawdles.
    """
    if expects_continue(request):
        return
    with suppress(LengthMismatch, InvalidRequest):  # nobody wanted it: it may be anything
        async with aclosing(body_blocks(request)) as blocks:
            async for block in blocks:
                size_bytes -= len(block)
                if size_bytes <= 0:
                    return


def put_reply(stored: Stored) -> web.Response:
    """Render how a put ended."""
    body = ArtifactPutBody(datasets=stored.datasets, successful_writes=stored.copies)
    return json_reply(body)


def detail_body(detail: ArtifactDetail) -> ArtifactDetailBody:
    """Render where an artifact is."""
    copies = [
        ArtifactCopyDetail(
            dataset=copy.dataset,
            present=copy.present,
            verified_at=timestamp(copy.verified_at),
            size_bytes=copy.size_bytes,
            path=copy.path,
            damaged=copy.damaged,
            quarantined=copy.quarantined,
        )
        for copy in detail.copies
    ]
    return ArtifactDetailBody(sha256=str(detail.sha256), copies=tuple(copies))
