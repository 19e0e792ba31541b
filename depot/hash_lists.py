"""Long lists of hashes in JSON, written and read in strides instead of string by string.

A config of 100,000 hashes is seven megabytes of JSON. A parser makes an object of each, and keeps
every other thread from running until it is through. Here a few thousand are done at a time. Only
the plain shape is read like that: each element a hash, and the same between any two of them. Of
whatever else it is `cut` says None, and a parser has to look at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from depot.artifact import ArtifactHash

_STRIDE: Final = 2048
_HEX_BYTES: Final = 64
_LONGEST_GAP: Final = 64
_SPACE: Final = b" \t\r\n"


class Cut(NamedTuple):
    """A document in two: what is left when its one array is emptied, and what was in that."""

    rest: bytes
    hashes: list[ArtifactHash]


def texts(hashes: Sequence[ArtifactHash], gap: str) -> Iterator[str]:
    """Write the elements of an array, with `gap`, a comma and space, between any two."""
    between = f'"{gap}"'
    for at in range(0, len(hashes), _STRIDE):
        some = b"".join(hashes[at : at + _STRIDE])
        text = some.hex('"', _HEX_BYTES // 2).replace('"', between)
        yield f'{gap if at else ""}"{text}"'


def cut(content: bytes, *, any_case: bool = False) -> Cut | None:
    """Take the hashes out of a JSON document whose one array is made of them; else None."""
    start, end = content.find(b"[") + 1, content.rfind(b"]")
    if not 0 < start < end:
        return None
    first, last = content.find(b'"', start), content.rfind(b'"', start, end) + 1
    if content[start:first].strip(_SPACE) or content[last:end].strip(_SPACE):
        return None
    hashes = _hashes(content, first, last, any_case=any_case)
    return None if hashes is None else Cut(content[:start] + content[end:], hashes)


def _hashes(content: bytes, first: int, last: int, *, any_case: bool) -> list[ArtifactHash] | None:
    """Read the elements that stand at `first` to `last`, quotes included."""
    element = _HEX_BYTES + 2
    second = content.find(b'"', first + element, first + element + _LONGEST_GAP)
    gap = content[first + element : second] if second > 0 else b","
    if gap.strip(_SPACE) != b",":
        return None
    width = element + len(gap)
    if first < 0 or (last - first + len(gap)) % width:
        return None
    hashes: list[ArtifactHash] = []
    for at in range(first, last, width * _STRIDE):
        some = content[at : min(at + width * _STRIDE - len(gap), last)]
        if at + len(some) < last and not content.startswith(gap, at + len(some)):
            return None
        found = _stride(some.lower() if any_case else some, gap)
        if found is None:
            return None
        hashes += found
    return hashes


def _stride(some: bytes, gap: bytes) -> list[ArtifactHash] | None:
    between = b'"' + gap + b'"'
    try:
        digests = bytes.fromhex(some[1:-1].replace(between, b"").decode("ascii"))
    except ValueError:
        return None
    # The proof that it was nothing but that: written again, it is the same.
    written = digests.hex('"', _HEX_BYTES // 2).encode().replace(b'"', between)
    return ArtifactHash.divide(digests) if b'"' + written + b'"' == some else None
