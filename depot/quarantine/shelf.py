"""What lies in the quarantine of one dataset, kept with each change: a disk that rots fills it.

A hundred thousand short copies fit into its bound, and each artifact that is healed asks for its
own. A scan makes a new one, in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from depot.artifact import ArtifactHash
from depot.dataset.quarantine_names import QuarantinedFile


class Shelf:
    """The files of one quarantine by artifact.

    Attributes:
        count: how many files.
        used_bytes: their sizes, summed up.
        largest: of each artifact, the size in bytes of the largest; not to be changed.
    """

    def __init__(self, files: Iterable[QuarantinedFile] = ()) -> None:
        self.count = 0
        self.used_bytes = 0
        self.largest: dict[ArtifactHash, int] = {}
        self._files: dict[ArtifactHash, dict[str, QuarantinedFile]] = {}
        for file in files:
            self.add(file)

    def add(self, file: QuarantinedFile) -> None:
        """Put one in; one that is there already is no change."""
        artifact, there = file.artifact, self._files.setdefault(file.artifact, {})
        if file.name not in there:
            there[file.name] = file
            self.count += 1
            self.used_bytes += file.size_bytes
            self.largest[artifact] = max(file.size_bytes, self.largest.get(artifact, 0))

    def remove(self, file: QuarantinedFile) -> None:
        """Take one out; one that is not there is no change."""
        artifact, there = file.artifact, self._files.get(file.artifact, {})
        if there.pop(file.name, None) is None:
            return
        self.count -= 1
        self.used_bytes -= file.size_bytes
        if there:
            self.largest[artifact] = max(each.size_bytes for each in there.values())
        else:
            del self._files[artifact], self.largest[artifact]

    def differs_from(self, files: Iterable[QuarantinedFile]) -> list[str]:
        """Name what these files do not come to; goes through all of them."""
        ours, anew = vars(self), vars(Shelf(files))
        return sorted(name.removeprefix("_") for name in ours if ours[name] != anew[name])

    def of(self, artifact: ArtifactHash) -> list[QuarantinedFile]:
        """Those of one artifact, oldest first."""
        return sorted(self._files.get(artifact, {}).values())


def largest_of(shelves: Iterable[Shelf]) -> Mapping[ArtifactHash, int]:
    """Artifacts of which there are files on any of them, with the size of the largest in bytes."""
    sizes: dict[ArtifactHash, int] = {}
    for shelf in shelves:
        if sizes:
            for artifact, size_bytes in shelf.largest.items():
                sizes[artifact] = max(size_bytes, sizes.get(artifact, 0))
        else:
            sizes = shelf.largest.copy()
    return sizes
