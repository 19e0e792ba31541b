"""The bytes of small artifacts that were asked for lately, with the heads of their answers.

Rules kept here:
- Only bytes that hash to their name are taken in (B2): wherever they came from, they are hashed.
- All that is kept together stays within a budget; what was not asked for longest goes first (S1).
- Nothing here says whether an artifact may still be given away: that changes, its bytes never do.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from depot.artifact import ArtifactHash

SMALL_BYTES: Final = 64 << 10
DEFAULT_BUDGET_BYTES: Final = 16 << 20
# What the interpreter needs for an entry beside its bytes: about what was measured.
_ENTRY_BYTES: Final = 1024


@dataclass(slots=True)
class HotArtifact:
    """An artifact and its answer.

    Attributes:
        head: status line and headers, but for those that differ from answer to answer.
        found_at: revision of the store's state at which it was last found to be there.
    """

    artifact: ArtifactHash
    head: bytes
    content: bytes
    found_at: int = -1


class HotArtifacts:
    """Artifacts by the hexadecimal form of their name, as it stands in requests.

    Args:
        budget_bytes: of memory; 0: nothing is kept.
    """

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._kept: OrderedDict[bytes, HotArtifact] = OrderedDict()
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """What of the budget is taken."""
        return self._used_bytes

    def keep(self, artifact: ArtifactHash, head: bytes, content: bytes) -> HotArtifact | None:
        """Take an artifact in as far as there is room; None when it is not small, or another."""
        if len(content) > SMALL_BYTES or hashlib.sha256(content).digest() != artifact:
            return None
        taken = HotArtifact(artifact, head, content)
        size_bytes = len(content) + _ENTRY_BYTES
        if size_bytes <= self._budget_bytes:
            self.drop(artifact)
            self._kept[_name(artifact)] = taken
            self._used_bytes += size_bytes
        while self._used_bytes > self._budget_bytes:
            self.drop(next(iter(self._kept.values())).artifact)
        return taken

    def find(self, name: bytes) -> HotArtifact | None:
        """The artifact of that name, which is thereby the last one asked for."""
        found = self._kept.get(name)
        if found is not None:
            self._kept.move_to_end(name)
        return found

    def drop(self, artifact: ArtifactHash) -> None:
        """Keep an artifact no longer."""
        dropped = self._kept.pop(_name(artifact), None)
        if dropped is not None:
            self._used_bytes -= len(dropped.content) + _ENTRY_BYTES


def _name(artifact: ArtifactHash) -> bytes:
    return str(artifact).encode()


def head_of(headers: Mapping[str, str]) -> bytes:
    """The head of an answer with these headers, but for its last lines."""
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    return "".join(["HTTP/1.1 200 OK\r\n", *lines]).encode()
