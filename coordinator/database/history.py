"""The last requests to sleds, of all coordinators, in the order they were recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, func, insert, select

from coordinator.database.tables import requests
from coordinator.database.texts import shortened
from coordinator.database.transaction import Transaction
from coordinator.values import MAX_HISTORY, RequestRecord
from depot.artifact import ArtifactHash, Generation


async def append(tx: Transaction, records: Sequence[RequestRecord]) -> None:
    """Record requests, and forget the oldest beyond `MAX_HISTORY`."""
    if not records:
        return
    row = await tx.first(select(func.max(requests.c.sequence).label("last")))
    last = 0 if row is None or row.last is None else row.last
    newest = records[-MAX_HISTORY:]
    await tx.write(
        insert(requests),
        [
            {"sequence": sequence, **_columns(record)}
            for sequence, record in enumerate(newest, last + 1)
        ],
    )
    oldest = last + len(newest) - MAX_HISTORY
    await tx.write(delete(requests).where(requests.c.sequence <= oldest))


async def read(
    tx: Transaction,
    *,
    artifact: ArtifactHash | None = None,
    sled_id: str | None = None,
    limit: int = MAX_HISTORY,
) -> tuple[RequestRecord, ...]:
    """The requests that are kept, newest first; those about one artifact, or to one sled."""
    query = select(requests).order_by(requests.c.sequence.desc()).limit(limit)
    if artifact is not None:
        query = query.where(requests.c.artifact == artifact)
    if sled_id is not None:
        query = query.where(requests.c.sled_id == sled_id)
    return tuple(_record(row) for row in await tx.rows(query))


def _columns(record: RequestRecord) -> dict[str, Any]:
    return {
        "time": record.time_s,
        "sled_id": record.sled_id,
        "operation": record.operation,
        "generation": None if record.generation is None else int(record.generation),
        "artifact": record.artifact,
        "source": record.source,
        "error": shortened(record.error),
    }


def _record(row: Row[Any]) -> RequestRecord:
    return RequestRecord(
        time_s=row.time,
        sled_id=row.sled_id,
        operation=row.operation,
        generation=None if row.generation is None else Generation(row.generation),
        artifact=row.artifact,
        source=row.source,
        error=row.error,
    )
