"""Endpoints for pins: what consumers on this sled hold, so that no config may drop it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from aiohttp import web

from agent.api.verbs import Store
from agent.wire.fields import hashes, texts
from agent.wire.pins import PinBody, PinsBody
from depot.artifact import ArtifactHash
from depot.errors import NotFound
from depot.http.openapi import Endpoint, Parameter
from depot.http.replies import json_reply, no_content
from depot.http.requests import read_json

NAME_IN_PATH = Parameter(
    name="name",
    where="path",
    schema={"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"},
)


class PinApi:
    """Handlers for `/pins`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/pins",
                operation_id="pin_list",
                handler=self.list,
                summary="List every pin.",
                response=PinsBody,
            ),
            Endpoint(
                method="GET",
                path="/pins/{name}",
                operation_id="pin_get",
                handler=self.get,
                summary="Get one pin.",
                parameters=(NAME_IN_PATH,),
                response=PinBody,
            ),
            Endpoint(
                method="PUT",
                path="/pins/{name}",
                operation_id="pin_put",
                handler=self.put,
                summary="Hold artifacts of the current config; replaces the pin of that name.",
                parameters=(NAME_IN_PATH,),
                request=PinBody,
                status=204,
            ),
            Endpoint(
                method="DELETE",
                path="/pins/{name}",
                operation_id="pin_delete",
                handler=self.delete,
                summary="Let go of a pin's artifacts.",
                parameters=(NAME_IN_PATH,),
                status=204,
            ),
        )

    async def list(self, _: web.Request) -> web.Response:
        """GET /pins."""
        pins = self._store.pins()
        # A pin can have as many hashes as a config: too long for the event loop.
        return await asyncio.to_thread(lambda: json_reply(pins_body(pins)))

    async def get(self, request: web.Request) -> web.Response:
        """GET /pins/{name}."""
        name, pins = request.match_info["name"], self._store.pins()
        if name not in pins:
            raise NotFound(f"no pin is named {name[:140]!r}")
        return await asyncio.to_thread(lambda: json_reply(pin_body(pins[name])))

    async def put(self, request: web.Request) -> web.Response:
        """PUT /pins/{name}."""
        self._store.require_dataset()
        body = await read_json(request, PinBody)
        artifacts = await asyncio.to_thread(hashes, body.artifacts)
        await self._store.put_pin(request.match_info["name"], artifacts)
        return no_content()

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /pins/{name}."""
        await self._store.delete_pin(request.match_info["name"])
        return no_content()


def pins_body(pins: Mapping[str, Collection[ArtifactHash]]) -> PinsBody:
    """Render every pin."""
    return PinsBody(pins={name: pin_body(held) for name, held in pins.items()})


def pin_body(held: Collection[ArtifactHash]) -> PinBody:
    """Render one pin."""
    return PinBody(artifacts=texts(held))
