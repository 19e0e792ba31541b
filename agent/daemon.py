"""The life of the agent's process: start, readiness, signals, drain, exit.

Rules kept here (S3):
- The first SIGTERM or SIGINT drains: no new work, running requests finish within
  `drain_timeout_s`, exit 0. What a second one does, and what nothing can keep up, is `process`'s.
- One task group owns every long task; none outlives it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from agent import garbage, process
from agent.config.settings import Settings, state_directory
from agent.notify import Notifier
from agent.opening import opened
from agent.process import EXIT_OK, CannotStart, StopSignals, leave_within
from depot.dataset.lock import LOCK
from depot.errors import DatasetBusy, DepotError
from depot.store_status import StoreStatus

if TYPE_CHECKING:
    from agent.assembly import Agent

# What closing may take beyond draining: cancelled requests, the event log, the datasets.
_CLOSE_TIMEOUT_S: Final = 40.0

_log = structlog.get_logger("agent")


@dataclass(frozen=True, slots=True)
class Ready:
    """What others need in order to talk to a running agent."""

    agent_url: str
    depot_url: str
    pid: int

    def line(self) -> str:
        """The one line on stdout."""
        return f"ready agent={self.agent_url} depot={self.depot_url} pid={self.pid}"

    def write(self, path: Path) -> None:
        """Write the ready file, which is whole or not there."""
        process.write_ready_file(path, asdict(self))


def run(settings: Settings, environ: Mapping[str, str], announce: Callable[[Ready], None]) -> int:
    """Run an agent until it is told to stop; the exit status of the process.

    `announce` is called, in a thread, once both servers listen.

    Raises:
        CannotStart: with the reason.
    """
    return process.run(_live(settings, environ, announce))


async def _live(
    settings: Settings, environ: Mapping[str, str], announce: Callable[[Ready], None]
) -> None:
    notifier = Notifier.from_environment(environ)
    signals = StopSignals()
    longest_s = settings.drain_timeout_s + _CLOSE_TIMEOUT_S
    signals.install(lambda: leave_within(longest_s, EXIT_OK))
    state_dir = state_directory(settings, environ)
    try:
        async with AsyncExitStack() as stack:
            with garbage.uncollected():
                agent = await stack.enter_async_context(opened(settings, state_dir))
                await agent.listen()
                garbage.keep_what_is_there()
            await _serve(agent, signals, notifier, announce)
    except (DatasetBusy, DepotError, OSError) as error:
        raise CannotStart(why_not(error, settings, state_dir)) from error
    _log.info("stopped")


async def _serve(
    agent: Agent, signals: StopSignals, notifier: Notifier, announce: Callable[[Ready], None]
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = agent.begin_duties(group)
        tasks.append(
            group.create_task(
                notifier.keep_alive(lambda: status_line(agent.store.status())), name="watchdog"
            )
        )
        failure = await _announced(agent, announce)
        if failure is None:
            notifier.ready(status_line(agent.store.status()))
            await signals.requested.wait()
        notifier.stopping()
        await agent.drain()
        for task in tasks:
            task.cancel()
    if failure is not None:
        raise failure  # here, because the group would wrap it


async def _announced(agent: Agent, announce: Callable[[Ready], None]) -> CannotStart | None:
    ready = Ready(agent.agent_server.url, agent.depot_server.url, os.getpid())
    _tell_what_is_out(agent.store.status())
    try:
        await asyncio.to_thread(announce, ready)
    except OSError as error:
        return CannotStart(f"cannot say that it is ready: {error}")
    _log.info("ready", agent=ready.agent_url, depot=ready.depot_url)
    return None


def _tell_what_is_out(status: StoreStatus) -> None:
    """Log each dataset that does not serve from the start: no event says so, nothing changed."""
    for dataset in status.datasets:
        if dataset.state != "healthy":
            _log.warning(
                "a dataset is out of use",
                dataset=dataset.path,
                state=dataset.state,
                reason=dataset.last_error or "no reason known",
            )


def status_line(status: StoreStatus) -> str:
    """One line for `systemctl status`; what is wrong is named first."""
    out = [d for d in status.datasets if d.state != "healthy"]
    wrong = [f"{d.path} is {d.state}: {d.last_error or 'no reason known'}" for d in out]
    healthy = f"{len(status.datasets) - len(out)} of {len(status.datasets)} datasets healthy"
    config = "no config" if status.generation is None else f"generation {status.generation}"
    return "; ".join([*wrong, healthy, config])


def why_not(error: Exception, settings: Settings, state_dir: Path) -> str:
    """Say why the agent could not start, and with what."""
    if isinstance(error, DatasetBusy):
        datasets = " and ".join(str(path) for path in settings.dataset_paths)
        holder = _holder(settings.dataset_paths)
        return f"another agent{holder} is running on {datasets}: {error}"
    if isinstance(error, OSError):
        return f"the state directory {state_dir} cannot be used: {error.strerror or error}"
    return str(error)


def _holder(datasets: Iterable[Path]) -> str:
    """The process that holds one of the datasets, as far as it left its number there."""
    for path in datasets:
        with suppress(OSError, ValueError, IndexError):
            return f" (pid {int((path / LOCK).read_text().split()[0])})"
    return ""
