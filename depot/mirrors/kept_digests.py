"""Block digests as each mirror keeps them beside its copies: found, and made up for where missing.

They are believed for their checksum and what they are bound to, whichever mirror has them. They are
derived: a mirror that cannot take them does without, and is as healthy as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import compress

from depot.artifact import ArtifactHash
from depot.dataset.dataset import Dataset
from depot.document import Unreadable
from depot.errors import DatasetUnusable
from depot.mirrors.mirror import Mirror
from depot.streams.block_digests import BlockDigests, decode_digests, encode_digests


async def keep_digests(mirrors: Iterable[Mirror], digests: BlockDigests) -> None:
    """Write block digests to each mirror; one that cannot take them does without."""
    content = encode_digests(digests)

    async def keep(mirror: Mirror) -> None:
        with suppress(OSError, DatasetUnusable):
            await mirror.read(Dataset.write_block_digests, digests.artifact, content)

    await asyncio.gather(*map(keep, mirrors))


async def read_digests(
    mirror: Mirror, artifact: ArtifactHash, size_bytes: int | None
) -> BlockDigests | None:
    """Read the block digests kept on a mirror; None when there are none to believe.

    Those of an artifact of any size will do when `size_bytes` is None.

    Raises:
        TimeoutError: the device does not answer, and would keep whoever asks on waiting.
    """
    try:
        content = await mirror.read(Dataset.read_block_digests, artifact)
        return None if content is None else decode_digests(content, artifact, size_bytes)
    except TimeoutError:
        raise
    except (OSError, DatasetUnusable, Unreadable):
        return None  # derived anew, like one that was never there


async def digests_on_any(
    mirrors: Iterable[Mirror], artifact: ArtifactHash, size_bytes: int
) -> BlockDigests | None:
    """Read the block digests of the first healthy mirror that has some to believe."""
    for mirror in mirrors:
        if mirror.healthy and (kept := await _ask(mirror, artifact, size_bytes)):
            return kept
    return None


async def make_up(mirrors: Collection[Mirror], digests: BlockDigests) -> None:
    """Have each healthy mirror keep block digests of the artifact; what it can use stays."""
    healthy = [mirror for mirror in mirrors if mirror.healthy]
    asked = (_ask(mirror, digests.artifact, digests.size_bytes) for mirror in healthy)
    lacking = [kept is None for kept in await asyncio.gather(*asked)]
    # Whoever has just been waited for in vain is not healthy any more.
    await keep_digests((m for m in compress(healthy, lacking) if m.healthy), digests)


async def _ask(mirror: Mirror, artifact: ArtifactHash, size_bytes: int) -> BlockDigests | None:
    with suppress(DatasetUnusable):  # it has left meanwhile
        dataset = mirror.dataset
        try:
            return await read_digests(mirror, artifact, size_bytes)
        except TimeoutError as error:
            mirror.failed(error, dataset)  # nobody waits for it at every copy
    return None
