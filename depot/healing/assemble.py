"""An artifact put together out of damaged copies, block by block.

Copies that are bad in different places are whole between them. Each block is read past the page
cache and believed only when it matches its digest; what comes out goes through the ordinary put,
which hashes it as a whole, so that not even wrong block digests could spread a wrong byte.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from depot.artifact import ArtifactHash
from depot.dataset import quarantine_files
from depot.errors import DatasetUnusable
from depot.mirrors.kept_digests import read_digests
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.quarantine.keeper import QuarantineKeeper
from depot.streams.block_digests import BlockDigest, BlockDigests
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.sources import Pace, StreamSource


@dataclass(frozen=True, slots=True)
class Remains:
    """A damaged copy: the mirror it is on, its path there, its size."""

    mirror: Mirror
    path: str
    size_bytes: int


def remains_of(
    artifact: ArtifactHash, mirrors: MirrorSet, quarantine: QuarantineKeeper
) -> list[Remains]:
    """Every damaged copy of an artifact that can be read: in its place, or in quarantine."""
    standing = ((mirror, mirror.artifacts.get(artifact)) for mirror in mirrors.readable())
    found = [Remains(m, str(artifact), copy.size_bytes) for m, copy in standing if copy]
    aside = quarantine.of_artifact(artifact)
    return found + [Remains(mirror, file.path, file.size_bytes) for mirror, file in aside]


async def find_digests(
    artifact: ArtifactHash, remains: Iterable[Remains], mirrors: MirrorSet
) -> BlockDigests | None:
    """Block digests by which blocks of `remains` can be told from rot; None: there is no use."""
    for mirror in mirrors.readable():
        with suppress(TimeoutError):
            if kept := await read_digests(mirror, artifact, None):
                return kept
    # The name of an artifact of one block says its digest: some copy is whole, or none is of use.
    for each in remains:
        if each.size_bytes <= BLOCK_SIZE_BYTES:
            with suppress(OSError, DatasetUnusable):
                size_bytes, digest = each.size_bytes, BlockDigest(artifact.digest)
                read = quarantine_files.read_block
                if await each.mirror.read(read, each.path, 0, size_bytes, digest) is not None:
                    return BlockDigests.of_one_block(artifact, size_bytes)
    return None


class Assembler:
    """Reads the blocks of one artifact from whichever of its remains has them."""

    def __init__(self, digests: BlockDigests, remains: Sequence[Remains]) -> None:
        self._digests = digests
        self._remains = list(remains)
        self._offset_bytes = 0

    def source(self) -> StreamSource:
        """The artifact as a stream, for a put; on the running event loop."""
        loop = asyncio.get_running_loop()
        return StreamSource(loop, self._read, Pace(), self._digests.size_bytes)

    async def _read(self, _size_bytes: int) -> bytes:
        start = self._offset_bytes
        if start >= self._digests.size_bytes:
            return b""
        content = await self._block(start)
        self._offset_bytes += len(content)
        return content

    async def _block(self, start: int) -> bytes:
        _, end = self._digests.block_bounds(start)
        digest = self._digests.of_block(start)
        for each in tuple(self._remains):
            try:
                content = await each.mirror.read(
                    quarantine_files.read_block, each.path, start, end - start, digest
                )
            except (TimeoutError, DatasetUnusable):
                self._remains.remove(each)  # nobody waits twice for a device that hangs
                continue
            except OSError:
                continue
            if content is not None:
                with suppress(ValueError):  # neighbours are likely to be good there, too
                    self._remains.remove(each)
                    self._remains.insert(0, each)
                return content
        raise OSError(errno.EIO, f"no copy has the block at byte {start}")
