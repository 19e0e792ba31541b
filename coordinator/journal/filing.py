"""Whether entries are found by what they say: a search goes by columns, and a proof by the entry.

Rules kept here:
- The entry alone is hashed. Whoever changes a column beside it, or takes its artifacts out of
  their table, hides it from every search; an export says so, and whoever checks it names the entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import Row, Select, and_, bindparam, func, or_, select

from coordinator.database.journal_tables import journal_artifacts, journal_entries
from coordinator.database.transaction import Transaction
from depot.artifact import ArtifactHash
from depot.errors import InvalidRequest

ARTIFACTS: Final = "artifacts"
LOOKED_UP_AT_ONCE: Final = 100
CONTENT_AT_ONCE: Final = 512 * 1024
"""Characters of entries in one transaction: an entry about a release names all its artifacts, and
has a row for each 67 of them."""
_COLUMNS: Final = (("time", "time"), ("kind", "kind"), ("sled", "sled_id"), ("release", "release"))
"""Each as the entry names it, and as the table does."""

Pair = tuple[ArtifactHash, str]
"""An artifact, and the id of an entry about it."""


async def few(tx: Transaction, shard_id: str, begin: int, limit: int) -> int:
    """Up to which position entries are few enough for one transaction; one entry always is.

    Args:
        tx: the transaction.
        shard_id: whose.
        begin: the position to begin at.
        limit: how many entries at most.
    """
    its = journal_entries.c
    rows = await tx.rows(
        select(its.position, func.length(its.content).label("length"))
        .where(its.shard_id == shard_id, its.position >= begin)
        .order_by(its.position)
        .limit(limit)
    )
    end, length = begin, 0
    for row in rows:
        length += row.length
        if end > begin and length > CONTENT_AT_ONCE:
            break
        end = row.position + 1
    return end


async def misfiled(
    tx: Transaction, shard_id: str, begin: int, end: int
) -> Mapping[int, tuple[str, ...]]:
    """What entries are not found by, although they say it: by the positions that have any."""
    its = journal_entries.c
    where = (its.shard_id == shard_id, its.position >= begin, its.position < end)
    rows = [
        (row, said_in(row.content)) for row in await tx.rows(select(journal_entries).where(*where))
    ]
    kept = await _kept(tx, [pair for row, said in rows for pair in pairs(row.id, said)])
    found = {row.position: tuple(_wrong(row, said, kept)) for row, said in rows}
    return {position: names for position, names in found.items() if names}


def pairs(entry_id: str, said: Mapping[str, Any]) -> Iterator[Pair]:
    """The rows that have to be there for an entry to be found by its artifacts."""
    for sha256 in said.get(ARTIFACTS, ()):
        try:
            yield ArtifactHash.parse(sha256), entry_id
        except InvalidRequest:
            return  # nobody told this: its hash is of something else


def said_in(content: str) -> Mapping[str, Any]:
    """What an entry says; nothing when it is unreadable, which is known by its hash."""
    try:
        said = json.loads(content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _wrong(row: Row[Any], said: Mapping[str, Any], kept: frozenset[Pair]) -> Iterator[str]:
    if not said:
        return
    columns = row._mapping
    yield from (name for name, column in _COLUMNS if said.get(name) != columns[column])
    if not kept.issuperset(pairs(row.id, said)):
        yield ARTIFACTS


async def _kept(tx: Transaction, wanted: Sequence[Pair]) -> frozenset[Pair]:
    found: set[Pair] = set()
    for begin in range(0, len(wanted), LOOKED_UP_AT_ONCE):
        some = wanted[begin : begin + LOOKED_UP_AT_ONCE]
        values: dict[str, object] = {}
        for number, (sha256, entry_id) in enumerate(some):
            values |= {f"sha256_{number}": sha256, f"entry_{number}": entry_id}
        rows = await tx.rows(by_pair(len(some)), values)
        found.update((row.sha256, row.entry_id) for row in rows)
    return frozenset(found)


@cache
def by_pair(count: int) -> Select[Any]:
    """The query for so many pairs."""
    its = journal_artifacts.c
    # The whole key in each: of a list of pairs SQLite makes a search through the whole table.
    each = (
        and_(
            its.sha256 == bindparam(f"sha256_{number}"),
            its.entry_id == bindparam(f"entry_{number}"),
        )
        for number in range(count)
    )
    return select(journal_artifacts).where(or_(*each))
