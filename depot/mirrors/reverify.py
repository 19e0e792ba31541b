"""Verifying again what a dataset held when it failed, before any of it counts.

After a failed sync, or an error of the device itself, memory may give back what the device never
got. So each copy is read past the page cache and hashed; until then it is in doubt: it can be read,
with its bytes checked, and is not counted. What was synced before the failure may be expected to be
fine, but nobody can tell by how much the device lied, and 20 GiB take a minute or two. A copy that
was verified counts at once; the dataset is written again when no doubt is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from depot.artifact import ArtifactHash
from depot.dataset.dataset import Dataset
from depot.dataset.found_files import FoundFiles
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.mirrors.records import believe
from depot.mirrors.verify import Verdict, judge_copy


async def reverify(mirror: Mirror, *, look_every_s: float) -> bool:
    """Verify every copy in doubt; True when none is left, False when the dataset failed again.

    The path is looked at every `look_every_s` meanwhile: a disk that is taken away is noticed.

    Raises:
        OSError, DatasetUnusable: after the mirror's state was moved.
    """
    failures = mirror.condition.failures
    await mirror.call(Dataset.disown_names)
    await _doubt_unrecorded(mirror)
    looked_s = time.monotonic()
    for artifact in sorted(mirror.doubts.rows):
        if time.monotonic() - looked_s > look_every_s:
            await mirror.call(Dataset.check_identity)
            looked_s = time.monotonic()
        async with mirror.verifying:
            verdict = await judge_copy(mirror, artifact)
        if not mirror.readable or mirror.condition.failures != failures:
            return False
        if verdict is not Verdict.UNKNOWN or mirror.good_copy(artifact) is None:
            believe(mirror, artifact)
    return not mirror.doubts


async def _doubt_unrecorded(mirror: Mirror) -> None:
    """Have what nobody has taken note of, a write that did not end well perhaps, verified too."""
    found = await mirror.call(Dataset.scan)
    known = mirror.artifacts.rows
    for artifact, size_bytes in await asyncio.to_thread(_unrecorded, found, known):
        if artifact not in mirror.artifacts:
            copy = Copy(size_bytes)
            mirror.doubt(artifact, copy)
            mirror.record(artifact, copy)


def _unrecorded(
    found: FoundFiles, known: Mapping[ArtifactHash, Copy]
) -> list[tuple[ArtifactHash, int]]:
    return [(artifact, size) for artifact, size in found.sizes() if artifact not in known]
