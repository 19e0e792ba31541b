"""Endpoints for releases: uploads, imports, what is recorded, and the fleet's target.

A release can have some ten thousand artifacts, so answers with one are rendered in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog
from aiohttp import web

from agent.api.queries import number, switch
from coordinator.api.pruning import PruneDesk, Retention
from coordinator.database import releases, target
from coordinator.database.database import Database
from coordinator.database.releases import Recorded
from coordinator.database.transaction import Transaction
from coordinator.uploads.desk import UploadDesk
from coordinator.uploads.verifying import Wanted
from coordinator.wire import (
    KeptReleaseBody,
    PruneBody,
    PrunedBody,
    ReleaseBody,
    ReleaseImportBody,
    ReleasesBody,
    ReleaseUploadedBody,
    TargetReleaseBody,
    TargetReleasePutBody,
)
from depot.errors import InvalidRequest
from depot.http.body import decoded_length, request_body
from depot.http.openapi import Endpoint, Parameter
from depot.http.replies import json_reply, no_content
from depot.http.requests import LIMITS, read_json, send_continue

ZIP_TYPE: Final = "application/zip"
MAX_NAME_LENGTH: Final = 256
MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100

VERSION_IN_PATH: Final = Parameter(name="version", where="path", schema={"type": "string"})
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
PAGE: Final = Parameter(
    name="page",
    where="query",
    schema={"type": "string"},
    required=False,
    description="`next_page` of the answer before.",
)
LIMIT: Final = Parameter(
    name="limit",
    where="query",
    schema={"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
    required=False,
    description=f"At most so many; {DEFAULT_PAGE} by default.",
)


_log = structlog.get_logger(__name__)


class ReleaseApi:
    """Handlers for `/v1/releases` and `/v1/target-release`.

    Args:
        database: of the fleet.
        desk: takes uploads.
        pruning: removes releases that nobody needs.
        retention: how many stay, unless a request says otherwise.
        wake: has the sleds told at once.
    """

    def __init__(
        self,
        database: Database,
        desk: UploadDesk,
        pruning: PruneDesk,
        retention: Retention,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._desk = desk
        self._pruning = pruning
        self._retention = retention
        self._wake = wake

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
                method="POST",
                path="/v1/releases/prune",
                operation_id="release_prune",
                handler=self.prune,
                summary="Forget releases that nobody needs; or say which, with `dry_run`.",
                request=PruneBody,
                response=PrunedBody,
            ),
            Endpoint(
                method="GET",
                path="/v1/releases",
                operation_id="release_list",
                handler=self.list,
                summary="List releases by their versions, a page at a time.",
                parameters=(PAGE, LIMIT),
                response=ReleasesBody,
            ),
            Endpoint(
                method="GET",
                path="/v1/releases/{version}",
                operation_id="release_get",
                handler=self.get,
                summary="Get one release.",
                parameters=(VERSION_IN_PATH,),
                response=ReleaseBody,
            ),
            Endpoint(
                method="DELETE",
                path="/v1/releases/{version}",
                operation_id="release_delete",
                handler=self.delete,
                summary="Forget a release; sleds drop what no other one has.",
                parameters=(VERSION_IN_PATH,),
                status=204,
            ),
            Endpoint(
                method="GET",
                path="/v1/target-release",
                operation_id="target_release_get",
                handler=self.get_target,
                summary="Get the release that the fleet is to run.",
                response=TargetReleaseBody,
            ),
            Endpoint(
                method="PUT",
                path="/v1/target-release",
                operation_id="target_release_put",
                handler=self.put_target,
                summary="Choose the release that the fleet is to run.",
                request=TargetReleasePutBody,
                response=TargetReleaseBody,
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

    async def prune(self, request: web.Request) -> web.Response:
        """POST /v1/releases/prune."""
        body = await read_json(request, PruneBody)
        given = {"previous_targets": body.keep_previous_targets, "newest": body.keep_newest}
        named = {name: count for name, count in given.items() if count is not None}
        pruned = await self._pruning.prune(replace(self._retention, **named), dry_run=body.dry_run)
        kept = tuple(KeptReleaseBody(version=version, why=why) for version, why in pruned.kept)
        return json_reply(PrunedBody(dry_run=body.dry_run, removed=pruned.removed, kept=kept))

    async def list(self, request: web.Request) -> web.Response:
        """GET /v1/releases."""
        after = request.query.get("page")
        limit = number(request.query, "limit", default=DEFAULT_PAGE, least=1, most=MAX_PAGE)
        found, next_page = await self._database.run(lambda tx: releases.page(tx, after, limit))

        def render() -> web.Response:
            items = tuple(map(ReleaseBody.of, found))
            return json_reply(ReleasesBody(items=items, next_page=next_page))

        return await asyncio.to_thread(render)

    async def get(self, request: web.Request) -> web.Response:
        """GET /v1/releases/{version}."""
        version = request.match_info["version"]
        found = await self._database.run(lambda tx: releases.get(tx, version))
        return await asyncio.to_thread(lambda: json_reply(ReleaseBody.of(found)))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /v1/releases/{version}."""
        version = request.match_info["version"]
        await self._database.run(lambda tx: releases.remove(tx, version))
        _log.info("release removed", version=version)
        self._wake()
        return no_content()

    async def get_target(self, _: web.Request) -> web.Response:
        """GET /v1/target-release."""
        return json_reply(TargetReleaseBody(version=await self._database.run(target.read)))

    async def put_target(self, request: web.Request) -> web.Response:
        """PUT /v1/target-release."""
        version = (await read_json(request, TargetReleasePutBody)).version

        async def choose(tx: Transaction) -> None:
            await target.choose(tx, version, time.time())

        await self._database.run(choose)
        _log.info("target release chosen", version=version)
        return json_reply(TargetReleaseBody(version=version))


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
