"""What a store says of artifacts: counts, where the copies are, and an open one."""

from __future__ import annotations

import os
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.device.host import Host, Lane
from depot.device.resident import RemoteFile
from depot.device.source import ContentSource, FedSource
from depot.errors import NotFound
from depot.sources import FileSource, Source
from depot.verified_read import VerifiedRead

if TYPE_CHECKING:
    from depot.attaching import Opened
    from depot.mirror import Copy, Mirror
    from depot.quarantine_keeper import Quarantined


@dataclass(frozen=True, slots=True)
class Listing:
    """Good copies of each artifact of a config that has any."""

    generation: Generation
    copies: Mapping[ArtifactHash, int]


_STRIDE: Final = 2048


class CopyCounts(Mapping[ArtifactHash, int]):
    """Copies of each artifact that has any, in order; counted when first asked, in any thread.

    Args:
        certain: for each dataset, the artifacts whose copy there counts.
    """

    def __init__(self, config: ArtifactConfig, certain: Sequence[Set[ArtifactHash]]) -> None:
        self._config = config
        self._certain = certain

    @cached_property
    def _counts(self) -> dict[ArtifactHash, int]:
        counts: dict[ArtifactHash, int] = {}
        ordered = self._config.ordered
        for at in range(0, len(ordered), _STRIDE):  # other threads run in between
            some = ordered[at : at + _STRIDE]
            there = [map(here.__contains__, some) for here in self._certain]
            counts.update(zip(some, map(sum, zip(*there, strict=True)), strict=bool(there)))
        if all(counts.values()):
            return counts
        return {artifact: count for artifact, count in counts.items() if count}

    def __getitem__(self, artifact: ArtifactHash) -> int:
        return self._counts[artifact]

    def __iter__(self) -> Iterator[ArtifactHash]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def items(self) -> ItemsView[ArtifactHash, int]:
        """Each artifact with the number of its copies."""
        return self._counts.items()


@dataclass(frozen=True, slots=True)
class CopyDetail:
    """One dataset's copy.

    Attributes:
        dataset: the dataset's path.
        present: there is a good copy, and it is not in doubt.
        verified_at: Unix time when it last hashed to its name; None: never.
        path: the file, for consumers on this machine.
        damaged: there is no good copy, but a damaged one, under its name or in quarantine.
        quarantined: ids of the copies in quarantine.
    """

    dataset: str
    present: bool
    verified_at: float | None = None
    size_bytes: int | None = None
    path: str | None = None
    damaged: bool = False
    quarantined: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArtifactDetail:
    """One artifact on every dataset."""

    sha256: ArtifactHash
    copies: tuple[CopyDetail, ...]


class OpenArtifact:
    """A copy that is open for reading; a context manager that closes it.

    Attributes:
        dataset: index of the dataset it is read from.
        fd: descriptor; reads by offset only, it may be shared. -1 when it is in another process.
        remote: the file in a worker process, and who to ask for it.
        content: all of it, unchecked, when it is small and in another process.
        read: what every byte that leaves must come through; None: any way will do.
        on_close: called once it is closed.
        copy: as it was recorded when it was opened; another record may be about another file.
    """

    def __init__(
        self,
        sha256: ArtifactHash,
        size_bytes: int,
        dataset: int,
        fd: int,
        read: VerifiedRead | None = None,
        copy: Copy | None = None,
    ) -> None:
        self.sha256 = sha256
        self.size_bytes = size_bytes
        self.dataset = dataset
        self.fd = fd
        self.read = read
        self.remote: tuple[RemoteFile, Host] | None = None
        self.content: bytes | None = None
        self.on_close: Callable[[], None] | None = None
        self.copy = copy
        self.closed = False

    @classmethod
    def of_file(cls, sha256: ArtifactHash, dataset: int, opened: Opened, host: Host) -> Self:
        """Make one of what the dataset's host opened."""
        fd = opened.file if isinstance(opened.file, int) else -1
        made = cls(sha256, opened.size_bytes, dataset, fd)
        if isinstance(opened.file, RemoteFile):
            made.remote = (opened.file, host)
        made.content = opened.content
        return made

    @contextmanager
    def source(self, timeout_s: float) -> Iterator[Source]:
        """Read it from start to end, for a write; the device may be silent for `timeout_s`."""
        if self.content is not None:
            yield ContentSource(self.content)
            return
        if self.remote is None:
            yield FileSource(self.fd)
            return
        file, host = self.remote
        with closing(FedSource(host, file, self.size_bytes, timeout_s)) as source:
            yield source

    def close(self) -> None:
        """Close the descriptor; a second call changes nothing."""
        if self.closed:
            return
        self.closed = True
        fd, self.fd = self.fd, -1
        if self.remote is not None:
            close_file(*self.remote)
        elif fd >= 0:
            # Some filesystems report errors here; what was read was judged by itself.
            with suppress(OSError):
                os.close(fd)
        if self.on_close is not None:
            self.on_close()

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


def close_file(file: int | RemoteFile | None, host: Host) -> None:
    """Close a file where it is open."""
    if isinstance(file, RemoteFile):
        host.submit_in(Lane.CALLS, os.close, file)  # gone with its process, if that has ended
    elif file is not None:
        os.close(file)


def detail_of(
    artifact: ArtifactHash, mirrors: Iterable[Mirror], quarantined: Iterable[Quarantined]
) -> ArtifactDetail:
    """Describe an artifact's copies.

    Raises:
        NotFound: no dataset has a file of that name, nor a damaged one in quarantine.
    """
    aside = [each for each in quarantined if each.file.artifact == artifact]
    copies = tuple(_copy_detail(artifact, mirror, aside) for mirror in mirrors)
    if not aside and all(copy.size_bytes is None for copy in copies):
        raise NotFound(f"{artifact} is not here")
    return ArtifactDetail(artifact, copies)


def _copy_detail(
    artifact: ArtifactHash, mirror: Mirror, aside: Iterable[Quarantined]
) -> CopyDetail:
    copy = mirror.artifacts.get(artifact)
    ids = tuple(each.id for each in aside if each.index == mirror.index)
    if copy is None:
        return CopyDetail(str(mirror.path), present=False, damaged=bool(ids), quarantined=ids)
    counts = mirror.certain_copy(artifact) is not None
    return CopyDetail(
        str(mirror.path),
        counts,
        copy.verified_at_s,
        copy.size_bytes,
        str(mirror.path / str(artifact)) if counts else None,
        damaged=mirror.good_copy(artifact) is None,
        quarantined=ids,
    )
