"""`ArtifactStore`: the verbs of content-addressed storage on mirrored datasets.

Usable without the daemon::

    init_datasets([Path("/m2/a"), Path("/m2/b")])
    async with await ArtifactStore.open([Path("/m2/a"), Path("/m2/b")], state_dir=state) as store:
        await store.put_config(ArtifactConfig.make(1, [artifact]))
        async with store.begin_put(artifact, Generation(1), size_bytes) as put:
            stored = put.held or await put.receive(FileSource(fd))

All methods belong to one event loop. Blocking work happens in threads that the store owns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from depot import fencing
from depot.arriving import Arrivals
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.blocks import BlockPool
from depot.budget import Budget
from depot.checked_state import make_state
from depot.copy_records import CopyRecords
from depot.dataset_desk import DatasetDesk
from depot.device.arena import Arena
from depot.device.host import DeviceWorkers, HostOf, thread_host
from depot.device.process import ProcessHost
from depot.disk import DiskOf, system_disk
from depot.errors import ConfigNotFound, NoConfig
from depot.foreground import Foreground, Signal
from depot.heal import Healer, Peers
from depot.ingest import Ingestor
from depot.keyed_lock import KeyedLock
from depot.ledger_keeper import EventSink, LedgerKeeper
from depot.mirror import Mirror, MirrorState
from depot.mirrors import MirrorSet
from depot.put import Put
from depot.put_desk import PutDesk, PutLimits
from depot.quarantine_desk import QuarantineDesk
from depot.quarantine_keeper import Quarantined, QuarantineKeeper
from depot.reader import Reader, VerifyReads
from depot.reading import ArtifactDetail, Listing, OpenArtifact, detail_of
from depot.reconcile import Reconciler
from depot.scrub import Scrubber
from depot.scrub_dataset import ScrubContext
from depot.scrub_pace import ScrubPace
from depot.scrub_pause import Pause
from depot.scrub_report import ScrubPass, ScrubStatus
from depot.state_dir import StateDir
from depot.store_status import StoreStatus, status_of
from depot.watch import Watch

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """How a store behaves; sizes in bytes, times in seconds.

    Attributes:
        quota_bytes: of each dataset.
        min_copies: durable copies without which a put is not a success.
        delete_grace_s: how long a config that drops more than half is not acted on (D4).
        device_timeout_s: a device call that takes longer makes its dataset suspect.
        mirror_lag_s: how long, in all, one write may wait for one dataset alone; one that is
            further behind is dropped from the write.
        watch_interval_s: how often each dataset is looked at.
        verify_reads: whether the depot checks bytes before they leave.
        scrub_interval_s: within which every copy is verified in the background.
        scrub_max_bytes_per_s: on each dataset, whatever that does to the interval.
        heal_max_bytes_per_s: of all healing, from here and from peers; 0: no limit.
        quarantine_bytes: what damaged copies that were set aside may take on each dataset.
        sled_id: expected in the markers; None: whatever they say.
        device_workers: what the calls on a dataset run in; with a process for each, one that hangs
            keeps nothing but its own dataset, even from SIGKILL.
        relay: what is being received can be read from `ArtifactStore.arrivals`.
        checksum_state: find rows that are changed in place; many times slower, see
            `depot.checked_state`.
    """

    quota_bytes: int = 20 * GIB
    max_artifact_size_bytes: int = 2 * GIB
    require_mountpoint: bool = False
    min_copies: int = 1
    max_concurrent_puts: int = 32
    max_concurrent_copies: int = 8
    delete_grace_s: float = 600.0
    reconcile_interval_s: float = 300.0
    device_timeout_s: float = 30.0
    mirror_lag_s: float = 5.0
    watch_interval_s: float = 5.0
    verify_reads: VerifyReads = VerifyReads.AUTO
    scrub_interval_s: float = 86400.0
    scrub_max_bytes_per_s: int = 500 << 20
    heal_max_bytes_per_s: int = 0
    quarantine_bytes: int = 2 * GIB
    sled_id: str | None = None
    checksum_state: bool = False
    device_workers: DeviceWorkers = DeviceWorkers.THREAD
    relay: bool = True


def _ignore_event(_kind: str, _fields: Mapping[str, object]) -> None:
    """Nobody listens."""


class ArtifactStore:
    """Artifacts on mirrored datasets, under one config. Make one with `open`.

    Attributes:
        state: everything the store knows; whoever is composed with it may keep tables there too.
        arrivals: what can be read while it is being received.
        heal_budget: what healing may move; whoever fetches from peers for it counts there, too.
    """

    def __init__(
        self,
        datasets: Sequence[Path],
        state_dir: StateDir,
        options: StoreOptions,
        on_event: EventSink,
        disk_of: DiskOf = system_disk,
    ) -> None:
        self._options = options
        self._emit = on_event
        self._opened = False
        self._state_dir = state_dir
        self._reconcile_wanted = asyncio.Event()
        self._heal_wanted = asyncio.Event()
        self._fetch_wanted = asyncio.Event()
        self.state = make_state(checksummed=options.checksum_state)
        self.heal_budget = Budget(options.heal_max_bytes_per_s)
        self._records = CopyRecords(state_dir.path)
        self._foreground = Foreground()
        # One more than can be admitted: re-mirroring works beside puts and copies.
        max_ingests = options.max_concurrent_puts + options.max_concurrent_copies + 1
        in_processes = options.device_workers is DeviceWorkers.PROCESS
        self._arena = Arena(BlockPool.most_blocks(max_ingests)) if in_processes else None
        mirrors = [
            Mirror(
                index,
                path,
                state=self.state,
                quota_bytes=options.quota_bytes,
                device_timeout_s=options.device_timeout_s,
                on_transition=self._on_transition,
                host_of=thread_host if self._arena is None else self._process_host(self._arena),
            )
            for index, path in enumerate(datasets)
        ]
        self._mirrors = MirrorSet(
            mirrors,
            require_mountpoint=options.require_mountpoint,
            sled_id=options.sled_id,
            disk_of=disk_of,
            recall=self._records.recall,
        )
        for mirror in mirrors:
            mirror.on_record = self._records.note
        self._keeper = LedgerKeeper(
            self._mirrors,
            state_dir,
            state=self.state,
            delete_grace_s=options.delete_grace_s,
            on_event=on_event,
        )
        self._ingestor = Ingestor(
            max_ingests=max_ingests,
            mirrors=len(mirrors),
            stall_timeout_s=options.device_timeout_s,
            lag_s=options.mirror_lag_s,
            arena=self._arena,
        )
        limits = PutLimits(
            max_artifact_size_bytes=options.max_artifact_size_bytes,
            min_copies=options.min_copies,
            max_concurrent_puts=options.max_concurrent_puts,
        )
        commits: KeyedLock[ArtifactHash] = KeyedLock()
        self._quarantine = QuarantineKeeper(
            self._mirrors,
            self._keeper,
            commits,
            limit_bytes=options.quarantine_bytes,
            on_event=on_event,
            on_set_aside=self._heal_wanted.set,
            state=self.state,
        )
        self._quarantine_desk = QuarantineDesk(self._mirrors, self._quarantine, commits)
        self.arrivals = Arrivals(
            self._mirrors,
            is_wanted=self._is_wanted,
            verify_reads=options.verify_reads,
            offered=options.relay,
        )
        self._desk = PutDesk(
            self._mirrors,
            self._keeper,
            self._ingestor,
            self._quarantine,
            commits,
            limits,
            on_event,
            on_shortfall=self._heal_wanted.set,
            state=self.state,
            arrivals=self.arrivals,
        )
        self._reconciler = Reconciler(self._mirrors, self._keeper, self._desk, on_event)
        self._reader = Reader(
            self._mirrors, options.verify_reads, self._quarantine, on_damage=self._heal_wanted.set
        )
        self._healer = Healer(
            self._mirrors,
            self._keeper,
            self._desk,
            self._reader,
            self._quarantine,
            on_event,
            state=self.state,
            foreground=self._foreground,
            budget=self.heal_budget,
        )
        self._scrubber = self._make_scrubber()
        self._watch = Watch(
            self._mirrors,
            interval_s=options.watch_interval_s,
            on_return=self._on_return,
            keep_doubted=state_dir.write_doubted,
        )
        self._datasets = DatasetDesk(self._mirrors, self._watch.check, disk_of, on_event)

    @classmethod
    async def open(
        cls,
        datasets: Sequence[Path],
        *,
        state_dir: Path,
        options: StoreOptions | None = None,
        on_event: EventSink = _ignore_event,
        disk_of: DiskOf = system_disk,
    ) -> Self:
        """Attach every dataset that is there and decide which config is in force.

        Missing datasets are no error: they are attached when they come, while `run_duties` runs.

        Raises:
            DatasetBusy: another process uses the state directory or every dataset.
            FormatTooNew: the witness was written by a newer program.
            OSError: the state directory cannot be used.
        """
        opened = await asyncio.to_thread(StateDir.open, state_dir)
        store = cls(datasets, opened, options or StoreOptions(), on_event, disk_of)
        try:
            await store._records.open()
            store._scrubber.restore()
            known_sled_id = await asyncio.to_thread(opened.known_sled_id)
            store._mirrors.doubted = await asyncio.to_thread(opened.read_doubted)
            await store._mirrors.attach_all(known_sled_id)
            await store._keeper.load()
            await store._quarantine.refresh_all()
            store._opened = True
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Release the datasets and their locks. Running writes must have ended."""
        await self._scrubber.save()
        await self._records.close(self._mirrors.all)
        await self._mirrors.close()
        self._ingestor.close()
        if self._arena is not None:
            self._arena.close()
        await asyncio.to_thread(self._state_dir.close)

    async def __aenter__(self) -> Self:
        """Return the open store."""
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    def require_dataset(self) -> None:
        """Raise NoDataset when no dataset can be read; for a look before a body is read."""
        self._mirrors.require_readable()

    # Config

    def config(self) -> ArtifactConfig:
        """Return the config in force.

        Raises:
            NoDataset, ConfigNotFound, LedgerUnknown.
        """
        self._mirrors.require_readable()
        try:
            return fencing.check_config_known(self._keeper.resolved)
        except NoConfig as error:
            raise ConfigNotFound from error

    async def put_config(self, config: ArtifactConfig) -> None:
        """Accept a config; the identical one repairs its copies on the datasets.

        Raises:
            NoDataset, LedgerUnknown, ConfigGeneration, ArtifactInUse, QuotaExceeded, Io.
        """
        if await self._keeper.put_config(config):
            self._reconcile_wanted.set()
            self._heal_again()

    async def reset(self, expected_generation: Generation) -> None:
        """Forget the config and its generation on every dataset.

        Raises:
            NoDataset: unless every dataset is there and writable.
            NoConfig, ConfigGeneration, Io.
        """
        await self._keeper.reset(expected_generation)

    # Artifacts

    def list_artifacts(self) -> Listing:
        """Count the good copies of each artifact of the config that has any.

        Raises:
            NoDataset, NoConfig, LedgerUnknown.
        """
        self._mirrors.require_readable()
        config = fencing.check_config_known(self._keeper.resolved)
        # Looked up once: a config may name 200,000 artifacts.
        counted = [mirror.certain_copies() for mirror in self._mirrors.readable()]
        counts = {
            artifact: sum(counts_here(artifact) for counts_here in counted)
            for artifact in config.artifacts
        }
        return Listing(config.generation, {a: count for a, count in counts.items() if count})

    async def describe(self, artifact: ArtifactHash) -> ArtifactDetail:
        """Say where the artifact's copies are, dataset by dataset.

        Raises:
            NoDataset, NotFound.
        """
        self._mirrors.require_readable()
        return detail_of(artifact, self._mirrors.all, self._quarantine.listing())

    def begin_put(
        self,
        artifact: ArtifactHash,
        generation: Generation,
        length_bytes: int | None,
        *,
        counted: bool = True,
    ) -> AbstractAsyncContextManager[Put]:
        """Admit a write for a block: every refusal that needs no body, and the reservation.

        `length_bytes` is None for a body of unknown length; with `counted` off, the write does not
        count towards `max_concurrent_puts` and emits no event.

        Raises:
            NoDataset, NoConfig, ArtifactGeneration, LedgerUnknown, NotInConfig, TooLarge,
            QuotaExceeded, TooManyPuts: in this order, on entering.
        """
        return self._admitted(artifact, generation, length_bytes, counted=counted)

    @asynccontextmanager
    async def _admitted(
        self,
        artifact: ArtifactHash,
        generation: Generation,
        length_bytes: int | None,
        *,
        counted: bool,
    ) -> AsyncIterator[Put]:
        event = "put" if counted else None
        with self._foreground.work():
            async with self._desk.begin(
                artifact, generation, length_bytes, counted=counted, event=event
            ) as put:
                yield put

    async def open_artifact(
        self, artifact: ArtifactHash, *, exclude: Collection[int] = (), to_read: bool = True
    ) -> OpenArtifact:
        """Open a good copy, preferably on a healthy dataset.

        `exclude` names datasets whose copy has just failed. Unless it is opened `to_read`, nothing
        is made ready for checking its bytes.

        Raises:
            NoDataset, NotFound.
        """
        opened = await self._reader.open(artifact, exclude, to_read=to_read)
        if to_read:
            opened.on_close = self._foreground.begin()
        return opened

    def read_failed(self, opened: OpenArtifact, error: OSError) -> None:
        """Note that a copy could not be read, so that it is not counted or served again."""
        self._reader.failed(opened, error)

    # Pins

    def pins(self) -> Mapping[str, frozenset[ArtifactHash]]:
        """Every pin by name, sorted.

        Raises:
            NoDataset.
        """
        self._mirrors.require_readable()
        return self._keeper.book.pins

    async def put_pin(self, name: str, artifacts: Collection[ArtifactHash]) -> None:
        """Hold artifacts: no config may drop them.

        Raises:
            NoDataset, NoConfig, LedgerUnknown, NotInConfig, InvalidRequest, QuotaExceeded, Io.
        """
        await self._keeper.put_pin(name, artifacts)

    async def delete_pin(self, name: str) -> None:
        """Let go of a pin.

        Raises:
            NoDataset, NotFound, QuotaExceeded, Io.
        """
        await self._keeper.delete_pin(name)

    # Quarantine

    def quarantined(self) -> tuple[Quarantined, ...]:
        """Every damaged copy that was set aside, oldest first.

        Raises:
            NoDataset.
        """
        self._mirrors.require_readable()
        return self._quarantine.listing()

    async def restore_quarantined(self, id_: str) -> None:
        """Give a copy in quarantine its name back, if its bytes hash to it.

        Raises:
            NoDataset, NotFound.
            KeptInQuarantine: they do not, nobody wants it, or a good copy stands there.
            QuotaExceeded, Io.
        """
        await self._quarantine_desk.restore(id_)
        self._heal_again()

    async def purge_quarantined(self, id_: str, *, force: bool = False) -> None:
        """Delete a copy in quarantine; the last one of an artifact only with `force`.

        Raises:
            NoDataset, NotFound, KeptInQuarantine, Io.
        """
        await self._quarantine_desk.purge(id_, force=force)

    def status(self) -> StoreStatus:
        """Everything an operator wants to know, from memory."""
        return status_of(
            self._mirrors,
            self._keeper,
            self._healer,
            self._quarantine,
            self._desk.running,
            self._scrubber.status(),
        )

    # Scrub

    def scrub_status(self) -> ScrubStatus:
        """How the background verification is, from memory."""
        return self._scrubber.status()

    async def start_scrub(self) -> None:
        """Have `run_duties` verify every copy from now on, as fast as is allowed.

        Joins a pass that was asked for already, and ends a pause.
        """
        await self._scrubber.start()

    async def pause_scrub(self, seconds: float) -> None:
        """Verify nothing in the background for so long, at most `MAX_PAUSE_S`."""
        await self._scrubber.pause(seconds)

    async def resume_scrub(self) -> None:
        """End a pause."""
        await self._scrubber.resume()

    async def scrub(self) -> list[ScrubPass]:
        """Verify every copy of every healthy dataset now; how it went, dataset by dataset."""
        return await self._scrubber.run_once()

    # Duties

    async def run_duties(self, peers: Peers | None = None) -> None:
        """Watch the datasets, delete, heal, scrub; until cancelled.

        `peers` is where that comes from which no dataset here has whole.
        """
        self._reconcile_wanted.set()
        self._heal_again()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch.run(), name="watch")
            group.create_task(self._reconcile_for_ever(), name="reconcile")
            group.create_task(self._heal_for_ever(), name="heal")
            group.create_task(self._fetch_for_ever(peers), name="fetch")
            group.create_task(self._scrubber.run(), name="scrub")
            group.create_task(self._records.run(self._mirrors.all), name="copy records")

    async def reconcile(self) -> int:
        """Delete what no config wants, now; the number of artifacts deleted."""
        await self._quarantine.refresh_all()
        return await self._reconciler.run_once()

    async def remirror(self, peers: Peers | None = None) -> int:
        """Heal what some healthy dataset lacks, now; the number of artifacts healed."""
        return await self._healer.heal_here() + await self._healer.fetch(peers)

    # Datasets

    async def release_dataset(self, path: Path, *, last: bool = False) -> None:
        """Let go of a dataset so that it can be unmounted; see `DatasetDesk.release`.

        Raises:
            NotFound, DatasetRefused.
        """
        await self._datasets.release(path, last=last)

    async def attach_dataset(self, path: Path) -> None:
        """Take a released or retired dataset back; see `DatasetDesk.attach`.

        Raises:
            NotFound, DatasetRefused.
        """
        await self._datasets.attach(path)

    async def replace_dataset(self, path: Path, *, plain_directory: bool = False) -> str:
        """Adopt an empty disk in place of the one that was there; see `DatasetDesk.replace`.

        Raises:
            NotFound, NoDataset, DatasetRefused.
        """
        return await self._datasets.replace(path, plain_directory=plain_directory)

    async def check_datasets(self) -> None:
        """Look at every dataset now."""
        await asyncio.gather(*(self._watch.check(mirror) for mirror in self._mirrors.all))

    async def _reconcile_for_ever(self) -> None:
        while True:
            await self.reconcile()
            self._heal_wanted.set()  # what it found gone is to come back
            await _wait(self._reconcile_wanted, self._until_reconcile_s())

    async def _heal_for_ever(self) -> None:
        while True:
            await self._healer.heal_here(only_due=True)
            self._fetch_wanted.set()
            await _wait(self._heal_wanted, self._within_interval_s(self._healer.heal_due_in_s()))

    async def _fetch_for_ever(self, peers: Peers | None) -> None:
        # Apart from the rest: a peer that answers slowly must not keep the mirrors from healing.
        while True:
            await _wait(self._fetch_wanted, self._within_interval_s(self._healer.fetch_due_in_s()))
            await self._healer.fetch(peers, only_due=True)

    def _heal_again(self) -> None:
        self._healer.something_changed()
        self._heal_wanted.set()

    def _within_interval_s(self, due_in_s: float | None) -> float:
        interval_s = self._options.reconcile_interval_s
        # At least a second: a pass looks at every artifact of the config.
        return interval_s if due_in_s is None else min(interval_s, max(1.0, due_in_s))

    def _until_reconcile_s(self) -> float:
        grace_s = self._reconciler.next_grace_end_s() - time.time()
        interval_s = self._options.reconcile_interval_s
        return min(interval_s, grace_s + 0.1) if grace_s > 0 else interval_s

    async def _on_return(self) -> None:
        if await self._keeper.reload():
            floor = self._keeper.resolved.floor
            self._emit("config_changed", {"generation": floor.generation, "from": "dataset"})
        await self._quarantine.refresh_all()
        self._reconcile_wanted.set()
        self._heal_again()
        self._scrubber.wake()

    def _make_scrubber(self) -> Scrubber:
        context = ScrubContext(
            records=self._records,
            pace=ScrubPace(self._options.scrub_interval_s, self._options.scrub_max_bytes_per_s),
            foreground=self._foreground,
            pause=Pause(self._records),
            wake=Signal(),
            on_event=self._emit,
            on_damage=self._heal_wanted.set,
        )
        return Scrubber(self._mirrors, context, is_wanted=self._is_wanted)

    def _is_wanted(self, artifact: ArtifactHash) -> bool:
        config = self._keeper.resolved.config
        return config is not None and artifact in config.artifacts

    def _process_host(self, arena: Arena) -> HostOf:
        return partial(
            ProcessHost,
            arena_fd=arena.fd,
            writes_at_once=self._options.max_concurrent_puts
            + self._options.max_concurrent_copies
            + 1,
            timeout_s=self._options.device_timeout_s,
        )

    def _on_transition(self, mirror: Mirror, before: MirrorState, after: MirrorState) -> None:
        if not self._opened:
            return  # finding a dataset at boot is not its return
        fields = {"dataset": str(mirror.path), "state": str(after), "error": mirror.last_error}
        if before is MirrorState.HEALTHY:
            self._emit("dataset_lost", fields)
        elif after is MirrorState.HEALTHY:
            self._emit("dataset_returned", fields)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
    finally:
        event.clear()
