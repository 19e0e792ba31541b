"""What can be said at once, from memory, about which artifacts would be given to whoever asks.

Rules kept here:
- It says yes only where `Reader.open` would find a good copy without looking any further: of one
  size on every dataset that has one. Whatever is unclear is for the reader.
- Nothing is remembered: it is read from the state store at the moment of the question, so that no
  deletion, no finding of a scrub and no lost dataset can come too late.
"""

from __future__ import annotations

from depot.artifact import ArtifactHash
from depot.mirrors import MirrorSet
from depot.state import StateStore


class Holdings:
    """The good copies of a store."""

    def __init__(self, mirrors: MirrorSet, state: StateStore) -> None:
        self._mirrors = mirrors
        self._state = state

    @property
    def revision(self) -> int:
        """As long as this stays the same, so does every answer of `has`."""
        return self._state.snapshot().revision

    def has(self, artifact: ArtifactHash, size_bytes: int) -> bool:
        """Tell whether there is a good copy, and every good copy has this size."""
        copies = (mirror.good_copy(artifact) for mirror in self._mirrors.all)
        return {copy.size_bytes for copy in copies if copy is not None} == {size_bytes}
