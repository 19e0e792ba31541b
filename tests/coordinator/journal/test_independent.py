"""Another implementation takes our trees, proofs and checkpoints for what they are.

It says that it needs a newer Python than this project does, and runs on this one as well: so it is
installed by a lock file of its own (`tests/independent.lock`), and never skipped.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from coordinator.journal.checkpoints import Checkpoint, opened, signed
from coordinator.journal.notes import SignerKey, VerifierKey
from coordinator.journal.tree import (
    Edge,
    consistency_path,
    hashes_along,
    inclusion_path,
    leaf_hash,
)

theirs: Any = import_module("aics_tlog")
ENTRIES = [b'{"number": %d}' % number for number in range(37)]
KEY = SignerKey("sled-depot/journal/0123456789abcdef", bytes(range(32)))


@pytest.mark.parametrize("size", range(1, len(ENTRIES) + 1))
def test_it_finds_the_same_root_and_takes_our_proofs(size: int) -> None:
    edge, made = Edge().appended(map(leaf_hash, ENTRIES[:size]))
    kept = dict(made)
    tree = theirs.MerkleTree(ENTRIES[:size])
    assert edge.root == tree.root()
    for index in range(size):
        proof = list(hashes_along(inclusion_path(index, size), kept))
        assert theirs.verify_leaf_inclusion(ENTRIES[index], index, size, proof, edge.root)
        earlier = index + 1
        grown = list(hashes_along(consistency_path(earlier, size), kept))
        assert theirs.verify_consistency(earlier, size, tree.root(earlier), edge.root, grown)


def test_it_refuses_a_proof_that_was_changed() -> None:
    edge, made = Edge().appended(map(leaf_hash, ENTRIES))
    proof = list(hashes_along(inclusion_path(5, len(ENTRIES)), dict(made)))
    wrong = [bytes(32), *proof[1:]]
    assert not theirs.verify_leaf_inclusion(ENTRIES[5], 5, len(ENTRIES), wrong, edge.root)


def test_it_takes_our_checkpoint_and_we_take_its() -> None:
    edge = Edge().appended(map(leaf_hash, ENTRIES))[0]
    checkpoint = Checkpoint(KEY.verifier.name, edge.size, edge.root)
    note = signed(checkpoint, KEY)
    key = theirs.parse_vkey(str(KEY.verifier))
    found = theirs.verify_checkpoint(theirs.parse_note(note), key)
    assert found.log_ok
    assert (found.origin, found.size, found.root) == (KEY.verifier.name, edge.size, edge.root)
    their_key = theirs.format_vkey(key)
    assert opened(note, VerifierKey.parse(their_key)) == checkpoint


def test_it_refuses_our_checkpoint_when_its_size_was_changed() -> None:
    note = signed(Checkpoint(KEY.verifier.name, 7, bytes(32)), KEY).replace("\n7\n", "\n8\n")
    key = theirs.parse_vkey(str(KEY.verifier))
    assert not theirs.verify_checkpoint(theirs.parse_note(note), key).log_ok
