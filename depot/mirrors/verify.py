"""Proving that a copy holds the bytes its name says: length and SHA-256, past the page cache.

A full verification is also where block digests come from when they are missing: they are believed
because the bytes they were taken from hashed to the artifact's name in the same pass. Whoever
verifies every copy has those made up for on every mirror, from another mirror where one has them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import Final, Protocol

from depot.artifact import ArtifactHash
from depot.dataset import verification
from depot.dataset.dataset import Dataset
from depot.dataset.probing import probe
from depot.dataset.verification import Begun
from depot.errors import DatasetUnusable
from depot.mirrors.condition import casts_doubt, is_own_want
from depot.mirrors.inventory import Copy
from depot.mirrors.kept_digests import digests_on_any, make_up
from depot.mirrors.mirror import Mirror
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


@dataclass(frozen=True, slots=True)
class _Finding:
    """What reading a copy told, and the block digests that some mirror lacks, of a good one."""

    verdict: Verdict
    digests: BlockDigests | None = None


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


async def judge_copy(
    mirror: Mirror,
    artifact: ArtifactHash,
    pacer: Pacer | None = None,
    keepers: Collection[Mirror] = (),
) -> Verdict:
    """Read and hash a copy that is not known to be damaged, and record the outcome.

    When it is good, and the mirror lacks its block digests, each of `keepers` that lacks them gets
    them.
    """
    copy = mirror.artifacts.get(artifact)
    if copy is None or copy.damaged or not mirror.readable:
        return Verdict.UNKNOWN
    try:
        found = await _find(mirror, artifact, copy.size_bytes, pacer, keepers)
    except OSError:
        found = _Finding(Verdict.BAD)
    if mirror.artifacts.get(artifact) is not copy:  # replaced meanwhile: judged another time
        return Verdict.UNKNOWN
    _record(mirror, artifact, copy, found.verdict)
    if found.digests is not None:
        await make_up(keepers, found.digests)
    return found.verdict


def _record(mirror: Mirror, artifact: ArtifactHash, copy: Copy, verdict: Verdict) -> None:
    match verdict:
        case Verdict.GOOD:
            mirror.record(artifact, replace(copy, verified_at_s=time.time()))
        case Verdict.BAD:
            mirror.record(artifact, replace(copy, damaged=True, verified_at_s=None))
        case Verdict.GONE:
            mirror.gone(artifact)
        case Verdict.UNKNOWN:
            pass


async def derive_digests(
    mirror: Mirror, artifact: ArtifactHash, size_bytes: int
) -> BlockDigests | None:
    """Read a copy whole and take its block digests; None when it is not the artifact.

    Raises:
        OSError, DatasetUnusable: it cannot be read.
    """
    dataset, blocks = mirror.dataset, bytearray()
    async with _verification(mirror, dataset, artifact) as begun:
        if begun.size_bytes != size_bytes:
            return None
        verdict = await _hash(mirror, dataset, artifact, begun, blocks=blocks)
    return BlockDigests(artifact, size_bytes, bytes(blocks)) if verdict is Verdict.GOOD else None


async def judge_file(
    mirror: Mirror, artifact: ArtifactHash, size_bytes: int, pacer: Pacer | None = None
) -> Verdict:
    """Read what stands under a name, whatever is thought of it; nothing is recorded.

    Raises:
        OSError: it cannot be read, on a device that works.
    """
    return (await _find(mirror, artifact, size_bytes, pacer)).verdict


async def _find(
    mirror: Mirror,
    artifact: ArtifactHash,
    size_bytes: int,
    pacer: Pacer | None,
    keepers: Collection[Mirror] = (),
) -> _Finding:
    dataset = mirror.dataset
    try:
        return await _read(mirror, dataset, artifact, size_bytes, pacer, keepers)
    except FileNotFoundError:
        return _Finding(Verdict.GONE)
    except (TimeoutError, DatasetUnusable) as error:
        mirror.failed(error, dataset)
        return _Finding(Verdict.UNKNOWN)
    except OSError as error:
        # One bad sector, or a device that fails as a whole? That says nothing about its copies.
        # Nor does a want of descriptors or memory, which is this process's own.
        if is_own_want(error) or not await works(mirror):
            return _Finding(Verdict.UNKNOWN)
        raise


async def _read(
    mirror: Mirror,
    dataset: Dataset,
    artifact: ArtifactHash,
    size_bytes: int,
    pacer: Pacer | None,
    keepers: Collection[Mirror],
) -> _Finding:
    if pacer is not None and not await pacer.may_read():
        return _Finding(Verdict.UNKNOWN)
    async with _verification(mirror, dataset, artifact, ask_digests=bool(keepers)) as begun:
        if begun.size_bytes != size_bytes:
            return _Finding(Verdict.BAD)  # nothing is read
        digests, blocks = None, None
        if begun.lacks_digests:
            others = (keeper for keeper in keepers if keeper is not mirror)
            digests = await digests_on_any(others, artifact, size_bytes)
            blocks = bytearray() if digests is None else None
        verdict = await _hash(mirror, dataset, artifact, begun, pacer, blocks)
    if verdict is not Verdict.GOOD:
        return _Finding(verdict)
    if blocks is not None:
        digests = BlockDigests(artifact, size_bytes, bytes(blocks))
    return _Finding(verdict, digests)


async def _hash(
    mirror: Mirror,
    dataset: Dataset,
    artifact: ArtifactHash,
    begun: Begun,
    pacer: Pacer | None = None,
    blocks: bytearray | None = None,
) -> Verdict:
    """Read all that a verification is of; each block's own digest is added to `blocks`."""
    most_s, by_block = mirror.timeout_s / _SHARE_OF_DEADLINE, blocks is not None
    while True:
        stepping = mirror.begin(verification.step, dataset, begun.name, most_s, by_block=by_block)
        step = await mirror.wait(stepping)
        if pacer is not None:
            pacer.has_read(step.read_bytes)
        if blocks is not None:
            blocks += step.block_digests
        if step.digest is not None:
            return Verdict.GOOD if step.digest == artifact.digest else Verdict.BAD
        if pacer is not None and not await pacer.may_read():
            return Verdict.UNKNOWN


@asynccontextmanager
async def _verification(
    mirror: Mirror, dataset: Dataset, artifact: ArtifactHash, *, ask_digests: bool = False
) -> AsyncIterator[Begun]:
    beginning = mirror.begin(verification.begin, dataset, artifact, ask_digests=ask_digests)
    try:
        begun = await mirror.wait(beginning)
    except BaseException:
        beginning.add_done_callback(partial(_end_late, mirror, dataset))
        raise
    try:
        yield begun
    finally:
        mirror.begin(verification.end, dataset, begun.name)


async def works(mirror: Mirror) -> bool:
    """Tell whether the device itself can be believed when it says that a copy is unreadable.

    One that is read-only cannot: ext4 becomes that when its disk is gone.
    """
    try:
        await mirror.call(probe)
    except OSError as error:
        return full_disk(error) and not casts_doubt(error)  # it can be read, as `probe` says
    except DatasetUnusable:
        return False
    return True


def _end_late(mirror: Mirror, dataset: Dataset, beginning: Future[Begun]) -> None:
    if not beginning.cancelled() and beginning.exception() is None:
        mirror.begin(verification.end, dataset, beginning.result().name)
