"""The tree of RFC 6962 written down as the RFC says it, recursion and all: what ours is held to."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256


def leaf(number: int) -> bytes:
    """The hash of a leaf that is like no other one."""
    return sha256(b"\x00%d" % number).digest()


def leaves(count: int) -> list[bytes]:
    return [leaf(number) for number in range(count)]


def root(hashes: Sequence[bytes]) -> bytes:
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256().digest()
    k = split(len(hashes))
    return sha256(b"\x01" + root(hashes[:k]) + root(hashes[k:])).digest()


def inclusion(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    if len(hashes) == 1:
        return []
    k = split(len(hashes))
    if index < k:
        return [*inclusion(index, hashes[:k]), root(hashes[k:])]
    return [*inclusion(index - k, hashes[k:]), root(hashes[:k])]


def consistency(first: int, hashes: Sequence[bytes], *, known: bool = True) -> list[bytes]:
    if first == len(hashes):
        return [] if known else [root(hashes)]
    k = split(len(hashes))
    if first <= k:
        return [*consistency(first, hashes[:k], known=known), root(hashes[k:])]
    return [*consistency(first - k, hashes[k:], known=False), root(hashes[:k])]


def split(count: int) -> int:
    k = 1
    while 2 * k < count:
        k *= 2
    return k
