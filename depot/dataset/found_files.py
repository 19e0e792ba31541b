"""The files of a dataset's artifacts as one look found them, packed: a hundred thousand are usual.

They cross from a worker process as a few long strings of bytes, and are told apart again only by
whoever goes through them, one after the other.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from depot.artifact import ArtifactHash, shared


class FoundFile(NamedTuple):
    """An artifact's file.

    Attributes:
        inode: 0 when the file could not be looked at.
        mtime_ns: when it was written to; with the inode, it tells a file from another one under
            the name.
        changed_at_s: Unix time when anything about it changed, its name included.
    """

    size_bytes: int
    inode: int
    mtime_ns: int
    changed_at_s: float


class Stretch(NamedTuple):
    """Files that lie side by side, column by column."""

    artifacts: tuple[ArtifactHash, ...]
    sizes_bytes: array[int]
    inodes: array[int]
    mtimes_ns: array[int]


class FoundFiles:
    """Files by artifact; whoever makes it adds each once, and then hands it out."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._sizes = array("Q")
        self._inodes = array("Q")
        self._mtimes = array("q")
        self._changes = array("d")

    def add(
        self,
        digest: bytes,
        size_bytes: int,
        inode: int = 0,
        mtime_ns: int = 0,
        changed_at_s: float = 0.0,
    ) -> None:
        """Note one more, by the digest that is its name; see `FoundFile`."""
        self._digests += digest
        self._sizes.append(size_bytes)
        self._inodes.append(inode)
        self._mtimes.append(mtime_ns)
        self._changes.append(changed_at_s)

    def share(self, known: Iterable[ArtifactHash]) -> None:
        """Name artifacts by the objects of others where they have some; see `shared`."""
        self._artifacts = list(shared(self._artifacts, known))

    def sizes(self) -> Iterator[tuple[ArtifactHash, int]]:
        """Each artifact with the size of its file in bytes."""
        return zip(self._artifacts, self._sizes, strict=True)

    def stretch(self, digests: Sequence[bytes]) -> Stretch | None:
        """The files of these, at least one, when they follow each other here as well; else None.

        For those who compare every one. That takes files which were added in order.
        """
        begin = bisect_left(self._artifacts, digests[0])
        at = slice(begin, begin + len(digests))
        artifacts = tuple(self._artifacts[at])
        if artifacts != tuple(digests):
            return None
        return Stretch(artifacts, self._sizes[at], self._inodes[at], self._mtimes[at])

    def find(self, artifact: bytes) -> FoundFile | None:
        """The file of one artifact."""
        place = self._places.get(artifact)
        if place is None:
            return None
        return FoundFile(
            self._sizes[place], self._inodes[place], self._mtimes[place], self._changes[place]
        )

    def named(self, digest: bytes) -> ArtifactHash:
        """The one object that names an artifact which is here."""
        return self._artifacts[self._places[digest]]

    def __contains__(self, artifact: ArtifactHash) -> bool:
        return artifact in self._places

    def __len__(self) -> int:
        return len(self._sizes)

    @cached_property
    def _artifacts(self) -> list[ArtifactHash]:
        return ArtifactHash.divide(self._digests)

    @cached_property
    def _places(self) -> dict[bytes, int]:
        return {artifact: place for place, artifact in enumerate(self._artifacts)}

    def __reduce__(self) -> tuple[object, ...]:
        """Cross as what was packed, and nothing that was unpacked since."""
        packed = (self._digests, self._sizes, self._inodes, self._mtimes, self._changes)
        return FoundFiles._packed, packed

    @staticmethod
    def _packed(
        digests: bytearray,
        sizes: array[int],
        inodes: array[int],
        mtimes: array[int],
        changes: array[float],
    ) -> FoundFiles:
        files = FoundFiles()
        files._digests, files._sizes, files._inodes = digests, sizes, inodes
        files._mtimes, files._changes = mtimes, changes
        return files
