"""An export proves its entries with nothing but the public keys, also when nobody else has them."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.database.database import Database
from coordinator.journal.checkpoints import opened
from coordinator.journal.journal import Journal
from coordinator.journal.notes import BadNote, SignerKey
from coordinator.journal.proofs import BadProof, verify_inclusion
from coordinator.journal.proving import Proved, Prover
from coordinator.journal.tree import leaf_hash
from coordinator.journal.values import Shard
from tests.coordinator.journal.telling import tell

Records = list[dict[str, Any]]


@pytest.fixture
async def sealed(journal: Journal, database: Database) -> Shard:
    """The first of two shards: 0 to 5, and 6 to 9."""
    await tell(database, *"abcde")
    made = await journal.rotate()
    assert made.sealed is not None
    await tell(database, *"fgh")
    await journal.checkpoint()
    return made.sealed


async def records(journal: Journal) -> Records:
    return [record async for record in journal.export()]


def proved(found: Records, index: int, prover: Prover | None = None) -> Proved:
    prover = prover or Prover(index)
    for record in found:
        prover.feed(record)
    return prover.end()


async def test_every_entry_of_an_export_is_proved_as_the_coordinator_proves_it(
    journal: Journal, sealed: Shard
) -> None:
    found = await records(journal)
    for index in range(10):
        its, theirs = proved(found, index), await journal.proof(index)
        assert (its.content, its.position) == (theirs.entry.content, theirs.entry.position)
        assert (its.hashes, its.note) == (theirs.hashes, theirs.checkpoint.note)
        checkpoint = opened(its.note, theirs.shard.key)
        leaf = leaf_hash(its.content.encode())
        verify_inclusion(leaf, its.position, its.size, its.hashes, checkpoint.root)


async def test_an_entry_that_was_dropped_is_proved_by_the_export_that_has_it(
    journal: Journal, sealed: Shard
) -> None:
    before = await records(journal)
    await journal.drop(sealed.id, sealed.size, sealed.edge.root)
    assert '"b"' in proved(before, 1).content
    with pytest.raises(BadProof, match="dropped before the export was made"):
        proved(await records(journal), 1)


async def test_an_entry_that_is_not_there_is_not_proved(journal: Journal, sealed: Shard) -> None:
    with pytest.raises(BadProof, match="in no shard of it"):
        proved(await records(journal), 10)


async def test_an_entry_that_was_changed_in_the_file_is_not_proved(
    journal: Journal, sealed: Shard
) -> None:
    found = await records(journal)
    (its,) = [each["entry"] for each in found if '"b"' in each.get("entry", {}).get("content", "")]
    its["content"] = its["content"].replace('"b"', '"B"')
    with pytest.raises(BadProof, match="another root"):
        proved(found, 1)
    assert '"c"' in proved(found, 2).content  # by the hashes, which are kept apart


@pytest.mark.parametrize("index", [1, 4])
async def test_an_export_that_lacks_entries_proves_none(
    journal: Journal, sealed: Shard, index: int
) -> None:
    found = [each for each in await records(journal) if each.get("entry", {}).get("position") != 5]
    with pytest.raises(BadProof, match="has 5 of the 6 entries"):
        proved(found, index)


async def test_only_a_key_that_is_known_is_believed(journal: Journal, sealed: Shard) -> None:
    found = await records(journal)
    assert proved(found, 1, Prover(1, {sealed.id: sealed.key})).key == sealed.key
    other = SignerKey.new(sealed.key.name).verifier
    with pytest.raises(BadNote):
        proved(found, 1, Prover(1, {sealed.id: other}))


async def test_what_no_checkpoint_covers_is_not_proved(
    journal: Journal, database: Database, sealed: Shard
) -> None:
    await tell(database, "i")
    with pytest.raises(BadProof, match="no checkpoint of shard"):
        proved(await records(journal), 10)


@pytest.mark.parametrize("record", [{}, {"shard": []}])
def test_what_is_no_export_is_refused(record: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="unexpected"):
        Prover(0).feed(record)
