"""Endpoints for snapshots that the sleds hold: `fleet+http://` of `depot snapshot`."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

from aiohttp import web

from agent.snapshots.errors import InvalidArchive, Malformed
from agent.snapshots.fleet_wire import (
    SnapshotBody,
    SnapshotNameBody,
    SnapshotsBody,
    SnapshotVersionBody,
)
from agent.snapshots.values import Metadata, snapshot_name
from agent.wire.fields import timestamp
from coordinator.api.ids import IdInPath
from coordinator.database import sleds, snapshots
from coordinator.database.database import Database
from coordinator.replication.cycle import Cycle
from coordinator.uploads.desk import UploadDesk
from coordinator.uploads.snapshots import Announced, SnapshotDesk
from coordinator.values import FleetSnapshot, Sled
from depot.artifact import ArtifactHash
from depot.errors import InvalidRequest
from depot.http.body import decoded_length, request_body
from depot.http.openapi import OCTETS, Endpoint, Parameter
from depot.http.replies import json_reply, no_content
from depot.http.requests import LIMITS, send_continue

MAX_DEPOTS: Final = 32

NAME: Final = IdInPath(
    "name",
    "^[A-Za-z0-9_][A-Za-z0-9._/-]{0,511}$",
    "a name of letters, digits, '.', '_', '-' and '/'",
)
VERSION: Final = IdInPath(
    "version",
    "^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$",
    "a version of letters, digits, '.', '_' and '-'",
)


def _said(name: str, description: str, *, required: bool = False) -> Parameter:
    return Parameter(
        name=name,
        where="query",
        schema={"type": "string", "maxLength": 100},
        required=required,
        description=description,
    )


_METADATA: Final = (
    _said("checksum", "SHA-256 of the snapshot itself, base64.", required=True),
    _said("size", "Of the snapshot itself, in bytes.", required=True),
    _said("created", "When it was published, ISO 8601."),
    _said("compression", "`zstd` if the body is compressed; it stays so."),
)


class SnapshotApi:
    """Handlers for `/v1/snapshots`."""

    def __init__(
        self, database: Database, uploads: UploadDesk, desk: SnapshotDesk, cycle: Cycle
    ) -> None:
        self._database = database
        self._uploads = uploads
        self._desk = desk
        self._cycle = cycle
        self._shuffle: Callable[[list[str]], None] = random.Random().shuffle

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/v1/snapshots",
                operation_id="snapshot_list",
                handler=self.list,
                summary="List every snapshot that the sleds hold.",
                response=SnapshotsBody,
            ),
            Endpoint(
                method="GET",
                path="/v1/snapshots/{name}",
                operation_id="snapshot_get",
                handler=self.get,
                summary="Get the versions of a snapshot, and which depots to fetch them from.",
                description="A slash in a name is sent as %2F.",
                parameters=(NAME.parameter,),
                response=SnapshotBody,
            ),
            Endpoint(
                method="DELETE",
                path="/v1/snapshots/{name}",
                operation_id="snapshot_delete",
                handler=self.delete_every,
                summary="Forget a snapshot with all its versions; sleds drop them.",
                parameters=(NAME.parameter,),
                status=204,
            ),
            Endpoint(
                method="PUT",
                path="/v1/snapshots/{name}/{version}",
                operation_id="snapshot_upload",
                handler=self.upload,
                summary="Upload a version of a snapshot, as the newest; every sled will hold it.",
                description=(
                    "It is recorded only if the body, decompressed, has this checksum and size. "
                    "Idempotent. With `Expect: 100-continue`, refusals that need no body are sent "
                    "instead of 100."
                ),
                parameters=(NAME.parameter, VERSION.parameter, *_METADATA),
                request=OCTETS,
                response=SnapshotVersionBody,
            ),
            Endpoint(
                method="DELETE",
                path="/v1/snapshots/{name}/{version}",
                operation_id="snapshot_version_delete",
                handler=self.delete,
                summary="Forget a version that is not the newest; sleds drop it.",
                parameters=(NAME.parameter, VERSION.parameter),
                status=204,
            ),
        )

    async def list(self, _: web.Request) -> web.Response:
        """GET /v1/snapshots."""
        found = await self._database.run(snapshots.every)
        return json_reply(SnapshotsBody(items=tuple(_by_name(found))))

    async def get(self, request: web.Request) -> web.Response:
        """GET /v1/snapshots/{name}."""
        name = _name(request)
        found = await self._database.run(snapshots.existing, name)
        in_service = await self._database.run(sleds.in_service)
        depots = depots_of(in_service, self._holders(found[0].sha256), self._shuffle)
        items = tuple(map(_version_body, found))
        return json_reply(SnapshotBody(name=name, items=items, depots=tuple(depots)))

    async def upload(self, request: web.Request) -> web.Response:
        """PUT /v1/snapshots/{name}/{version}."""
        announced = _announced(request)
        async with (
            self._uploads.placed(decoded_length(request)),
            request_body(request, request.app[LIMITS]) as source,
        ):
            await send_continue(request)
            recorded = await self._desk.take(source, announced)
        return json_reply(_version_body(recorded))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /v1/snapshots/{name}/{version}."""
        await self._desk.remove(_name(request), VERSION.of(request))
        return no_content()

    async def delete_every(self, request: web.Request) -> web.Response:
        """DELETE /v1/snapshots/{name}."""
        await self._desk.remove_every(_name(request))
        return no_content()

    def _holders(self, artifact: ArtifactHash) -> set[str]:
        """Sleds that hold it, as far as this coordinator knows."""
        inventory = self._cycle.reporting.current().inventory
        seen = () if inventory is None else inventory.sleds
        came: Mapping[str, Collection[ArtifactHash]] = self._cycle.came()
        return {sled.id for sled in seen if artifact in sled.held} | {
            sled_id for sled_id, its in came.items() if artifact in its
        }


def depots_of(
    in_service: Iterable[Sled], holders: Collection[str], shuffle: Callable[[list[str]], None]
) -> list[str]:
    """Say where to fetch from: at most MAX_DEPOTS, holders first, shuffled for the load's sake."""
    having: list[str] = []
    others: list[str] = []
    for sled in in_service:
        (having if sled.id in holders else others).append(sled.depot_url)
    shuffle(having)
    shuffle(others)
    return [*having, *others][:MAX_DEPOTS]


def _name(request: web.Request) -> str:
    try:
        return snapshot_name(NAME.of(request))
    except InvalidArchive as error:
        raise InvalidRequest(f"name: {error}") from None


def _announced(request: web.Request) -> Announced:
    name, version = _name(request), VERSION.of(request)
    try:
        said = Metadata.parse({**request.query, "version": version})
    except Malformed as error:
        raise InvalidRequest(str(error)) from None
    if said.checksum is None or said.size_bytes is None:
        raise InvalidRequest("checksum, size: expected both, found one to be empty")
    return Announced(name, version, said, said.checksum, said.size_bytes)


def _version_body(snapshot: FleetSnapshot) -> SnapshotVersionBody:
    return SnapshotVersionBody(
        version=snapshot.version,
        sha256=str(snapshot.sha256),
        stored_bytes=snapshot.size_bytes,
        time_created=timestamp(snapshot.time_created_s),
        metadata=dict(snapshot.said),
    )


def _by_name(found: Sequence[FleetSnapshot]) -> Iterable[SnapshotNameBody]:
    # Newest first, and sorting keeps that order within each name.
    for name, its in groupby(sorted(found, key=lambda each: each.name), lambda each: each.name):
        versions = list(its)
        yield SnapshotNameBody(
            name=name,
            versions=len(versions),
            stored_bytes=sum(each.size_bytes for each in versions),
            newest=_version_body(versions[0]),
        )
