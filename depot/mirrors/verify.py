"""Proving that a copy holds the bytes its name says: length and SHA-256, past the page cache.

A full verification is also where block digests come from when they are missing: they are believed
because the bytes they were taken from hashed to the artifact's name in the same pass.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import Final, Protocol

from depot.artifact import ArtifactHash
from depot.dataset import verification
from depot.dataset.dataset import Dataset
from depot.dataset.verification import Begun, Step
from depot.errors import DatasetUnusable
from depot.mirrors.mirror import Copy, Mirror, casts_doubt, is_own_want
from depot.os_errors import full_disk
from depot.streams.block_digests import BlockDigests

_SHARE_OF_DEADLINE: Final = 4
"""A step begins no block after this part of its deadline; the rest is for the block it is in."""


class Pacer(Protocol):
    """Decides when a verification that nobody waits for reads on."""

    async def may_read(self) -> bool:
        """Wait until the next step may be read; False: give the copy up."""

    def has_read(self, count_bytes: int) -> None:
        """Count what a step has read."""


class Verdict(Enum):
    """What reading a copy told."""

    GOOD = auto()
    BAD = auto()
    GONE = auto()
    UNKNOWN = auto()
    """The device does not answer, the copy was replaced meanwhile, or it was given up."""


async def verify_copy(mirror: Mirror, artifact: ArtifactHash) -> Copy | None:
    """Read and hash a copy now, and record the outcome; None unless it is good.

    A copy that cannot be read or does not match is recorded as damaged; when the device as a whole
    does not answer, nothing is said about the copy.
    """
    if mirror.good_copy(artifact) is None:
        return None
    async with mirror.verifying:
        good = await judge_copy(mirror, artifact) is Verdict.GOOD
    return mirror.good_copy(artifact) if good else None


async def judge_copy(mirror: Mirror, artifact: ArtifactHash, pacer: Pacer | None = None) -> Verdict:
    """Read and hash a copy that is not known to be damaged, and record the outcome."""
    copy = mirror.artifacts.get(artifact)
    if copy is None or copy.damaged or not mirror.readable:
        return Verdict.UNKNOWN
    verdict = await _judge(mirror, artifact, copy.size_bytes, pacer)
    if mirror.artifacts.get(artifact) is not copy:  # replaced meanwhile: judged another time
        return Verdict.UNKNOWN
    match verdict:
        case Verdict.GOOD:
            mirror.record(artifact, replace(copy, verified_at_s=time.time()))
        case Verdict.BAD:
            mirror.record(artifact, replace(copy, damaged=True, verified_at_s=None))
        case Verdict.GONE:
            mirror.gone(artifact)
        case Verdict.UNKNOWN:
            pass
    return verdict


async def derive_digests(
    mirror: Mirror, artifact: ArtifactHash, size_bytes: int
) -> BlockDigests | None:
    """Read a copy whole and take its block digests; None when it is not the artifact.

    Raises:
        OSError, DatasetUnusable: it cannot be read.
    """
    blocks = bytearray()
    async with aclosing(
        _steps(mirror, mirror.dataset, artifact, size_bytes, by_block=True)
    ) as steps:
        async for step in steps:
            blocks += step.block_digests
            if step.digest == artifact.digest:
                return BlockDigests(artifact, size_bytes, bytes(blocks))
    return None


async def judge_file(
    mirror: Mirror, artifact: ArtifactHash, size_bytes: int, pacer: Pacer | None = None
) -> Verdict:
    """Read what stands under a name, whatever is thought of it; nothing is recorded.

    Raises:
        OSError: it cannot be read, on a device that works.
    """
    dataset = mirror.dataset
    try:
        return await _read(mirror, dataset, artifact, size_bytes, pacer)
    except FileNotFoundError:
        return Verdict.GONE
    except (TimeoutError, DatasetUnusable) as error:
        mirror.failed(error, dataset)
        return Verdict.UNKNOWN
    except OSError as error:
        # One bad sector, or a device that fails as a whole? That says nothing about its copies.
        # Nor does a want of descriptors or memory, which is this process's own.
        if is_own_want(error) or not await works(mirror):
            return Verdict.UNKNOWN
        raise


async def _judge(
    mirror: Mirror, artifact: ArtifactHash, size_bytes: int, pacer: Pacer | None
) -> Verdict:
    try:
        return await judge_file(mirror, artifact, size_bytes, pacer)
    except OSError:
        return Verdict.BAD


async def _read(
    mirror: Mirror,
    dataset: Dataset,
    artifact: ArtifactHash,
    size_bytes: int,
    pacer: Pacer | None,
) -> Verdict:
    if pacer is not None and not await pacer.may_read():
        return Verdict.UNKNOWN
    async with aclosing(_steps(mirror, dataset, artifact, size_bytes)) as steps:
        async for step in steps:
            if pacer is not None:
                pacer.has_read(step.read_bytes)
            if step.digest is not None:
                return Verdict.GOOD if step.digest == artifact.digest else Verdict.BAD
            if pacer is not None and not await pacer.may_read():
                return Verdict.UNKNOWN
    return Verdict.BAD  # of another size: nothing was read


async def _steps(
    mirror: Mirror,
    dataset: Dataset,
    artifact: ArtifactHash,
    size_bytes: int,
    *,
    by_block: bool = False,
) -> AsyncGenerator[Step]:
    begun = await _begin(mirror, dataset, artifact, by_block=by_block)
    try:
        if begun.size_bytes != size_bytes:
            return
        most_s = mirror.timeout_s / _SHARE_OF_DEADLINE
        while True:
            stepping = mirror.begin(verification.step, dataset, begun.name, most_s)
            step = await mirror.wait(stepping)
            yield step
            if step.digest is not None:
                return
    finally:
        mirror.begin(verification.end, dataset, begun.name)


async def _begin(
    mirror: Mirror, dataset: Dataset, artifact: ArtifactHash, *, by_block: bool
) -> Begun:
    beginning = mirror.begin(verification.begin, dataset, artifact, by_block)
    try:
        return await mirror.wait(beginning)
    except BaseException:
        beginning.add_done_callback(partial(_end_late, mirror, dataset))
        raise


async def works(mirror: Mirror) -> bool:
    """Tell whether the device itself can be believed when it says that a copy is unreadable.

    One that is read-only cannot: ext4 becomes that when its disk is gone.
    """
    try:
        await mirror.call(Dataset.probe)
    except OSError as error:
        return full_disk(error) and not casts_doubt(error)  # it answers
    except DatasetUnusable:
        return False
    return True


def _end_late(mirror: Mirror, dataset: Dataset, beginning: Future[Begun]) -> None:
    if not beginning.cancelled() and beginning.exception() is None:
        mirror.begin(verification.end, dataset, beginning.result().name)
