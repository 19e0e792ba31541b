"""Pure: whether a client wants, takes or refuses the zstd coding (RFC 9110, 12.5.3).

The one question that is asked of `Accept-Encoding` here is "zstd, or the bytes themselves?"; every
other coding is none of ours. An element that is malformed says nothing, and of an element that
stands there twice the lower weight counts: a coding that was not clearly asked for is not used.
"""

from __future__ import annotations

import enum
import re
from typing import Final

_ELEMENT: Final = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)"
    r"(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*",
    re.ASCII,
)


class Wish(enum.Enum):
    """What a client says of the two codings that an artifact can have."""

    IDENTITY = "the bytes themselves"
    ZSTD = "zstd, but the bytes themselves will do"
    ONLY_ZSTD = "zstd; the bytes themselves are refused"


def zstd_wish(accept_encoding: str | None) -> Wish:
    """Read an `Accept-Encoding`, all its lines joined; None when there is none.

    A client that refuses whatever there is gets the bytes themselves, as if it had said nothing,
    which the RFC prefers to an error. `*` alone asks for nothing in particular: nothing is encoded
    for it unless it also puts the bytes themselves behind everything else.
    """
    weights = _weights(accept_encoding or "")
    any_other = weights.get("*")
    zstd = weights.get("zstd", any_other)
    identity = weights.get("identity", any_other)
    if not zstd:
        return Wish.IDENTITY
    if identity == 0:
        return Wish.ONLY_ZSTD
    # What is not mentioned is acceptable and comes last; a tie is ours to decide.
    if identity is None or zstd > identity or (zstd == identity and "zstd" in weights):
        return Wish.ZSTD
    return Wish.IDENTITY


def _weights(header: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for element in header.split(","):
        if match := _ELEMENT.fullmatch(element):
            coding, weight = match[1].lower(), float(match[2] or 1)
            weights[coding] = min(weight, weights.get(coding, weight))
    return weights
