"""Opening an agent: its store first and, while its disks are looked at, the rest of the program.

The store comes first because it holds the lock that keeps a second agent out. Its worker processes
find a hundred thousand files in about the time that it takes to import what serves them, which is
why `agent.assembly` is imported here, in a thread, and by nobody who starts an agent before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.settings import Settings
from agent.event_relay import EventRelay
from agent.loop_lag import LoopLag, measured_lag
from agent.process import CannotStart
from depot.concurrency.threads import DaemonThreads
from depot.device.host import DeviceWorkers
from depot.options import StoreOptions
from depot.reading.reader import VerifyReads
from depot.store import ArtifactStore

if TYPE_CHECKING:
    from agent.assembly import Agent

_Assembled = Callable[
    [Settings, Path, ArtifactStore, EventRelay, LoopLag], AbstractAsyncContextManager["Agent"]
]


@asynccontextmanager
async def opened(settings: Settings, state_dir: Path) -> AsyncIterator[Agent]:
    """Open the store, build an agent around it, and take it apart again.

    Raises:
        DatasetBusy: another agent holds the state directory or every dataset.
        DepotError, OSError: the state directory cannot be used.
        CannotStart: a part of the program cannot be imported.
    """
    relay = EventRelay()
    async with AsyncExitStack() as stack:
        lag = stack.enter_context(measured_lag())
        # A daemon thread: when the store cannot be opened, nobody waits for it.
        thread = DaemonThreads("imports", 1)
        importing = thread.submit(_imported)
        thread.close()
        store = await stack.enter_async_context(
            await ArtifactStore.open(
                settings.dataset_paths,
                state_dir=state_dir,
                options=store_options(settings),
                on_event=relay,
            )
        )
        assembled = await asyncio.wrap_future(importing)
        yield await stack.enter_async_context(assembled(settings, state_dir, store, relay, lag))


def _imported() -> _Assembled:
    try:
        from agent.assembly import assembled
    except (ImportError, OSError) as error:
        raise CannotStart(f"agent.assembly cannot be imported: {error}") from error
    return assembled


def store_options(settings: Settings) -> StoreOptions:
    """The part of the settings that is the store's."""
    storage = settings.storage
    return StoreOptions(
        quota_bytes=storage.quota_bytes,
        max_artifact_size_bytes=storage.max_artifact_size_bytes,
        require_mountpoint=storage.require_mountpoint,
        min_copies=storage.min_copies,
        max_concurrent_puts=storage.max_concurrent_puts,
        max_concurrent_copies=settings.copy_.max_concurrent,
        delete_grace_s=storage.delete_grace_s,
        reconcile_interval_s=storage.reconcile_interval_s,
        device_timeout_s=storage.device_timeout_s,
        mirror_lag_s=storage.mirror_lag_s,
        group_commit=storage.group_commit,
        device_workers=DeviceWorkers(storage.device_workers),
        verify_reads=VerifyReads(storage.verify_reads),
        direct_io=storage.direct_io == "auto",
        chained_digests=storage.block_digests == "chained",
        scrub_interval_s=settings.scrub.interval_s,
        scrub_max_bytes_per_s=settings.scrub.max_bytes_per_s,
        heal_max_bytes_per_s=settings.heal.max_bytes_per_s,
        quarantine_bytes=storage.quarantine_bytes,
        sled_id=settings.sled_id,
        checksum_state=settings.debug.checksum_state,
        relay=settings.depot.relay,
    )
