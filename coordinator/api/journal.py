"""Endpoints for the journal: what happened, proofs of it, and its shards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from aiohttp import web
from multidict import MultiDict

from agent.api.queries import number
from agent.wire.fields import timestamp
from coordinator.journal.journal import Journal
from coordinator.journal.values import Entry, Rotation, Shard, SignedCheckpoint, Wanted
from coordinator.journal_wire import (
    CheckpointBody,
    DropBody,
    EntriesBody,
    EntryBody,
    GrowthBody,
    ProofBody,
    RotateBody,
    RotationBody,
    ShardBody,
    ShardsBody,
)
from depot.errors import InvalidRequest
from depot.http.openapi import Endpoint, Parameter
from depot.http.replies import json_reply
from depot.http.requests import read_json

MAX_PAGE: Final = 1000
LINES_TYPE: Final = "application/jsonl"
LINES_AT_ONCE: Final = 500
DEFAULT_PAGE: Final = 100
MAX_INDEX: Final = 2**62
_ARTIFACT: Final = re.compile(r"[0-9a-fA-F]{8,64}", re.ASCII)

_INDEX_SCHEMA: Final = {"type": "integer", "minimum": 0, "maximum": MAX_INDEX}
INDEX_IN_PATH: Final = Parameter(name="index", where="path", schema=_INDEX_SCHEMA)
SHARD_IN_PATH: Final = Parameter(name="shard_id", where="path", schema={"type": "string"})


def _asked(name: str, description: str, schema: dict[str, object] | None = None) -> Parameter:
    its = {"type": "string"} if schema is None else schema
    return Parameter(name=name, where="query", schema=its, required=False, description=description)


START: Final = _asked(
    "start", "The first index that may be among them; 0 by default.", _INDEX_SCHEMA
)
LIMIT: Final = _asked(
    "limit",
    f"At most so many; {DEFAULT_PAGE} by default.",
    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
)
FILTERS: Final = (
    _asked("artifact", "Only about this artifact; its first 8 characters do, or more of them."),
    _asked("sled", "Only about this sled."),
    _asked("release", "Only about this release."),
    _asked("kind", "Only of kinds that begin with this."),
    _asked("since", "Not before this Unix time, seconds.", _INDEX_SCHEMA),
)
SHARD: Final = _asked("shard", "Only this one.")
SIZE: Final = _asked(
    "size",
    "Prove it for the tree of this size; by default for the last checkpoint's.",
    _INDEX_SCHEMA,
)
FIRST: Final = Parameter(name="first", where="query", schema=_INDEX_SCHEMA)
SECOND: Final = _asked("second", "By default its size now.", _INDEX_SCHEMA)


class JournalApi:
    """Handlers for `/v1/journal`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (*self._of_shards(), *self._of_entries())

    def _of_shards(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                method="GET",
                path="/v1/journal/checkpoint",
                operation_id="journal_checkpoint",
                handler=self.checkpoint,
                summary="How the active shard is now, signed.",
                response=CheckpointBody,
            ),
            Endpoint(
                method="GET",
                path="/v1/journal/export",
                operation_id="journal_export",
                handler=self.export,
                summary="Everything, or one shard: a record on each line, which prove each other.",
                parameters=(SHARD,),
                response=LINES_TYPE,
            ),
            Endpoint(
                method="GET",
                path="/v1/journal/shards",
                operation_id="journal_shards",
                handler=self.shards,
                summary="List every shard of the journal, the oldest first.",
                response=ShardsBody,
            ),
            Endpoint(
                method="GET",
                path="/v1/journal/shards/{shard_id}/growth",
                operation_id="journal_growth",
                handler=self.growth,
                summary="Prove that a shard was only appended to since it had `first` entries.",
                parameters=(SHARD_IN_PATH, FIRST, SECOND),
                response=GrowthBody,
            ),
            Endpoint(
                method="POST",
                path="/v1/journal/shards/{shard_id}/drop",
                operation_id="journal_drop",
                handler=self.drop,
                summary="Drop the entries of a sealed shard, of which there is a verified export.",
                parameters=(SHARD_IN_PATH,),
                request=DropBody,
                response=ShardBody,
            ),
            Endpoint(
                method="POST",
                path="/v1/journal/rotate",
                operation_id="journal_rotate",
                handler=self.rotate,
                summary="Seal the active shard and go on with a new one, or undo that.",
                request=RotateBody,
                response=RotationBody,
            ),
        )

    def _of_entries(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                method="GET",
                path="/v1/journal",
                operation_id="journal_list",
                handler=self.list,
                summary="List what happened, in the order of the journal.",
                parameters=(START, LIMIT, *FILTERS),
                response=EntriesBody,
            ),
            Endpoint(
                method="GET",
                path="/v1/journal/{index}",
                operation_id="journal_get",
                handler=self.get,
                summary="Get one entry.",
                parameters=(INDEX_IN_PATH,),
                response=EntryBody,
            ),
            Endpoint(
                method="GET",
                path="/v1/journal/{index}/proof",
                operation_id="journal_proof",
                handler=self.proof,
                summary="Get one entry, and the proof that it is in its shard.",
                parameters=(INDEX_IN_PATH, SIZE),
                response=ProofBody,
            ),
        )

    async def list(self, request: web.Request) -> web.Response:
        """GET /v1/journal."""
        start = number(request.query, "start", default=0, most=MAX_INDEX)
        limit = number(request.query, "limit", default=DEFAULT_PAGE, least=1, most=MAX_PAGE)
        found = await self._journal.entries(start, limit, _wanted(request))
        following = found[-1].index + 1 if len(found) == limit else None
        return json_reply(EntriesBody(items=tuple(map(_entry, found)), next_start=following))

    async def get(self, request: web.Request) -> web.Response:
        """GET /v1/journal/{index}."""
        return json_reply(_entry(await self._journal.entry(_index(request))))

    async def proof(self, request: web.Request) -> web.Response:
        """GET /v1/journal/{index}/proof."""
        size = number(request.query, "size", default=0, most=MAX_INDEX)
        found = await self._journal.proof(_index(request), size or None)
        return json_reply(
            ProofBody(
                entry=_entry(found.entry),
                tree_size=found.size,
                hashes=_hex(found.hashes),
                checkpoint=_checkpoint(found.shard, found.checkpoint),
            )
        )

    async def checkpoint(self, _: web.Request) -> web.Response:
        """GET /v1/journal/checkpoint."""
        return json_reply(_checkpoint(*await self._journal.checkpoint()))

    async def export(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/journal/export."""
        records = self._journal.export(request.query.get("shard"))
        first = await anext(records)  # a refusal is to be one
        response = web.StreamResponse(headers={"Content-Type": LINES_TYPE})
        await response.prepare(request)
        lines = [_record(first)]
        async for record in records:
            lines.append(_record(record))
            if len(lines) >= LINES_AT_ONCE:
                await response.write(b"".join(lines))
                lines.clear()
        await response.write(b"".join(lines))
        await response.write_eof()
        return response

    async def shards(self, _: web.Request) -> web.Response:
        """GET /v1/journal/shards."""
        return json_reply(ShardsBody(items=tuple(map(_shard, await self._journal.shards()))))

    async def growth(self, request: web.Request) -> web.Response:
        """GET /v1/journal/shards/{shard_id}/growth."""
        first = number(request.query, "first", default=0, most=MAX_INDEX)
        second = number(request.query, "second", default=MAX_INDEX, most=MAX_INDEX)
        found = await self._journal.growth(
            request.match_info["shard_id"], first, None if second == MAX_INDEX else second
        )
        return json_reply(
            GrowthBody(
                shard=found.shard.id,
                first=found.first,
                second=found.second,
                hashes=_hex(found.hashes),
            )
        )

    async def drop(self, request: web.Request) -> web.Response:
        """POST /v1/journal/shards/{shard_id}/drop."""
        body = await read_json(request, DropBody)
        return json_reply(
            _shard(
                await self._journal.drop(
                    request.match_info["shard_id"], body.size, bytes.fromhex(body.root_hash)
                )
            )
        )

    async def rotate(self, request: web.Request) -> web.Response:
        """POST /v1/journal/rotate."""
        body = await read_json(request, RotateBody)
        if body.undo and (body.ending is not None or body.lost_key):
            name = "lost_key" if body.ending is None else "ending"
            raise InvalidRequest(f"{name}: expected without `undo`, which is about the newest one")
        made = (
            await self._journal.undo_rotation()
            if body.undo
            else await self._journal.rotate(body.ending, lost_key=body.lost_key)
        )
        return json_reply(_rotation(made))


def _record(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _wanted(request: web.Request) -> Wanted:
    query = request.query
    since = number(query, "since", default=0, most=MAX_INDEX)
    return Wanted(
        artifact=_artifact(query.get("artifact")),
        sled_id=query.get("sled"),
        release=query.get("release"),
        kind=query.get("kind"),
        since_s=float(since) if since else None,
    )


def _artifact(asked: str | None) -> str | None:
    if asked is not None and not _ARTIFACT.fullmatch(asked):
        raise InvalidRequest("artifact: expected 8 to 64 hex characters")
    return asked


def _index(request: web.Request) -> int:
    return number(MultiDict(request.match_info), "index", default=0, most=MAX_INDEX)


def _entry(entry: Entry) -> EntryBody:
    return EntryBody(
        index=entry.index,
        id=entry.id,
        time=timestamp(entry.time_s),
        kind=entry.kind,
        shard=entry.shard_id,
        position=entry.position,
        content=entry.content,
        leaf_hash=entry.leaf.hex() or None,
    )


def _shard(shard: Shard) -> ShardBody:
    return ShardBody(
        id=shard.id,
        state=shard.state.value,
        first_index=shard.first_index,
        size=shard.size,
        root_hash=shard.edge.root.hex(),
        verifier_key=str(shard.key),
        created_at=timestamp(shard.created_s),
        sealed_at=timestamp(shard.sealed_s),
        dropped_at=timestamp(shard.dropped_s),
    )


def _checkpoint(shard: Shard, checkpoint: SignedCheckpoint) -> CheckpointBody:
    return CheckpointBody(
        shard=shard.id,
        first_index=shard.first_index,
        size=checkpoint.size,
        note=checkpoint.note,
        verifier_key=str(shard.key),
    )


def _rotation(made: Rotation) -> RotationBody:
    sealed = None if made.sealed is None else _shard(made.sealed)
    return RotationBody(done=made.done, active=_shard(made.active), sealed=sealed)


def _hex(hashes: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(each.hex() for each in hashes)
