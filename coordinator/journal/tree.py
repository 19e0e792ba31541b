"""The Merkle tree of RFC 6962, as something kept in a table: appended to, and read from, by node.

Rules kept here:
- Only the hashes of *whole* subtrees are kept, those over 2^level leaves. None of them ever
  changes, so nothing is written twice, and the tree of every earlier size is still there.
- Appending needs the right edge alone (`Edge`): the whole subtrees that the leaves fall into, one
  for each bit of their number. What any proof is made of is known before anything is read.

Nothing here reads or waits: it says which nodes are needed, and is given their hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""Of a tree without leaves."""


def leaf_hash(content: bytes) -> bytes:
    """The hash of an entry."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Node(NamedTuple):
    """A whole subtree: the leaves from `position * 2^level` on, 2^level of them."""

    level: int
    position: int


@dataclass(frozen=True, slots=True)
class Edge:
    """All that appending needs of a tree.

    Attributes:
        size: how many leaves there are.
        hashes: of the whole subtrees that they fall into, the largest and leftmost first.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError when the hashes cannot be those of so many leaves."""
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise ValueError(f"{self.size} leaves do not fall into {len(self.hashes)} subtrees")

    @classmethod
    def of(cls, size: int, content: bytes) -> Edge:
        """Read what `content` was made of; raises ValueError when it is nothing such."""
        count, rest = divmod(len(content), HASH_BYTES)
        if rest:
            raise ValueError(f"{len(content)} bytes are no hashes")
        return cls(
            size, tuple(content[n * HASH_BYTES : (n + 1) * HASH_BYTES] for n in range(count))
        )

    @property
    def content(self) -> bytes:
        """The hashes, one after the other."""
        return b"".join(self.hashes)

    @property
    def root(self) -> bytes:
        """The hash of the whole tree."""
        return _joined(self.hashes) if self.hashes else EMPTY_ROOT

    def appended(self, leaves: Iterable[bytes]) -> tuple[Edge, list[tuple[Node, bytes]]]:
        """Append leaf hashes: the new edge, and every node that became whole, the leaves too."""
        size, hashes = self.size, list(self.hashes)
        made: list[tuple[Node, bytes]] = []
        for leaf in leaves:
            level, position = 0, size
            made.append((Node(level, position), leaf))
            hashes.append(leaf)
            while position & 1:  # the subtree to its left is as large, and whole: they are one
                right, left = hashes.pop(), hashes.pop()
                level, position = level + 1, position >> 1
                hashes.append(node_hash(left, right))
                made.append((Node(level, position), hashes[-1]))
            size += 1
        return Edge(size, tuple(hashes)), made


def subtrees(begin: int, end: int) -> tuple[Node, ...]:
    """The whole subtrees that leaves fall into, from left to right.

    `begin` is where a subtree begins that is large enough for all of them, as it always is in a
    tree: so they get smaller from left to right.
    """
    found = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        found.append(Node(level, begin >> level))
        begin += 1 << level
    return tuple(found)


Path = tuple[tuple[Node, ...], ...]
"""For each hash of a proof, the whole subtrees that it is made of; their hashes are kept."""


def inclusion_path(index: int, size: int) -> Path:
    """What the proof is made of that a leaf is in a tree, as RFC 6962 orders it.

    Raises:
        ValueError: the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} has no leaf {index}")
    path = []
    begin, end = 0, size
    while end - begin > 1:
        middle = _split(begin, end)
        if index < middle:
            path.append(subtrees(middle, end))
            end = middle
        else:
            path.append(subtrees(begin, middle))
            begin = middle
    return tuple(reversed(path))


def consistency_path(first: int, second: int) -> Path:
    """What the proof is made of that a tree of `first` leaves was appended to, up to `second`.

    Raises:
        ValueError: the tree never shrinks.
    """
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {first} does not grow to one of {second}")
    if first in (0, second):
        return ()
    path = []
    begin, end = 0, second
    while first != end:
        middle = _split(begin, end)
        if first <= middle:
            path.append(subtrees(middle, end))
            end = middle
        else:
            path.append(subtrees(begin, middle))
            begin = middle
    if begin:  # else it is the first tree itself, whose hash whoever verifies this has
        path.append(subtrees(begin, end))
    return tuple(reversed(path))


def needed(path: Path) -> Iterator[Node]:
    """Each node whose hash a path needs."""
    for nodes in path:
        yield from nodes


def hashes_along(path: Path, kept: Mapping[Node, bytes]) -> tuple[bytes, ...]:
    """The proof that a path describes; raises KeyError when a needed hash is not there."""
    return tuple(_joined([kept[node] for node in nodes]) for nodes in path)


def _split(begin: int, end: int) -> int:
    """Where RFC 6962 parts leaves in two: the left part is the largest power of two below all."""
    return begin + (1 << ((end - begin - 1).bit_length() - 1))


def _joined(hashes: Sequence[bytes]) -> bytes:
    """The hash over subtrees that get smaller from left to right."""
    *others, joined = hashes
    for left in reversed(others):
        joined = node_hash(left, joined)
    return joined
