"""Endpoints for the background verification of every copy."""

from __future__ import annotations

from aiohttp import web

from agent.api.verbs import Store
from agent.scrubbing import scrub_body
from agent.wire.scrub import ScrubBody, ScrubPauseBody
from depot.http.openapi import Endpoint
from depot.http.replies import json_reply
from depot.http.requests import read_json


class ScrubApi:
    """Handlers for `/scrub`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/scrub",
                operation_id="scrub_get",
                handler=self.get,
                summary="Say how the background verification is.",
                response=ScrubBody,
            ),
            Endpoint(
                method="POST",
                path="/scrub",
                operation_id="scrub_start",
                handler=self.start,
                summary="Verify every copy from now on, as fast as is allowed.",
                description=(
                    "Joins such a pass when one runs already, and ends a pause. A dataset that is "
                    "away is verified when it is back."
                ),
                response=ScrubBody,
                status=202,
            ),
            Endpoint(
                method="POST",
                path="/scrub/pause",
                operation_id="scrub_pause",
                handler=self.pause,
                summary="Verify nothing in the background for some time, also across restarts.",
                request=ScrubPauseBody,
                response=ScrubBody,
            ),
            Endpoint(
                method="POST",
                path="/scrub/resume",
                operation_id="scrub_resume",
                handler=self.resume,
                summary="End a pause.",
                response=ScrubBody,
            ),
        )

    async def get(self, _: web.Request) -> web.Response:
        """GET /scrub."""
        return self._reply()

    async def start(self, _: web.Request) -> web.Response:
        """POST /scrub."""
        self._store.require_dataset()
        await self._store.start_scrub()
        return self._reply(status=202)

    async def pause(self, request: web.Request) -> web.Response:
        """POST /scrub/pause."""
        body = await read_json(request, ScrubPauseBody)
        await self._store.pause_scrub(body.seconds)
        return self._reply()

    async def resume(self, _: web.Request) -> web.Response:
        """POST /scrub/resume."""
        await self._store.resume_scrub()
        return self._reply()

    def _reply(self, status: int = 200) -> web.Response:
        return json_reply(scrub_body(self._store.scrub_status()), status=status)
