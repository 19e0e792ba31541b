"""Reading artifacts: opening a good copy on some dataset, and saying where the copies are."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from depot.artifact import ArtifactHash, Generation
from depot.errors import DatasetUnusable, NotFound
from depot.mirror import Mirror
from depot.mirrors import MirrorSet
from depot.worker import describe_error


@dataclass(frozen=True, slots=True)
class Listing:
    """Good copies of each artifact of a config that has any."""

    generation: Generation
    copies: Mapping[ArtifactHash, int]


@dataclass(frozen=True, slots=True)
class CopyDetail:
    """One dataset's copy.

    Attributes:
        dataset: the dataset's path.
        present: there is a good copy.
        verified_at: Unix time when it last hashed to its name; None: not since the start.
        path: the file, for consumers on this machine.
    """

    dataset: str
    present: bool
    verified_at: float | None = None
    size_bytes: int | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class ArtifactDetail:
    """One artifact on every dataset."""

    sha256: ArtifactHash
    copies: tuple[CopyDetail, ...]


class OpenArtifact:
    """A copy that is open for reading; a context manager that closes it.

    Attributes:
        dataset: index of the dataset it is read from.
        fd: descriptor; reads by offset only, it may be shared.
    """

    def __init__(self, sha256: ArtifactHash, size_bytes: int, dataset: int, fd: int) -> None:
        self.sha256 = sha256
        self.size_bytes = size_bytes
        self.dataset = dataset
        self.fd = fd

    def close(self) -> None:
        """Close the descriptor; a second call changes nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        """Return the open artifact."""
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


class Reader:
    """Opens good copies and remembers which turned out not to be.

    Args:
        on_damage: called when a copy was found damaged.
    """

    def __init__(self, mirrors: MirrorSet, on_damage: Callable[[], None]) -> None:
        self._mirrors = mirrors
        self._on_damage = on_damage

    async def open(self, artifact: ArtifactHash, exclude: Collection[int] = ()) -> OpenArtifact:
        """Open a copy, preferably on a healthy dataset and never on one of `exclude`.

        Raises:
            NoDataset, NotFound.
        """
        self._mirrors.require_readable()
        for mirror in self._mirrors.readable():
            copy = mirror.good_copy(artifact)
            if copy is None or mirror.index in exclude:
                continue
            opened = await self._try_open(mirror, artifact)
            if opened is None:
                continue
            if opened.size_bytes == copy.size_bytes:
                return opened
            opened.close()
            self._damaged(mirror, artifact)
        raise NotFound(f"{artifact} is not here", damaged=self._damaged_copies(artifact))

    def failed(self, opened: OpenArtifact, error: OSError) -> None:
        """Note that an open copy could not be read, so that it is not counted or served again."""
        mirror = self._mirrors.all[opened.dataset]
        mirror.last_error = f"reading {opened.sha256}: {describe_error(error)}"
        self._damaged(mirror, opened.sha256)

    async def _try_open(self, mirror: Mirror, artifact: ArtifactHash) -> OpenArtifact | None:
        try:
            fd, size_bytes = await mirror.open_artifact(artifact)
        except FileNotFoundError:
            mirror.record(artifact, None)
        except (OSError, DatasetUnusable) as error:
            mirror.failed(error)
        else:
            return OpenArtifact(artifact, size_bytes, mirror.index, fd)
        return None

    def _damaged(self, mirror: Mirror, artifact: ArtifactHash) -> None:
        copy = mirror.artifacts.get(artifact)
        if copy is not None:
            mirror.record(artifact, replace(copy, damaged=True, verified_at_s=None))
            self._on_damage()

    def _damaged_copies(self, artifact: ArtifactHash) -> int:
        copies = (mirror.artifacts.get(artifact) for mirror in self._mirrors.readable())
        return sum(copy is not None and copy.damaged for copy in copies)


def detail_of(artifact: ArtifactHash, mirrors: Iterable[Mirror]) -> ArtifactDetail:
    """Describe an artifact's copies.

    Raises:
        NotFound: no dataset has a file of that name.
    """
    copies = tuple(_copy_detail(artifact, mirror) for mirror in mirrors)
    if all(copy.size_bytes is None for copy in copies):
        raise NotFound(f"{artifact} is not here")
    return ArtifactDetail(artifact, copies)


def _copy_detail(artifact: ArtifactHash, mirror: Mirror) -> CopyDetail:
    copy = mirror.artifacts.get(artifact)
    if copy is None:
        return CopyDetail(str(mirror.path), present=False)
    good = mirror.good_copy(artifact) is not None
    path = str(mirror.path / str(artifact)) if good else None
    return CopyDetail(str(mirror.path), good, copy.verified_at_s, copy.size_bytes, path)
