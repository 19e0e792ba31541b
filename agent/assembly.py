"""An agent put together around its store: what is built, in which order, and who owns it.

Rules: everything is closed in the opposite order, also when building fails half-way; every long
task is started in the task group of whoever runs the agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from agent import registration
from agent.api import agent_app
from agent.checkpoints import CheckpointBook
from agent.config.settings import HttpTable, Settings
from agent.copies.manager import CopyManager, CopyOptions
from agent.copies.networks import AllowedNetworks
from agent.copies.peer_book import HealingPeers, PeerBook
from agent.copies.peers import PeerFetcher, PeerLimits
from agent.duties import Duties, unattended_work
from agent.event_relay import EventRelay, log_event
from agent.events import EventLog
from agent.listening import listen_at
from agent.loop_lag import LoopLag
from agent.metrics import Metrics, agent_figures
from agent.node import INTERVAL_S, NodeSampler
from agent.status import StatusSource
from agent.wire.status import REGISTRATION_DUTY
from depot.errors import DepotError
from depot.http.browsers import OwnNames
from depot.http.compressing import Compressor
from depot.http.depot_api import depot_app, depot_endpoints
from depot.http.hot_artifacts import HotArtifacts
from depot.http.limits import HttpLimits
from depot.http.pump import Pump
from depot.http.responder import ArtifactResponder
from depot.http.service import HttpService
from depot.http.way import Way
from depot.store import ArtifactStore
from depot.streams.budget import Budget
from depot.urls import base_url


@dataclass(frozen=True, slots=True)
class Agent:
    """A built agent: open, listening once `listen` has returned."""

    settings: Settings
    store: ArtifactStore
    events: EventLog
    copies: CopyManager
    peers: PeerBook
    duties: Duties
    node: NodeSampler
    agent_server: HttpService
    depot_server: HttpService

    async def listen(self) -> None:
        """Open both ports.

        Raises:
            CannotStart: one is taken or not ours to take.
        """
        await listen_at(self.agent_server, self.settings.agent.listen, "agent.listen")
        await listen_at(self.depot_server, self.settings.depot.listen, "depot.listen")

    def begin_duties(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start every long task in `group`; they run until cancelled."""
        duties = self.duties
        keep_store = partial(self.store.run_duties, HealingPeers(self.peers, self.copies))
        tasks = [
            group.create_task(duties.keep_running("store", keep_store), name="store"),
            group.create_task(duties.keep_running("peers", self.peers.run), name="peers"),
            group.create_task(duties.keep_running("copies", self.copies.run), name="copies"),
            group.create_task(duties.every(INTERVAL_S, "node", self.node.sample), name="node"),
        ]
        if coordinators := self.settings.coordinator.urls:
            register = duties.every(
                registration.INTERVAL_S,
                REGISTRATION_DUTY,
                registration.Registration(coordinators, self.address).tell,
                first_retry_s=registration.FIRST_RETRY_S,
            )
            tasks.append(group.create_task(register, name="registration"))
        return tasks

    def address(self) -> registration.SledAddress:
        """Who this sled is and where others reach it, once it listens."""
        return registration.SledAddress(
            self.store.status().sled_id,
            self.settings.agent.advertise_url or self.agent_server.url,
            self.settings.depot.advertise_url or self.depot_server.url,
        )

    async def drain(self) -> None:
        """Take no new work, and return when what runs has ended or run out of time.

        Both servers listen until the end of `assembled`: while anything drains, each of them
        answers 503 instead of refusing connections.
        """
        timeout_s = self.settings.drain_timeout_s
        self.events.stop_waiting()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.agent_server.drain(timeout_s), name="drain agent API")
            group.create_task(self.depot_server.drain(timeout_s), name="drain depot API")
            group.create_task(self.copies.stop(timeout_s), name="drain copies")


@asynccontextmanager
async def assembled(
    settings: Settings, state_dir: Path, store: ArtifactStore, relay: EventRelay, lag: LoopLag
) -> AsyncIterator[Agent]:
    """Build an agent around an open store whose events go to `relay`, and take it apart again.

    `agent.opening` opens both, and measures how late the event loop is.

    Raises:
        DepotError, OSError: the state directory cannot be used.
    """
    async with AsyncExitStack() as stack:
        events = await stack.enter_async_context(
            await EventLog.open(state_dir, max_entries=settings.events.max_entries)
        )
        fetcher = await stack.enter_async_context(_peer_fetcher(settings))
        copies = CopyManager(
            store, fetcher, copy_options(settings), on_event=relay, heal_budget=store.heal_budget
        )
        peers = await PeerBook.open(
            state_dir, configured=settings.heal.peers, max_learnt=settings.heal.max_peers
        )
        duties = Duties(relay)
        stack.enter_context(unattended_work(duties))
        node = NodeSampler(settings.dataset_paths)
        stack.callback(node.close)
        relay.connect(events.emit, log_event, _config_watcher(store, copies), peers.learn)
        status = StatusSource(
            version=version("sled-depot"),
            store=store,
            copies=copies,
            events=events,
            duties=duties,
            node=node,
            relays=settings.depot.relay,
        )
        checkpoints = await CheckpointBook.open(state_dir)
        agent_server, depot_server = _servers(
            settings, store, copies, events, status, lag, checkpoints
        )
        # With no time to drain: that was done, or the end is not an orderly one.
        stack.push_async_callback(agent_server.stop, 0.0)
        stack.push_async_callback(depot_server.stop, 0.0)
        yield Agent(
            settings=settings,
            store=store,
            events=events,
            copies=copies,
            peers=peers,
            duties=duties,
            node=node,
            agent_server=agent_server,
            depot_server=depot_server,
        )


def http_limits(http: HttpTable) -> HttpLimits:
    """The bounds of each server."""
    return HttpLimits(
        header_timeout_s=http.header_timeout_s,
        idle_timeout_s=http.idle_timeout_s,
        min_body_bytes_per_s=http.min_body_bytes_per_s,
        max_connections=http.max_connections,
        max_connections_per_client=http.max_connections_per_client,
        json_memory_bytes=http.json_memory_bytes,
    )


def own_names(settings: Settings) -> OwnNames:
    """What both servers are called."""
    servers = (settings.agent, settings.depot)
    advertised = (base_url(each.advertise_url).raw_host for each in servers if each.advertise_url)
    listening = (each.listen.host for each in servers)
    return OwnNames.of(settings.allowed_hosts, *listening, *filter(None, advertised))


def body_pump(settings: Settings) -> Pump:
    """What sends large bodies."""
    return Pump(read_timeout_s=settings.storage.device_timeout_s, way=Way(settings.depot.send))


def compressor(settings: Settings) -> Compressor | None:
    """What compresses the depot's answers; None when it is switched off."""
    depot = settings.depot
    if depot.zstd_level == 0:
        return None
    return Compressor(level=depot.zstd_level, min_size_bytes=depot.zstd_min_size_bytes)


def hot_artifacts(settings: Settings) -> HotArtifacts | None:
    """What is kept for the fast path; None when that is switched off."""
    depot = settings.depot
    return HotArtifacts(depot.hot_cache_bytes) if depot.fast_path else None


def copy_options(settings: Settings) -> CopyOptions:
    """The bounds of copies as a whole."""
    copy = settings.copy_
    return CopyOptions(
        max_concurrent=copy.max_concurrent,
        max_sources=copy.max_sources,
        max_bytes_per_s=copy.max_bytes_per_s,
        max_bytes_per_s_per_source=copy.max_bytes_per_s_per_source,
    )


def peer_limits(settings: Settings) -> PeerLimits:
    """The bounds of one fetch from a peer."""
    copy = settings.copy_
    return PeerLimits(
        connect_timeout_s=copy.connect_timeout_s,
        idle_timeout_s=copy.idle_timeout_s,
        min_bytes_per_s=copy.min_bytes_per_s,
        max_artifact_size_bytes=settings.storage.max_artifact_size_bytes,
    )


def _peer_fetcher(settings: Settings) -> PeerFetcher:
    return PeerFetcher(AllowedNetworks.of(settings.copy_.allowed_sources), peer_limits(settings))


def _servers(
    settings: Settings,
    store: ArtifactStore,
    copies: CopyManager,
    events: EventLog,
    status: StatusSource,
    lag: LoopLag,
    checkpoints: CheckpointBook,
) -> tuple[HttpService, HttpService]:
    """Make the sled agent API and the repo depot API, neither of them listening."""
    limits, own = http_limits(settings.http), own_names(settings)
    metrics = Metrics(partial(agent_figures, status.read, events.counts, lag.read))
    agent_api = agent_app(
        store=store,
        copies=copies,
        status=status,
        events=events,
        metrics=metrics,
        checkpoints=checkpoints,
        limits=limits,
        short_puts=store.short_puts if settings.depot.fast_path else None,
        own=own,
    )
    pump = body_pump(settings)
    depot_api = depot_app(
        store,
        limits=limits,
        pump=pump,
        compressor=compressor(settings),
        budget=Budget(settings.depot.max_bytes_per_s),
        arrivals=store.arrivals,
        hot=hot_artifacts(settings),
        own=own,
    )
    # Only for the operations' names: the table inside the app is not to be had.
    table = depot_endpoints(ArtifactResponder(store, pump, limits.pace))
    metrics.watch(depot_api, "depot", table)
    return (
        HttpService(agent_api, limits=limits, name="agent"),
        HttpService(depot_api, limits=limits, name="depot"),
    )


def _config_watcher(
    store: ArtifactStore, copies: CopyManager
) -> Callable[[str, Mapping[str, object]], None]:
    """Make a sink that ends the copies of what a new config dropped."""

    def watch(kind: str, _fields: Mapping[str, object]) -> None:
        if kind != "config_changed":
            return
        try:
            copies.config_changed(store.config())
        except DepotError:
            return  # no config to go by: the copies are refused when they commit (G5)

    return watch
