"""What verifies is a proof, and whatever was changed about it does not verify."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.journal.proofs import BadProof, verify_consistency, verify_inclusion
from tests.coordinator.journal import plain

SIZES = st.integers(1, 70)
OTHER = bytes(32)
P = ParamSpec("P")


def refused(check: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> bool:
    try:
        check(*args, **kwargs)
    except BadProof:
        return True
    return False


@given(SIZES, st.data())
def test_a_leaf_verifies_at_its_own_place_only(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = plain.leaves(size)
    proof, root = plain.inclusion(index, leaves), plain.root(leaves)
    verify_inclusion(leaves[index], index, size, proof, root)
    for other in range(size):
        if other != index:
            assert refused(verify_inclusion, leaves[index], other, size, proof, root)
            assert refused(verify_inclusion, leaves[other], index, size, proof, root)


@given(SIZES, st.data())
def test_a_changed_inclusion_proof_does_not_verify(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = plain.leaves(size)
    proof, root = plain.inclusion(index, leaves), plain.root(leaves)
    leaf = leaves[index]
    assert refused(verify_inclusion, leaf, index, size, [*proof, OTHER], root)
    assert refused(verify_inclusion, leaf, index, size, proof, OTHER)
    for at in range(len(proof)):
        wrong = [*proof[:at], OTHER, *proof[at + 1 :]]
        short = [*proof[:at], *proof[at + 1 :]]
        assert refused(verify_inclusion, leaf, index, size, wrong, root)
        assert refused(verify_inclusion, leaf, index, size, short, root)


@given(SIZES, st.data())
def test_a_grown_tree_verifies_and_a_changed_one_does_not(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, size))
    leaves = plain.leaves(size)
    then, now = plain.root(leaves[:first]), plain.root(leaves)
    proof = plain.consistency(first, leaves)
    verify_consistency(first, size, proof, then, now)
    assert refused(verify_consistency, first, size, [*proof, OTHER], then, now)
    assert refused(verify_consistency, first, size, proof, OTHER, now)
    assert refused(verify_consistency, first, size, proof, then, OTHER)
    for at in range(len(proof)):
        wrong = [*proof[:at], OTHER, *proof[at + 1 :]]
        short = [*proof[:at], *proof[at + 1 :]]
        assert refused(verify_consistency, first, size, wrong, then, now)
        assert refused(verify_consistency, first, size, short, then, now)


@given(SIZES, st.data())
def test_a_tree_that_was_rewritten_has_no_proof(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, size))
    changed = data.draw(st.integers(0, first - 1))
    leaves = plain.leaves(size)
    rewritten = [*leaves[:changed], OTHER, *leaves[changed + 1 :]]
    then, now = plain.root(leaves[:first]), plain.root(rewritten)
    for its in (leaves, rewritten):
        proof = plain.consistency(first, its)
        assert refused(verify_consistency, first, size, proof, then, now)


def test_every_tree_has_grown_from_the_empty_one() -> None:
    root = plain.root(plain.leaves(5))
    verify_consistency(0, 5, [], plain.root([]), root)
    with pytest.raises(BadProof):
        verify_consistency(0, 5, [], OTHER, root)
    with pytest.raises(BadProof):
        verify_consistency(0, 5, [OTHER], plain.root([]), root)


@pytest.mark.parametrize(("first", "second"), [(4, 3), (-1, 3)])
def test_a_tree_does_not_shrink(first: int, second: int) -> None:
    with pytest.raises(BadProof, match="does not grow"):
        verify_consistency(first, second, [], OTHER, OTHER)
