"""Sending a release to a coordinator, with progress: a zip, or a directory that becomes one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.cli.failures import naming, usage
from agent.cli.output import Output
from agent.cli.progress import Meter, display
from coordinator.cli.packing import look_at, packed
from coordinator.client import CoordinatorClient
from coordinator.wire import ReleaseUploadedBody

# What a coordinator needs some seconds for, after the last byte was sent.
TAKES_TIME_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was typed about an upload."""

    allow_expired: bool
    version: str | None


async def upload_from(
    client: CoordinatorClient, output: Output, path: Path, asked: Asked
) -> ReleaseUploadedBody:
    """Upload a zip, or the repository in a directory.

    Raises:
        Failure: there is no release at `path`.
        OSError: something of it cannot be read.
    """
    name = (await asyncio.to_thread(path.resolve)).name or "release"
    if not await asyncio.to_thread(path.is_dir):
        return await _send(client, output, path, name, asked)
    packing = await asyncio.to_thread(look_at, path)
    kept = ExitStack()
    try:
        with Meter(display(output), "packing", packing.size_bytes) as meter:
            pack = packed(packing, _advancing(meter))
            zipped = await asyncio.to_thread(kept.enter_context, pack)
        return await _send(client, output, zipped, f"{name}.zip", asked)
    finally:
        await asyncio.to_thread(kept.close)


def _advancing(meter: Meter) -> Callable[[int], None]:
    """The meter's `advance`, to be called in a thread."""
    loop = asyncio.get_running_loop()

    def advance(count_bytes: int) -> None:
        loop.call_soon_threadsafe(meter.advance, count_bytes)

    return advance


async def _send(
    client: CoordinatorClient, output: Output, path: Path, name: str, asked: Asked
) -> ReleaseUploadedBody:
    with naming(path):
        size_bytes = (await asyncio.to_thread(path.stat)).st_size
    if not size_bytes:
        raise usage(f"{path}: expected a zip of a TUF repository, found an empty file")
    with Meter(display(output), "uploading", size_bytes) as meter, naming(path):

        def sent(count_bytes: int) -> None:
            meter.at(count_bytes)
            if count_bytes == size_bytes >= TAKES_TIME_BYTES:
                output.note("sent; the coordinator verifies and stages it")

        return await client.upload_release(
            path,
            file_name=name,
            allow_expired=asked.allow_expired,
            version=asked.version,
            on_sent=sent,
        )
