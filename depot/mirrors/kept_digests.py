"""Block digests as each mirror keeps them beside its copies: written and read.

They are believed for their checksum and what they are bound to, whichever mirror has them. They are
derived: a mirror that cannot take them does without, and is as healthy as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

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
