"""Sending a release to a coordinator, with progress: a zip, or a directory that becomes one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from agent.cli.failures import naming, usage
from agent.cli.output import Output
from agent.cli.progress import Meter, display
from coordinator.cli.packing import Packing, look_at, pack
from coordinator.client import CoordinatorClient
from coordinator.uploads.threads import run_until_over
from coordinator.wire import ReleaseUploadedBody
from depot.concurrency.threads import DaemonThreads

# What a coordinator needs some seconds for, after the last byte was sent.
TAKES_TIME_BYTES: Final = 64 << 20

MAYBE_RECORDED: Final = (
    "whether the release is recorded is not known: the coordinator may have gone on with it; "
    "`depot-coordinator release ls` shows it then, and the same upload again does no harm"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was typed about an upload."""

    allow_expired: bool
    version: str | None


@contextmanager
def place_for_zip(path: Path) -> Iterator[Path]:
    """A directory for the zip of what is in a directory; it goes with the block. Blocks."""
    if not path.is_dir():
        yield path.parent
        return
    with TemporaryDirectory(prefix="depot-coordinator-") as place:
        yield Path(place)


async def upload_from(
    client: CoordinatorClient, output: Output, path: Path, asked: Asked, place: Path
) -> ReleaseUploadedBody:
    """Upload a zip, or the repository in a directory, which is packed in `place`.

    Raises:
        Failure: there is no release at `path`.
        OSError: something of it cannot be read.
    """
    name = (await asyncio.to_thread(path.resolve)).name or "release"
    if not await asyncio.to_thread(path.is_dir):
        return await _send(client, output, path, name, asked)
    packing = await asyncio.to_thread(look_at, path)
    zipped = place / "release.zip"
    with Meter(display(output), "packing", packing.size_bytes) as meter:
        await _pack(packing, zipped, meter)
    return await _send(client, output, zipped, f"{name}.zip", asked)


async def _pack(packing: Packing, zipped: Path, meter: Meter) -> None:
    """Pack in a thread, which ends soon when nobody waits for it any more (Ctrl-C)."""
    loop, stop = asyncio.get_running_loop(), threading.Event()

    def on_packed(count_bytes: int) -> None:
        if stop.is_set():
            raise _Stopped
        loop.call_soon_threadsafe(meter.advance, count_bytes)

    threads = DaemonThreads("packing", 1)
    try:
        await run_until_over(threads, partial(pack, packing, zipped, on_packed), stop.set)
    finally:
        threads.close()


class _Stopped(Exception):
    """Nobody wants the zip any more."""


@dataclass(slots=True)
class _Way:
    """How far an upload is."""

    sent_bytes: int = 0


@contextmanager
def _told_what_became(output: Output, size_bytes: int) -> Iterator[_Way]:
    """Upload within the block; Ctrl-C meanwhile tells what became of the release."""
    way = _Way()
    try:
        yield way
    except asyncio.CancelledError:
        if way.sent_bytes < size_bytes:
            output.note("nothing was recorded: the release had not been sent whole")
        else:
            output.warning(MAYBE_RECORDED)
        raise


async def _send(
    client: CoordinatorClient, output: Output, path: Path, name: str, asked: Asked
) -> ReleaseUploadedBody:
    with naming(path):
        size_bytes = (await asyncio.to_thread(path.stat)).st_size
    if not size_bytes:
        raise usage(f"{path}: expected a zip of a TUF repository, found an empty file")
    with (
        _told_what_became(output, size_bytes) as way,
        Meter(display(output), "uploading", size_bytes) as meter,
        naming(path),
    ):

        def sent(count_bytes: int) -> None:
            meter.at(count_bytes)
            way.sent_bytes = count_bytes
            if count_bytes == size_bytes:
                meter.label("(verifying)")  # or the bar would seem to stand
            if count_bytes == size_bytes >= TAKES_TIME_BYTES:
                output.note("sent; the coordinator verifies and stages it")

        return await client.upload_release(
            path,
            file_name=name,
            allow_expired=asked.allow_expired,
            version=asked.version,
            on_sent=sent,
        )
