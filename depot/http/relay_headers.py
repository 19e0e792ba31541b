"""What a depot says in the head of an answer about an artifact that it is still receiving. Pure.

The depth is the number of such depots that the bytes have come through, this one included. Nobody
goes on with a depot of his own depth or more, so no two ever wait for each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from depot.writing.arriving import MAX_DEPTH

ARRIVING: Final = "Depot-Arriving"
DEPTH: Final = "Depot-Arriving-Depth"
_DEPTH: Final = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)


def arriving_headers(depth: int) -> dict[str, str]:
    """The headers of a relay of that depth."""
    return {ARRIVING: "1", DEPTH: str(depth)}


def depth_of(headers: Mapping[str, str]) -> int:
    """The depth of the relay that answered; 0: it holds the artifact.

    One that does not say how deep it is may be anywhere.
    """
    if ARRIVING not in headers:
        return 0
    depth = headers.get(DEPTH, "").strip()
    return min(int(depth), MAX_DEPTH) if _DEPTH.fullmatch(depth) else MAX_DEPTH
