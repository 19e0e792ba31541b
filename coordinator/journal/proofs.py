"""Verifying proofs, as RFC 9162 (2.1.3.2 and 2.1.4.2) says: with the hashes alone, and no tree.

Kept apart from `tree`, and going the other way round, from the leaves up: what makes proofs wrongly
is not to be what takes them for right.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.journal.tree import EMPTY_ROOT, node_hash


class BadProof(ValueError):
    """A proof does not prove what it is said to."""


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that a leaf is in a tree.

    Args:
        leaf: its hash.
        index: where it is.
        size: how many leaves the tree has.
        proof: the hashes beside the way up, the lowest first.
        root: of the tree.

    Raises:
        BadProof: it is not, by this proof.
    """
    if not 0 <= index < size:
        raise BadProof(f"a tree of {size} has no leaf {index}")
    way, last, found = index, size - 1, leaf
    for beside in proof:
        if last == 0:
            raise BadProof("the proof is longer than the tree is high")
        if way & 1 or way == last:
            found = node_hash(beside, found)
            way, last = _up_to_a_right_child(way, last)
        else:
            found = node_hash(found, beside)
        way, last = way >> 1, last >> 1
    if last != 0:
        raise BadProof("the proof is shorter than the tree is high")
    if found != root:
        raise BadProof(f"leaf {index} leads to another root than the tree of {size} has")


def verify_consistency(
    first: int, second: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes
) -> None:
    """Check that a tree was only appended to.

    Args:
        first: how many leaves it had.
        second: how many it has.
        proof: as `tree.consistency_path` describes it.
        first_root: of the tree then.
        second_root: of the tree now.

    Raises:
        BadProof: it was not, by this proof.
    """
    if not 0 <= first <= second:
        raise BadProof(f"a tree of {first} does not grow to one of {second}")
    if first in (0, second):
        expected = EMPTY_ROOT if first == 0 else second_root
        if proof or first_root != expected:
            raise BadProof(f"the roots of the trees of {first} and {second} do not agree")
        return
    _verify_grown(first, second, proof, first_root, second_root)


def _verify_grown(
    first: int, second: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes
) -> None:
    # Of a whole subtree the proof leaves out the hash: it is the first root.
    way_up = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not way_up:
        raise BadProof("the proof is empty")
    way, last = first - 1, second - 1
    below = first & -first  # leaves of the last whole subtree of the first tree
    way, last = way // below, last // below
    found_first = found_second = way_up[0]
    for beside in way_up[1:]:
        if last == 0:
            raise BadProof("the proof is longer than the tree is high")
        if way & 1 or way == last:
            found_first = node_hash(beside, found_first)
            found_second = node_hash(beside, found_second)
            way, last = _up_to_a_right_child(way, last)
        else:
            found_second = node_hash(found_second, beside)
        way, last = way >> 1, last >> 1
    if last != 0:
        raise BadProof("the proof is shorter than the tree is high")
    if (found_first, found_second) != (first_root, second_root):
        raise BadProof(
            f"the proof leads to other roots than the trees of {first} and {second} have"
        )


def _up_to_a_right_child(way: int, last: int) -> tuple[int, int]:
    """Skip the levels on which the last node has none beside it."""
    while way and not way & 1:
        way, last = way >> 1, last >> 1
    return way, last
