"""Small artifacts by the names in requests: which there are, and what memory has of them.

Rules kept here:
- What is there is looked up anew whenever the store's state has changed.
- One turn of the event loop begins no read here once it has read and hashed for `TURN_S` (B4). What
  it has read, or could not, is for all who ask in the same turn, and for nobody later.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from depot.artifact import ArtifactHash
from depot.dataset.page_cache import CachedFile
from depot.http.hot_artifacts import SMALL_BYTES, HotArtifact, HotArtifacts

TURN_S: Final = 0.005
_NAME: Final = re.compile(rb"[0-9a-f]{64}")
_NAMES_AT_ONCE: Final = 1024


class GoodCopies(Protocol):
    """What of a store's holdings is asked; see `depot.reading.holdings`."""

    @property
    def revision(self) -> int:
        """As long as this stays the same, so do the answers of `size_of` and `cached_file`."""

    def size_of(self, artifact: ArtifactHash, /) -> int | None:
        """The size of every good copy; None when there is none, or they differ."""

    def cached_file(self, artifact: ArtifactHash, size_bytes: int, /) -> CachedFile | None:
        """A small artifact's copy that would be read first, as far as memory has it; unchecked."""

    async def read(
        self, artifacts: Sequence[ArtifactHash], most_bytes: int, /
    ) -> Sequence[bytes | None]:
        """Read artifacts whole and unchecked; None for each that cannot be read like this."""


@dataclass(frozen=True, slots=True)
class SmallArtifact:
    """A small artifact that is there.

    Attributes:
        head: of its answer.
        file: what of it may be read at once.
    """

    artifact: ArtifactHash
    size_bytes: int
    head: bytes
    file: CachedFile | None


class SmallArtifacts:
    """The small artifacts that are there; each is looked up once in a state of the store.

    Args:
        head: of the answer with all of an artifact of some size.
    """

    def __init__(self, copies: GoodCopies, head: Callable[[ArtifactHash, int], bytes]) -> None:
        self._copies = copies
        self._head = head
        self._revision = -1
        self._found: dict[bytes, SmallArtifact | None] = {}

    def find(self, name: bytes) -> SmallArtifact | None:
        """What is there; None when it is not small, not there, or nobody's name."""
        revision = self._copies.revision
        if revision != self._revision or len(self._found) >= _NAMES_AT_ONCE:
            self._found.clear()
            self._revision = revision
        elif name in self._found:
            return self._found[name]
        found = self._found[name] = self._look_up(name)
        return found

    def _look_up(self, name: bytes) -> SmallArtifact | None:
        if not _NAME.fullmatch(name):
            return None
        artifact = ArtifactHash(bytes.fromhex(name.decode()))
        size_bytes = self._copies.size_of(artifact)
        if size_bytes is None or size_bytes > SMALL_BYTES:
            return None
        file = self._copies.cached_file(artifact, size_bytes)
        return SmallArtifact(artifact, size_bytes, self._head(artifact, size_bytes), file)


class ReadsAtOnce:
    """What this turn of the event loop has read out of the kernel's memory.

    Args:
        hot: takes in what was read, if it is what its name says.
        clock: monotonic, in seconds.
    """

    def __init__(self, hot: HotArtifacts, clock: Callable[[], float] = time.monotonic) -> None:
        self._hot = hot
        self._clock = clock
        self._end_s: float | None = None
        self._read: dict[bytes, HotArtifact | None] = {}

    def find(self, name: bytes) -> HotArtifact | None:
        """What was read under that name."""
        return self._read.get(name)

    def read(self, name: bytes, small: SmallArtifact) -> HotArtifact | None:
        """Read it now; None: that would take a device, or too long, or it is something else."""
        if small.file is None or name in self._read or not self._has_time():
            return None
        content = small.file.read()
        hot = None if content is None else self._hot.keep(small.artifact, small.head, content)
        self._read[name] = hot
        return hot

    def _has_time(self) -> bool:
        now_s = self._clock()
        if self._end_s is None:
            self._end_s = now_s + TURN_S
            asyncio.get_running_loop().call_soon(self._end_turn)
        return now_s < self._end_s

    def _end_turn(self) -> None:
        self._end_s = None
        self._read.clear()
