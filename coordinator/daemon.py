"""The life of the coordinator's process: start, readiness, signals, drain, exit.

The rules are the agent's (S3): the first SIGTERM or SIGINT drains within `drain_timeout_s` and
exits 0, one task group owns every long task, and nothing keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog

from agent import process
from agent.notify import Notifier
from agent.process import EXIT_OK, CannotStart, StopSignals, leave_within
from coordinator.assembly import Coordinator, assembled
from coordinator.settings import CoordinatorSettings
from depot.errors import DatasetBusy, DepotError

# What closing may take beyond draining: cancelled requests, the staging depot, the database.
_CLOSE_TIMEOUT_S: Final = 40.0

_log = structlog.get_logger("coordinator")


@dataclass(frozen=True, slots=True)
class Ready:
    """What others need in order to talk to a running coordinator."""

    url: str
    pid: int

    def line(self) -> str:
        """The one line on stdout."""
        return f"ready coordinator={self.url} pid={self.pid}"

    def write(self, path: Path) -> None:
        """Write the ready file, which is whole or not there."""
        process.write_ready_file(path, asdict(self))


def run(
    settings: CoordinatorSettings, environ: Mapping[str, str], announce: Callable[[Ready], None]
) -> int:
    """Run a coordinator until it is told to stop; the exit status of the process.

    `announce` is called, in a thread, once the server listens.

    Raises:
        CannotStart: with the reason.
    """
    return process.run(_live(settings, environ, announce))


async def _live(
    settings: CoordinatorSettings, environ: Mapping[str, str], announce: Callable[[Ready], None]
) -> None:
    notifier = Notifier.from_environment(environ)
    signals = StopSignals()
    longest_s = settings.drain_timeout_s + _CLOSE_TIMEOUT_S
    signals.install(lambda: leave_within(longest_s, EXIT_OK))
    try:
        async with AsyncExitStack() as stack:
            coordinator = await stack.enter_async_context(assembled(settings))
            await coordinator.listen()
            await _serve(coordinator, signals, notifier, announce)
    except (DepotError, OSError) as error:
        raise CannotStart(why_not(error, settings)) from error
    _log.info("stopped")


async def _serve(
    coordinator: Coordinator,
    signals: StopSignals,
    notifier: Notifier,
    announce: Callable[[Ready], None],
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = coordinator.begin_duties(group)
        tasks.append(
            group.create_task(notifier.keep_alive(coordinator.status_line), name="watchdog")
        )
        tasks.append(group.create_task(_stop_when_quiesced(coordinator, signals), name="quiesced"))
        failure = await _announced(coordinator, announce)
        if failure is None:
            notifier.ready(coordinator.status_line())
            await signals.requested.wait()
        notifier.stopping()
        await coordinator.drain()
        for task in tasks:
            task.cancel()
    if failure is not None:
        raise failure  # here, because the group would wrap it


async def _stop_when_quiesced(coordinator: Coordinator, signals: StopSignals) -> None:
    await coordinator.quiesce.done.wait()
    _log.info("stopping: nothing is only in the staging depot here")
    signals.ask()


async def _announced(
    coordinator: Coordinator, announce: Callable[[Ready], None]
) -> CannotStart | None:
    ready = Ready(coordinator.server.url, os.getpid())
    try:
        await asyncio.to_thread(announce, ready)
    except OSError as error:
        return CannotStart(f"cannot say that it is ready: {error}")
    _log.info("ready", url=ready.url)
    return None


def why_not(error: Exception, settings: CoordinatorSettings) -> str:
    """Say why the coordinator could not start, and with what."""
    if isinstance(error, DatasetBusy):
        return f"another coordinator is running on {settings.staging.path}: {error}"
    if isinstance(error, OSError):
        return f"{error.filename or settings.staging.path}: {error.strerror or error}"
    return str(error)
