"""Endpoints for the artifact config: what this sled is to hold."""

from __future__ import annotations

import asyncio

from aiohttp import web

from agent.api.long_bodies import parse_config, render_config
from agent.api.verbs import Store
from agent.wire.config import ArtifactConfigBody, ConfigResetBody
from depot.artifact import Generation
from depot.http.openapi import Endpoint
from depot.http.problems import JSON_TYPE
from depot.http.replies import no_content
from depot.http.requests import read_json, read_json_content


class ConfigApi:
    """Handlers for `/artifacts-config`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/artifacts-config",
                operation_id="artifact_config_get",
                handler=self.get,
                summary="Get the artifact config.",
                response=ArtifactConfigBody,
            ),
            Endpoint(
                method="PUT",
                path="/artifacts-config",
                operation_id="artifact_config_put",
                handler=self.put,
                summary="Set the artifact config; its generation may only rise.",
                request=ArtifactConfigBody,
                status=204,
            ),
            Endpoint(
                method="POST",
                path="/artifacts-config/reset",
                operation_id="artifact_config_reset",
                handler=self.reset,
                summary="Forget the artifact config and its generation; nothing is deleted.",
                request=ConfigResetBody,
                status=204,
            ),
        )

    async def get(self, _: web.Request) -> web.Response:
        """GET /artifacts-config."""
        config = self._store.config()
        content = await asyncio.to_thread(render_config, config)
        return web.Response(body=content, content_type=JSON_TYPE)

    async def put(self, request: web.Request) -> web.Response:
        """PUT /artifacts-config."""
        self._store.require_dataset()
        content = await read_json_content(request)
        config = await asyncio.to_thread(parse_config, content)
        await self._store.put_config(config)
        return no_content()

    async def reset(self, request: web.Request) -> web.Response:
        """POST /artifacts-config/reset."""
        self._store.require_dataset()
        body = await read_json(request, ConfigResetBody)
        await self._store.reset(Generation(body.expected_generation))
        return no_content()
