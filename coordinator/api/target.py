"""Endpoints for the release that the fleet is to run."""

from __future__ import annotations

import time

import structlog
from aiohttp import web

from coordinator.database import target
from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.wire import TargetReleaseBody, TargetReleasePutBody
from depot.http.openapi import Endpoint
from depot.http.replies import json_reply
from depot.http.requests import read_json

_log = structlog.get_logger(__name__)


class TargetApi:
    """Handlers for `/v1/target-release`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/v1/target-release",
                operation_id="target_release_get",
                handler=self.get,
                summary="Get the release that the fleet is to run.",
                response=TargetReleaseBody,
            ),
            Endpoint(
                method="PUT",
                path="/v1/target-release",
                operation_id="target_release_put",
                handler=self.put,
                summary="Choose the release that the fleet is to run.",
                request=TargetReleasePutBody,
                response=TargetReleaseBody,
            ),
        )

    async def get(self, _: web.Request) -> web.Response:
        """GET /v1/target-release."""
        return json_reply(TargetReleaseBody(version=await self._database.run(target.read)))

    async def put(self, request: web.Request) -> web.Response:
        """PUT /v1/target-release."""
        version = (await read_json(request, TargetReleasePutBody)).version

        async def choose(tx: Transaction) -> None:
            await target.choose(tx, version, time.time())

        await self._database.run(choose)
        _log.info("target release chosen", version=version)
        return json_reply(TargetReleaseBody(version=version))
