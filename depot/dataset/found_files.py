"""The files of a dataset's artifacts as one look found them, packed: a hundred thousand are usual.

They cross from a worker process as a few long strings of bytes, and are told apart again only by
whoever goes through them, one after the other.
"""

from __future__ import annotations

from array import array
from collections.abc import ItemsView, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from depot.artifact import ArtifactHash


class FoundFile(NamedTuple):
    """An artifact's file.

    Attributes:
        inode: 0 when the file could not be looked at.
        mtime_ns: with the inode, it tells a file from another one under the name.
        changed_at_s: Unix time when anything about it changed, its name included.
    """

    size_bytes: int
    inode: int
    mtime_ns: int
    changed_at_s: float

    @property
    def identity(self) -> str:
        """Inode and modification time; another file under the name has another one."""
        return f"{self.inode}:{self.mtime_ns}" if self.inode else ""


class FoundFiles(Mapping[ArtifactHash, FoundFile]):
    """Files by artifact; whoever makes it adds each once, and then hands it out."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._sizes = array("Q")
        self._inodes = array("Q")
        self._mtimes = array("q")
        self._changes = array("d")

    def add(self, artifact: ArtifactHash, file: FoundFile) -> None:
        """Note one more."""
        self._digests += artifact
        self._sizes.append(file.size_bytes)
        self._inodes.append(file.inode)
        self._mtimes.append(file.mtime_ns)
        self._changes.append(file.changed_at_s)

    def sizes(self) -> Iterator[tuple[ArtifactHash, int]]:
        """Each artifact with the size of its file in bytes."""
        return zip(self._artifacts, self._sizes, strict=True)

    @cached_property
    def _artifacts(self) -> list[ArtifactHash]:
        return ArtifactHash.divide(self._digests)

    @cached_property
    def _places(self) -> dict[ArtifactHash, int]:
        return {artifact: place for place, artifact in enumerate(self._artifacts)}

    def _at(self, place: int) -> FoundFile:
        return FoundFile(
            self._sizes[place], self._inodes[place], self._mtimes[place], self._changes[place]
        )

    def __getitem__(self, artifact: ArtifactHash) -> FoundFile:
        return self._at(self._places[artifact])

    def __contains__(self, artifact: object) -> bool:
        return artifact in self._places

    def __iter__(self) -> Iterator[ArtifactHash]:
        return iter(self._artifacts)

    def __len__(self) -> int:
        return len(self._sizes)

    def items(self) -> ItemsView[ArtifactHash, FoundFile]:
        """Each artifact with its file."""
        return _Items(self)

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


class _Items(ItemsView[ArtifactHash, FoundFile]):
    def __init__(self, files: FoundFiles) -> None:
        super().__init__(files)
        self._files = files

    def __iter__(self) -> Iterator[tuple[ArtifactHash, FoundFile]]:
        files = self._files
        each = map(FoundFile, files._sizes, files._inodes, files._mtimes, files._changes)
        return zip(files._artifacts, each, strict=True)
