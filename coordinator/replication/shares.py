"""How much each sled has been given to do in a plan, and so who is next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import nsmallest


class Shares:
    """What every sled is to send and is to be sent, by index, while a plan is made.

    Args:
        sleds: how many there are.
        hop_bytes: what a request costs a sled beside the bytes it is for.
    """

    def __init__(self, sleds: int, hop_bytes: int) -> None:
        self._hop_bytes = hop_bytes
        self._sends_bytes = [0] * sleds
        self._puts_bytes = [0] * sleds

    def by_sending(self, sleds: Iterable[int]) -> list[int]:
        """Those first that have the least to send."""
        return sorted(sleds, key=self._sends_bytes.__getitem__)

    def for_puts(self, sleds: Iterable[int], number: int) -> list[int]:
        """Some that have been given the least by puts; of equals, those that stand first."""
        return nsmallest(number, sleds, key=self._puts_bytes.__getitem__)

    def put(self, targets: Iterable[int], size_bytes: int) -> None:
        """These are sent something from staging."""
        for target in targets:
            self._puts_bytes[target] += size_bytes + self._hop_bytes

    def serve(self, parents: Iterable[int], nodes: Sequence[int], size_bytes: int) -> None:
        """Each of `parents`, an index into `nodes`, serves something once."""
        sends_bytes, cost_bytes = self._sends_bytes, size_bytes + self._hop_bytes
        for parent in parents:
            sends_bytes[nodes[parent]] += cost_bytes
