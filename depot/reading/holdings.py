"""What can be said at once, from memory, about which artifacts would be given to whoever asks.

Rules kept here:
- It says yes only where `Reader.open` would find a good copy without looking any further: of one
  size on every dataset that has one. Whatever is unclear is for the reader.
- Nothing is remembered: it is read from the state store at the moment of the question, so that no
  deletion, no finding of a scrub and no lost dataset can come too late.
- A read that fails here changes nothing: the reader does it again, and draws conclusions.
"""

from __future__ import annotations

from collections.abc import Sequence

from depot.artifact import ArtifactHash
from depot.concurrency.foreground import Foreground
from depot.dataset.page_cache import CachedFile
from depot.errors import DatasetUnusable
from depot.mirrors.mirror_set import MirrorSet
from depot.reading.small_reads import read_small_files
from depot.state.tables import StateStore


class Holdings:
    """The good copies of a store."""

    def __init__(self, mirrors: MirrorSet, state: StateStore, foreground: Foreground) -> None:
        self._mirrors = mirrors
        self._state = state
        self._foreground = foreground

    @property
    def revision(self) -> int:
        """As long as this stays the same, so do the answers of `size_of` and `cached_file`."""
        return self._state.snapshot().revision

    def size_of(self, artifact: ArtifactHash) -> int | None:
        """The size of every good copy; None when there is none, or they differ."""
        copies = (mirror.good_copy(artifact) for mirror in self._mirrors.all)
        sizes = {copy.size_bytes for copy in copies if copy is not None}
        return sizes.pop() if len(sizes) == 1 else None

    def cached_file(self, artifact: ArtifactHash, size_bytes: int) -> CachedFile | None:
        """A small artifact's copy that would be read first, as far as memory has it; unchecked."""
        for mirror in self._mirrors.readable():
            if mirror.good_copy(artifact) is not None:
                return mirror.cached_file(artifact, size_bytes)
        return None

    async def read(
        self, artifacts: Sequence[ArtifactHash], most_bytes: int
    ) -> Sequence[bytes | None]:
        """Read artifacts of at most `most_bytes` whole and unchecked; None for what did not work.

        All of them from one dataset, in one call: whoever has to know why not, or wants another
        dataset's copy, opens the artifact.
        """
        mirrors = self._mirrors.readable()
        if not mirrors:
            return [None] * len(artifacts)
        mirror = max(mirrors, key=lambda each: sum(map(bool, map(each.good_copy, artifacts))))
        try:
            with self._foreground.work():
                return await mirror.read(read_small_files, artifacts, most_bytes)
        except (OSError, DatasetUnusable):
            return [None] * len(artifacts)
