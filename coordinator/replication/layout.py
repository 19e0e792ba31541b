"""Who serves whom, by index alone: those that have the bytes first, then those that get them.

Indexes run through the origins and on through the targets in their order, so that the parent of
each is always below it: what follows from that order has no circles.
"""

from __future__ import annotations

from typing import Final

MAX_HOPS: Final = 250
"""Agents relay through a thousand others; some of these may be origins that are still receiving."""


def forest(targets: int, fan_out: int) -> list[int]:
    """Whom each target reads from when all relay: each serves `fan_out` others at once.

    With a fan-out of 1 these are chains, one from each origin.
    """
    return [index // fan_out for index in range(targets)]


def doubling_round(index: int, origins: int) -> int:
    """How many have the bytes when the one at `index` is served: `origins`, twice that, ...

    Nobody passes on what has not arrived, and everybody serves one at a time: the number of those
    that have the bytes doubles from round to round.
    """
    return origins << (index // origins).bit_length() - 1


def fan_out_for(
    size_bytes: int, targets: int, origins: int, *, hop_bytes: int, max_fan_out: int
) -> int:
    """The fan-out with which the last of `targets` has the bytes soonest, when all relay.

    A link that serves k at once takes k times as long; a hop costs as much as `hop_bytes` on it.
    So what is large goes through chains, and what is small through flat trees.
    """

    def cost(fan_out: int) -> tuple[bool, int]:
        hops = depth(targets, origins, fan_out)
        return hops > MAX_HOPS, fan_out * size_bytes + hops * hop_bytes

    return min(range(1, max_fan_out + 1), key=cost)


def depth(targets: int, origins: int, fan_out: int) -> int:
    """How many hops the last one is away."""
    if fan_out == 1:
        return -(-targets // origins)
    hops, width = 0, origins
    while targets > 0:
        hops += 1
        width *= fan_out
        targets -= width
    return hops
