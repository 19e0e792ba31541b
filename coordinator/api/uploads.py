"""Endpoints by which releases get in: uploads and imports.

A release can have some ten thousand artifacts, so answers with one are rendered in a thread.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from agent.api.queries import switch
from coordinator.database.releases import Recorded
from coordinator.uploads.desk import UploadDesk
from coordinator.uploads.verifying import Wanted
from coordinator.wire import ReleaseBody, ReleaseImportBody, ReleaseUploadedBody, UploadsBody
from depot.errors import InvalidRequest
from depot.http.body import decoded_length, request_body
from depot.http.openapi import Endpoint, Parameter
from depot.http.replies import json_reply
from depot.http.requests import LIMITS, read_json, send_continue

ZIP_TYPE: Final = "application/zip"
MAX_NAME_LENGTH: Final = 256

FILE_NAME: Final = Parameter(
    name="file_name",
    where="query",
    schema={"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH},
    description="What people call the file.",
)
ALLOW_EXPIRED: Final = Parameter(
    name="allow_expired",
    where="query",
    schema={"type": "boolean"},
    required=False,
    description="Take it though metadata of it has expired; the record says so.",
)
VERSION: Final = Parameter(
    name="version",
    where="query",
    schema={"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH},
    required=False,
    description="Of a release that does not say it itself; of others, what they must say.",
)


class UploadApi:
    """Handlers for uploads and imports; `desk` takes them."""

    def __init__(self, desk: UploadDesk) -> None:
        self._desk = desk

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="PUT",
                path="/v1/releases",
                operation_id="release_upload",
                handler=self.upload,
                summary="Upload a release: a zip of a signed TUF repository.",
                description=(
                    "Idempotent: the same release again is `already_exists`, and brings back "
                    "what was lost of it. With `Expect: 100-continue`, refusals that need no body "
                    "are sent instead of 100."
                ),
                parameters=(FILE_NAME, ALLOW_EXPIRED, VERSION),
                request=ZIP_TYPE,
                response=ReleaseUploadedBody,
            ),
            Endpoint(
                method="POST",
                path="/v1/releases/import",
                operation_id="release_import",
                handler=self.fetch,
                summary="Fetch a release from a TUF repository at an HTTP(S) URL.",
                request=ReleaseImportBody,
                response=ReleaseUploadedBody,
            ),
            Endpoint(
                method="GET",
                path="/v1/uploads",
                operation_id="uploads_get",
                handler=self.running,
                summary="How many uploads and imports run, and whether they get on.",
                response=UploadsBody,
            ),
        )

    async def upload(self, request: web.Request) -> web.Response:
        """PUT /v1/releases."""
        wanted = _wanted(request)
        async with (
            self._desk.admitted(decoded_length(request)) as roots,
            request_body(request, request.app[LIMITS]) as source,
        ):
            await send_continue(request)
            recorded = await self._desk.upload(source, wanted, roots)
        return await asyncio.to_thread(_reply, recorded)

    async def fetch(self, request: web.Request) -> web.Response:
        """POST /v1/releases/import."""
        body = await read_json(request, ReleaseImportBody)
        wanted = Wanted(allow_expired=body.allow_expired, version=body.version)
        async with self._desk.admitted() as roots:
            recorded = await self._desk.fetch(body.url, wanted, roots)
        return await asyncio.to_thread(_reply, recorded)

    async def running(self, _: web.Request) -> web.Response:
        """GET /v1/uploads."""
        desk = self._desk
        return json_reply(UploadsBody(running=desk.running, moved_bytes=desk.moved.count_bytes))


def _reply(recorded: Recorded) -> web.Response:
    return json_reply(
        ReleaseUploadedBody(
            release=ReleaseBody.of(recorded.release),
            status="inserted" if recorded.inserted else "already_exists",
        )
    )


def _wanted(request: web.Request) -> Wanted:
    file_name, version = request.query["file_name"], request.query.get("version")
    for name, text in (("file_name", file_name), ("version", version)):
        if text is not None and not (0 < len(text) <= MAX_NAME_LENGTH and text.isprintable()):
            raise InvalidRequest(
                f"{name}: expected 1 to {MAX_NAME_LENGTH} printable characters, "
                f"found {len(text)}: {text[:40]!r}"
            )
    allow_expired = switch(request.query, "allow_expired")
    return Wanted(file_name=file_name, allow_expired=allow_expired, version=version)
