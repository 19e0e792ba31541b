"""Entries and proofs, read of the database: a proof takes the rows of its hashes and no more."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from sqlalchemy import (
    LABEL_STYLE_TABLENAME_PLUS_COL,
    ColumnElement,
    Row,
    Select,
    and_,
    bindparam,
    func,
    or_,
    select,
)

from coordinator.database.journal_tables import (
    journal_artifacts,
    journal_checkpoints,
    journal_entries,
    journal_nodes,
    journal_shards,
)
from coordinator.database.transaction import Transaction
from coordinator.errors import EntryNotFound, ShardDropped
from coordinator.journal import checkpointing, shards
from coordinator.journal.tree import (
    Node,
    Path,
    consistency_path,
    hashes_along,
    inclusion_path,
    needed,
)
from coordinator.journal.values import EVERYTHING, Entry, Growth, Proof, Shard, Wanted
from depot.artifact import ArtifactHash
from depot.errors import InvalidRequest

_INDEX: Final = journal_shards.c.first_index + journal_entries.c.position
_LEAF: Final = and_(
    journal_nodes.c.shard_id == journal_entries.c.shard_id,
    journal_nodes.c.level == 0,
    journal_nodes.c.position == journal_entries.c.position,
)


async def page(
    tx: Transaction, start: int, limit: int, wanted: Wanted = EVERYTHING
) -> tuple[Entry, ...]:
    """Entries in the order of their indices.

    Args:
        tx: the transaction.
        start: the first index that may be among them.
        limit: how many at most.
        wanted: which.
    """
    if wanted != EVERYTHING:
        return await _found(tx, start, limit, wanted)
    found: list[Entry] = []
    for shard in await shards.every(tx):
        missing = limit - len(found)
        if missing and shard.end_index > start and shard.dropped_s is None:
            found += await of_shard(tx, shard, start - shard.first_index, missing)
    return tuple(found)


async def _found(tx: Transaction, start: int, limit: int, wanted: Wanted) -> tuple[Entry, ...]:
    order = (journal_shards.c.ordinal, journal_entries.c.position)
    # Not by the index that is computed: a later page would go through all those before it.
    begin = journal_entries.c.position >= start - journal_shards.c.first_index
    query = _entries().where(begin, *_conditions(wanted)).order_by(*order).limit(limit)
    return tuple(map(_entry, await tx.rows(query)))


async def of_shard(tx: Transaction, shard: Shard, begin: int, limit: int) -> list[Entry]:
    """Entries of one shard, from a position on."""
    its = journal_entries.c
    query = _entries().where(its.shard_id == shard.id, its.position >= begin)
    return list(map(_entry, await tx.rows(query.order_by(its.position).limit(limit))))


async def entry(tx: Transaction, shard: Shard, index: int) -> Entry:
    """The entry at an index, which is in this shard.

    Raises:
        ShardDropped: it is in an export.
        EntryNotFound: it was here, and is not any more: somebody has changed the database.
    """
    require_kept(shard)
    row = await tx.first(_ENTRY, {"shard": shard.id, "position": index - shard.first_index})
    return _entry_at(row, index)


async def proof(tx: Transaction, index: int, size: int | None) -> Proof | None:
    """An entry, and what proves that it is in its shard; None when no checkpoint covers it yet.

    Args:
        tx: the transaction.
        index: in the journal.
        size: prove it for a shard of this size; None: for that of its last checkpoint.

    Raises:
        EntryNotFound, ShardDropped.
        InvalidRequest: the entry is not in the shard of this size.
    """
    # In one query: what is asked one after the other is most of what a proof takes.
    row = await tx.first(_PROVED, {"index": index})
    shard = shards.of_index(row, index)
    require_kept(shard)
    assert row is not None, "it has the shard"
    signed = row._mapping[journal_checkpoints.c.size] is not None
    checkpoint = checkpointing.of_row(row) if signed else None
    position = index - shard.first_index
    if checkpoint is None or checkpoint.size <= position:
        return None
    wanted = checkpoint.size if size is None else size
    if not position < wanted <= shard.size:
        raise InvalidRequest(f"entry {index} is not in shard {shard.id} of size {wanted}")
    found = _entry_at(row, index)
    hashes = await along(tx, shard, inclusion_path(position, wanted))
    return Proof(found, shard, wanted, hashes, checkpoint)


async def along(tx: Transaction, shard: Shard, path: Path) -> tuple[bytes, ...]:
    """The hashes of a proof.

    Raises:
        EntryNotFound: one of them is missing.
    """
    require_kept(shard)
    wanted = list(needed(path))
    if not wanted:
        return ()
    values: dict[str, object] = {"shard": shard.id}
    for number, (level, position) in enumerate(wanted):
        values |= {f"level{number}": level, f"position{number}": position}
    found = await tx.rows(_hashes(len(wanted)), values)
    kept = {Node(row.level, row.position): bytes(row.hash) for row in found}
    try:
        return hashes_along(path, kept)
    except KeyError as missing:
        raise EntryNotFound(
            f"the hash of {missing} is missing from shard {shard.id}; verify the journal"
        ) from None


async def growth(tx: Transaction, shard_id: str, first: int, second: int | None) -> Growth:
    """What proves that a shard was only appended to since it had `first` entries.

    Raises:
        EntryNotFound, ShardDropped: there is no such shard, or not any more.
        InvalidRequest: it never had so many.
    """
    shard = await shards.get(tx, shard_id)
    second = shard.size if second is None else second
    if not 0 <= first <= second <= shard.size:
        raise InvalidRequest(
            f"shard {shard_id} has {shard.size} entries: no proof leads from {first} to {second}"
        )
    hashes = await along(tx, shard, consistency_path(first, second))
    return Growth(shard, first, second, hashes)


def require_kept(shard: Shard) -> None:
    """Raises ShardDropped when the entries of a shard are in an export only."""
    if shard.dropped_s is not None:
        raise ShardDropped(
            f"shard {shard.id} was exported and dropped: the export has entries "
            f"{shard.first_index} to {shard.end_index - 1}"
        )


def _entries() -> Select[Any]:
    its = journal_entries.c
    return (
        select(journal_entries, _INDEX.label("at"), journal_nodes.c.hash)
        .join(journal_shards, journal_shards.c.id == its.shard_id)
        .outerjoin(journal_nodes, _LEAF)
    )


@cache
def _hashes(count: int) -> Select[Any]:
    """So many hashes of one shard, each by its place.

    Most of what a proof took was making this anew. There are as many as trees are high, twice.
    """
    its = journal_nodes.c
    # The whole key in each: else SQLite goes through all hashes of the shard.
    each = (
        and_(
            its.shard_id == bindparam("shard"),
            its.level == bindparam(f"level{number}"),
            its.position == bindparam(f"position{number}"),
        )
        for number in range(count)
    )
    return select(its.level, its.position, its.hash).where(or_(*each))


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    its = journal_entries.c
    # What is left of a dropped shard is being deleted.
    found: list[ColumnElement[bool]] = [journal_shards.c.time_dropped.is_(None)]
    if wanted.artifact is not None:
        first, last = (ArtifactHash.parse(wanted.artifact.ljust(64, digit)) for digit in "0f")
        about = select(journal_artifacts.c.entry_id).where(
            journal_artifacts.c.sha256.between(first, last)
        )
        found.append(its.id.in_(about))
    if wanted.sled_id is not None:
        found.append(its.sled_id == wanted.sled_id)
    if wanted.release is not None:
        found.append(its.release == wanted.release)
    if wanted.kind is not None:
        found.append(its.kind.startswith(wanted.kind, autoescape=True))
    if wanted.since_s is not None:
        found.append(its.time >= wanted.since_s)
    return found


def _proved() -> Select[Any]:
    """The shard that has an index, its last checkpoint, and the entry: what a proof begins with."""
    shard, entries, signed = journal_shards.c, journal_entries.c, journal_checkpoints.c
    known = journal_checkpoints.alias("known").c
    last = select(func.max(known.size)).where(known.shard_id == shard.id).scalar_subquery()
    each = select(
        journal_shards,
        journal_checkpoints,
        journal_entries,
        _INDEX.label("at"),
        journal_nodes.c.hash,
    )
    joined = (
        each.select_from(journal_shards)
        .outerjoin(
            journal_checkpoints,
            and_(signed.shard_id == shard.id, signed.size == last),
        )
        .outerjoin(
            journal_entries,
            and_(
                entries.shard_id == shard.id,
                entries.position == bindparam("index") - shard.first_index,
            ),
        )
        .outerjoin(journal_nodes, _LEAF)
    )
    return shards.begun(joined).set_label_style(LABEL_STYLE_TABLENAME_PLUS_COL)


_ENTRY: Final = _entries().where(
    journal_entries.c.shard_id == bindparam("shard"),
    journal_entries.c.position == bindparam("position"),
)
_PROVED: Final = _proved()


def _entry_at(row: Row[Any] | None, index: int) -> Entry:
    if row is None or row._mapping[journal_entries.c.id] is None:
        raise EntryNotFound(f"entry {index} is missing from the database; verify the journal")
    return _entry(row)


def _entry(row: Row[Any]) -> Entry:
    # By column: other tables in the same row have columns of these names.
    of, its = row._mapping, journal_entries.c
    leaf = of[journal_nodes.c.hash]
    return Entry(
        index=of["at"],
        id=of[its.id],
        shard_id=of[its.shard_id],
        position=of[its.position],
        time_s=of[its.time],
        kind=of[its.kind],
        content=of[its.content],
        leaf=b"" if leaf is None else bytes(leaf),
    )
