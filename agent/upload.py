"""An artifact on its way to an agent: the request body, how far it is, and the patience with it.

The body is asked for only after `100 Continue`, so `sent` tells whether the agent wanted it. Each
block that moves earns the server another spell of patience: aiohttp itself has no limit on how long
a body may stand still.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

BLOCK_BYTES: Final = 1 << 20

OnSent = Callable[[int], None]
"""Called with the number of bytes sent so far."""


class Upload:
    """One body.

    Attributes:
        size_bytes: its length.
        sent: whether it was asked for.
        error: why the file could not be read; aiohttp reports that as the connection's error.
    """

    def __init__(
        self, file: BinaryIO, size_bytes: int, on_sent: OnSent | None, idle_timeout_s: float | None
    ) -> None:
        self._file = file
        self._on_sent = on_sent
        self._idle_timeout_s = idle_timeout_s
        self._patience: asyncio.Timeout | None = None
        self.size_bytes = size_bytes
        self.sent = False
        self.error: OSError | None = None

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """Bound how long the body may stand still, and how long its answer may take.

        Unless the caller does.

        Raises:
            TimeoutError: it did, or it took longer.
        """
        async with asyncio.timeout(self._idle_timeout_s) as self._patience:
            yield

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body; one block is in memory at a time."""
        self.sent = True
        done_bytes = 0
        while block := await self._read():
            yield block
            done_bytes += len(block)
            self._moved(done_bytes)

    async def _read(self) -> bytes:
        try:
            return await asyncio.to_thread(self._file.read, BLOCK_BYTES)
        except OSError as error:
            self.error = error
            raise

    def _moved(self, done_bytes: int) -> None:
        if self._idle_timeout_s and self._patience is not None and not self._patience.expired():
            now_s = asyncio.get_running_loop().time()
            self._patience.reschedule(now_s + self._idle_timeout_s)
        if self._on_sent is not None:
            self._on_sent(done_bytes)


@asynccontextmanager
async def open_upload(
    content: Path | bytes, *, on_sent: OnSent | None, idle_timeout_s: float | None
) -> AsyncIterator[Upload]:
    """Open a file, or wrap what is in memory, for the block.

    With an `idle_timeout_s` of None, it is the caller who bounds how long it may stand still.

    Raises:
        OSError: it cannot be opened.
    """
    file, size_bytes = await asyncio.to_thread(_open, content)
    try:
        yield Upload(file, size_bytes, on_sent, idle_timeout_s)
    finally:
        await asyncio.to_thread(file.close)


def _open(content: Path | bytes) -> tuple[BinaryIO, int]:
    if isinstance(content, bytes):
        return io.BytesIO(content), len(content)
    file = content.open("rb", buffering=0)
    try:
        return file, os.fstat(file.fileno()).st_size
    except BaseException:
        file.close()
        raise
