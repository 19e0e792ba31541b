"""The tree that is kept node by node is the one of RFC 6962."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.journal.tree import (
    EMPTY_ROOT,
    Edge,
    Node,
    consistency_path,
    hashes_along,
    inclusion_path,
    leaf_hash,
    needed,
    subtrees,
)
from tests.coordinator.journal import plain

SIZES = st.integers(1, 140)


def kept(size: int) -> dict[Node, bytes]:
    return dict(Edge().appended(plain.leaves(size))[1])


def test_a_leaf_is_the_hash_of_its_content_behind_a_zero() -> None:
    assert leaf_hash(b"7") == plain.leaf(7)


def test_a_tree_without_leaves_has_the_hash_of_nothing() -> None:
    assert Edge().root == EMPTY_ROOT == plain.root([])


@given(SIZES, st.data())
def test_leaves_appended_at_once_or_one_by_one_make_the_tree_of_the_rfc(
    size: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, size))
    leaves = plain.leaves(size)
    earlier, made = Edge().appended(leaves[:first])
    edge, more = earlier.appended(leaves[first:])
    assert earlier.root == plain.root(leaves[:first])
    assert edge.root == plain.root(leaves)
    assert dict(made + more) == kept(size)
    assert Edge.of(size, edge.content) == edge


@given(SIZES)
def test_every_whole_subtree_is_kept_once_and_nothing_else(size: int) -> None:
    made = Edge().appended(plain.leaves(size))[1]
    assert len(made) == len(dict(made)) < 2 * size
    for (level, position), found in made:
        leaves = plain.leaves(size)[position << level : (position + 1) << level]
        assert len(leaves) == 1 << level
        assert found == plain.root(leaves)


@given(st.integers(0, 2**62), st.integers(1, 2**62))
def test_the_edge_of_any_tree_is_as_long_as_its_size_has_bits(size: int, more: int) -> None:
    assert len(subtrees(0, size)) == size.bit_count()
    assert len(list(needed(inclusion_path(size, size + more)))) <= 2 * 64
    assert len(list(needed(consistency_path(size, size + more)))) <= 3 * 64


@given(SIZES, st.data())
def test_a_proof_of_any_earlier_tree_is_the_one_of_the_rfc(size: int, data: st.DataObject) -> None:
    nodes, leaves = kept(size), plain.leaves(size)
    then = data.draw(st.integers(1, size))
    index = data.draw(st.integers(0, then - 1))
    found = hashes_along(inclusion_path(index, then), nodes)
    assert list(found) == plain.inclusion(index, leaves[:then])
    grown = hashes_along(consistency_path(then, size), nodes)
    assert list(grown) == plain.consistency(then, leaves)


def test_an_empty_tree_grows_to_any_without_a_proof() -> None:
    assert consistency_path(0, 7) == ()


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_a_leaf_that_is_not_there_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_path(index, size)


def test_a_tree_does_not_shrink() -> None:
    with pytest.raises(ValueError, match="does not grow"):
        consistency_path(4, 3)


@pytest.mark.parametrize(("size", "content"), [(1, b""), (2, bytes(64)), (1, bytes(31)), (-1, b"")])
def test_an_edge_that_is_none_of_its_size_is_refused(size: int, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"subtrees|no hashes"):
        Edge.of(size, content)
