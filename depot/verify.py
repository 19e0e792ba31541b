"""Proving that a copy holds the bytes its name says: length and SHA-256, past the page cache.

A full verification is also where block digests come from when they are missing: they are believed
because the bytes they were taken from hashed to the artifact's name in the same pass.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import Final

from depot.artifact import ArtifactHash
from depot.block_digests import BlockDigests
from depot.blocks import BLOCK_SIZE_BYTES
from depot.dataset import Dataset
from depot.errors import DatasetUnusable
from depot.mirror import Copy, Mirror

STEP_BYTES: Final = 32 << 20
"""Hashed in one call, so that a device's deadline never depends on an artifact's size."""


async def verify_copy(mirror: Mirror, artifact: ArtifactHash) -> Copy | None:
    """Read and hash a copy now, and record the outcome; None unless it is good.

    A copy that cannot be read or does not match is recorded as damaged; when the device as a whole
    does not answer, nothing is said about the copy.
    """
    if mirror.good_copy(artifact) is None:
        return None
    async with mirror.verifying:
        return await _verify(mirror, artifact)


async def _verify(mirror: Mirror, artifact: ArtifactHash) -> Copy | None:
    copy = mirror.good_copy(artifact)
    if copy is None:
        return None
    try:
        intact = await _matches(mirror, artifact, copy.size_bytes)
    except TimeoutError as error:
        mirror.failed(error)
        return None
    except FileNotFoundError:
        mirror.record(artifact, None)
        return None
    except OSError:
        intact = False
    except DatasetUnusable as error:
        mirror.failed(error)
        return None
    if mirror.artifacts.get(artifact) is not copy:  # replaced meanwhile: judged another time
        return None
    verified = replace(copy, verified_at_s=time.time()) if intact else replace(copy, damaged=True)
    mirror.record(artifact, verified)
    return verified if intact else None


async def derive_digests(
    mirror: Mirror, artifact: ArtifactHash, size_bytes: int
) -> BlockDigests | None:
    """Read a copy whole and take its block digests; None when it is not the artifact.

    Raises:
        OSError, DatasetUnusable: it cannot be read.
    """
    blocks: list[bytes] = []
    if not await _matches(mirror, artifact, size_bytes, blocks):
        return None
    return BlockDigests(artifact, size_bytes, b"".join(blocks))


async def _matches(
    mirror: Mirror, artifact: ArtifactHash, size_bytes: int, blocks: list[bytes] | None = None
) -> bool:
    fd, found_bytes = await mirror.open_artifact(artifact)
    digest = hashlib.sha256()
    try:
        if found_bytes != size_bytes:
            return False
        for offset_bytes in range(0, size_bytes, STEP_BYTES):
            await mirror.read(_hash_step, fd, digest, offset_bytes, blocks)
        return digest.digest() == artifact.digest
    finally:
        mirror.begin(_close, fd)  # behind a step that may still be running


def _hash_step(
    dataset: Dataset,
    fd: int,
    digest: hashlib._Hash,
    offset_bytes: int,
    blocks: list[bytes] | None,
) -> None:
    # A cached read would only prove what memory holds, not what the disk does.
    with suppress(OSError):
        os.posix_fadvise(fd, offset_bytes, STEP_BYTES, os.POSIX_FADV_DONTNEED)
    end_bytes = offset_bytes + STEP_BYTES
    while offset_bytes < end_bytes:
        content = _read_block(dataset, fd, offset_bytes)
        if not content:
            return
        digest.update(content)
        if blocks is not None:
            blocks.append(hashlib.sha256(content).digest())
        offset_bytes += len(content)


def _read_block(dataset: Dataset, fd: int, offset_bytes: int) -> bytes:
    content = dataset.disk.pread(fd, BLOCK_SIZE_BYTES, offset_bytes)
    # A block digest is of the whole block, however many reads that takes.
    while 0 < len(content) < BLOCK_SIZE_BYTES:
        left_bytes = BLOCK_SIZE_BYTES - len(content)
        more = dataset.disk.pread(fd, left_bytes, offset_bytes + len(content))
        if not more:
            break
        content += more
    return content


def _close(fd: int) -> None:
    os.close(fd)
