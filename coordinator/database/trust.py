"""The roots of trust that the operator added."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select

from coordinator.database.tables import trust_roots
from coordinator.database.transaction import Transaction
from coordinator.errors import TooMany, TrustRootNotFound
from coordinator.values import Told, TrustRoot

MAX_TRUST_ROOTS: Final = 1_000
"""An upload is verified by each of them in turn."""


async def add(
    tx: Transaction,
    content: bytes,
    version: int,
    now_s: float,
    *,
    limit: int = MAX_TRUST_ROOTS,
) -> TrustRoot:
    """Add a root.json that was checked to be one; the same content again is the same root.

    Args:
        tx: the transaction.
        content: of the file, as it was sent.
        version: of the root metadata in it.
        now_s: Unix seconds.
        limit: how many there may be.

    Raises:
        TooMany: there are so many.
    """
    root = TrustRoot(hashlib.sha256(content).hexdigest(), version, content, now_s)
    if (known := await _find(tx, root.id)) is not None:
        return known
    row = await tx.first(select(func.count().label("roots")).select_from(trust_roots))
    if row is not None and row.roots >= limit:
        raise TooMany(f"there are {row.roots} roots of trust; remove one that is not needed")
    await tx.write(
        insert(trust_roots).values(id=root.id, version=version, content=content, time_added=now_s)
    )
    await tx.tell(Told("fleet.trust_root_added", data={"root": root.id, "version": version}))
    return root


async def get(tx: Transaction, root_id: str) -> TrustRoot:
    """Raises TrustRootNotFound when there is none of this id."""
    if (root := await _find(tx, root_id)) is None:
        raise TrustRootNotFound(f"no trust root has the id {root_id!r}")
    return root


async def every(tx: Transaction) -> tuple[TrustRoot, ...]:
    """All trust roots, oldest first."""
    found = map(_root, await tx.rows(select(trust_roots)))
    return tuple(sorted(found, key=lambda root: (root.time_added_s, root.id)))


async def remove(tx: Transaction, root_id: str) -> None:
    """Trust a root no longer; releases that it verified stay.

    Raises:
        TrustRootNotFound: there is none of this id.
    """
    if not await tx.write(delete(trust_roots).where(trust_roots.c.id == root_id)):
        raise TrustRootNotFound(f"no trust root has the id {root_id!r}")
    await tx.tell(Told("fleet.trust_root_removed", data={"root": root_id}))


async def _find(tx: Transaction, root_id: str) -> TrustRoot | None:
    row = await tx.first(select(trust_roots).where(trust_roots.c.id == root_id))
    return None if row is None else _root(row)


def _root(row: Row[Any]) -> TrustRoot:
    return TrustRoot(row.id, row.version, bytes(row.content), row.time_added)
