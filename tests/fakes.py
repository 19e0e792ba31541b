"""Fakes at the seams that more than one test file needs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Self

from depot.artifact import ArtifactHash
from depot.dataset.page_cache import CachedFile
from depot.errors import NoDataset, NotFound
from depot.http.carrier import read_into
from depot.http.hot_artifacts import HotArtifacts
from depot.mirrors.open_artifact import OpenArtifact


class FakeCachedFile(CachedFile):
    """A file of which memory has `content`, or nothing.

    Attributes:
        reads: how often it was read.
    """

    def __init__(self, content: bytes | None, on_read: Callable[[], None] = lambda: None) -> None:
        self.reads = 0
        self._content = content
        self._on_read = on_read

    def read(self) -> bytes | None:
        self.reads += 1
        self._on_read()
        return self._content


class FakeStore:
    """Artifacts on two mirrors, without any of the rules of the real store.

    Attributes:
        failures: what `read_failed` was told, as (dataset, error).
        hot: for the depot app in front of it; None: without a fast path.
        reads: how often some were read together.
        reads_together: set when small artifacts can be read together; None: they cannot be.
    """

    def __init__(self, root: Path) -> None:
        self.mirrors = [root / "m2-a", root / "m2-b"]
        for mirror in self.mirrors:
            mirror.mkdir()
        self.failures: list[tuple[int, OSError]] = []
        self.opened: list[OpenArtifact] = []
        self.gone = False
        self._sizes: dict[ArtifactHash, int] = {}
        self._removed: set[tuple[ArtifactHash, int]] = set()
        self._asked = 0
        self.hot: HotArtifacts | None = None
        self.reads_together: asyncio.Event | None = None
        self.cached: dict[ArtifactHash, FakeCachedFile] = {}
        self.reads = 0

    async def add(
        self, content: bytes, *, truncated: Mapping[int, int] | None = None
    ) -> ArtifactHash:
        """Store `content` on both mirrors; `truncated` cuts the file of a mirror to a size.

        What was truncated keeps its nominal size, as a file does that shrinks while it is read.
        """
        artifact = ArtifactHash.of(content)
        for index, mirror in enumerate(self.mirrors):
            size_bytes = (truncated or {}).get(index, len(content))
            path = mirror / str(artifact)
            await asyncio.to_thread(path.write_bytes, content[:size_bytes])
        self._sizes[artifact] = len(content)
        return artifact

    async def remove(self, artifact: ArtifactHash, mirror: int) -> None:
        """Drop one mirror's copy."""
        self._removed.add((artifact, mirror))
        await asyncio.to_thread((self.mirrors[mirror] / str(artifact)).unlink)

    async def open_artifact(
        self, artifact: ArtifactHash, *, exclude: Collection[int] = (), to_read: bool = True
    ) -> OpenArtifact:
        if self.gone:
            raise NoDataset("no dataset can be read")
        for index, mirror in enumerate(self.mirrors):
            if index in exclude:
                continue
            try:
                fd = await asyncio.to_thread(os.open, mirror / str(artifact), os.O_RDONLY)
            except FileNotFoundError:
                continue
            self.opened.append(OpenArtifact(artifact, self._sizes[artifact], index, fd))
            return self.opened[-1]
        raise NotFound(f"{artifact} is not here", damaged=len(self.failures))

    def read_failed(self, opened: OpenArtifact, error: OSError) -> None:
        self.failures.append((opened.dataset, error))

    def holdings(self) -> Self:
        return self

    @property
    def revision(self) -> int:
        self._asked += 1
        return self._asked

    def size_of(self, artifact: ArtifactHash) -> int | None:
        there = any((artifact, mirror) not in self._removed for mirror in range(len(self.mirrors)))
        return self._sizes.get(artifact) if there and not self.gone else None

    def cached_file(self, artifact: ArtifactHash, _size_bytes: int) -> CachedFile | None:
        return self.cached.get(artifact)

    async def read(
        self, artifacts: Sequence[ArtifactHash], most_bytes: int
    ) -> Sequence[bytes | None]:
        paths = [self.mirrors[0] / str(artifact) for artifact in artifacts]
        if self.reads_together is None:
            return [None] * len(paths)
        self.reads += 1
        await self.reads_together.wait()
        return [await asyncio.to_thread(path.read_bytes) for path in paths]

    def open_descriptors(self) -> int:
        return sum(opened.fd >= 0 for opened in self.opened)


class FaultyDisk:
    """Reads a file until `offset`, where `fault` is called instead, with the mirror's name."""

    def __init__(self, offset: int, fault: Callable[[str], None]) -> None:
        self._offset = offset
        self._fault = fault

    def read(self, fd: int, buffer: memoryview, offset: int) -> int:
        if offset + len(buffer) > self._offset:
            self._fault(Path(os.readlink(f"/proc/self/fd/{fd}")).parent.name)
        return read_into(fd, buffer, offset)
