"""Endpoints for the generation of the wanted set."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from coordinator.database import generation
from coordinator.database.database import Database
from coordinator.wire import GenerationAdvanceBody, GenerationBody
from depot.artifact import Generation
from depot.http.openapi import Endpoint
from depot.http.replies import json_reply
from depot.http.requests import read_json


class GenerationApi:
    """Handlers for `/v1/generation`.

    Args:
        database: of the fleet.
        wake: has the sleds told at once.
    """

    def __init__(self, database: Database, wake: Callable[[], None]) -> None:
        self._database = database
        self._wake = wake

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/v1/generation",
                operation_id="generation_get",
                handler=self.get,
                summary="Get the generation of the wanted set.",
                response=GenerationBody,
            ),
            Endpoint(
                method="POST",
                path="/v1/generation/advance",
                operation_id="generation_advance",
                handler=self.advance,
                summary="Raise the generation, above that of sleds that are ahead for good.",
                request=GenerationAdvanceBody,
                response=GenerationBody,
            ),
        )

    async def get(self, _: web.Request) -> web.Response:
        """GET /v1/generation."""
        current = await self._database.run(generation.read)
        return json_reply(GenerationBody(generation=int(current)))

    async def advance(self, request: web.Request) -> web.Response:
        """POST /v1/generation/advance."""
        to = Generation((await read_json(request, GenerationAdvanceBody)).to)
        current = await self._database.run(lambda tx: generation.advance(tx, to))
        self._wake()
        return json_reply(GenerationBody(generation=int(current)))
