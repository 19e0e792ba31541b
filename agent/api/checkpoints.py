"""Endpoints for the checkpoints of the fleet's journal that this sled keeps."""

from __future__ import annotations

from aiohttp import web

from agent.checkpoints import CheckpointBook
from agent.wire.checkpoints import CheckpointNoteBody, CheckpointNotesBody
from depot.errors import Io
from depot.http.openapi import Endpoint
from depot.http.replies import json_reply, no_content
from depot.http.requests import read_json


class CheckpointApi:
    """Handlers for `/checkpoints`."""

    def __init__(self, book: CheckpointBook) -> None:
        self._book = book

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/checkpoints",
                operation_id="checkpoint_list",
                handler=self.list,
                summary="List the checkpoints of the fleet's journal that are kept here.",
                response=CheckpointNotesBody,
            ),
            Endpoint(
                method="PUT",
                path="/checkpoints",
                operation_id="checkpoint_put",
                handler=self.put,
                summary="Keep a checkpoint; refused when it contradicts one that is kept.",
                request=CheckpointNoteBody,
                status=204,
            ),
        )

    async def list(self, _: web.Request) -> web.Response:
        """GET /checkpoints."""
        return json_reply(CheckpointNotesBody(notes=self._book.notes()))

    async def put(self, request: web.Request) -> web.Response:
        """PUT /checkpoints."""
        body = await read_json(request, CheckpointNoteBody)
        try:
            await self._book.take(body.note)
        except OSError as error:
            raise Io(f"the checkpoint cannot be kept: {error.strerror}") from error
        return no_content()
