"""What a store is made of, and how its parts know each other.

`Parts` makes each of them once, from the disks upwards, and passes on what one has to tell another:
that a dataset went or came back, that there is something to heal or to delete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from depot.artifact import ArtifactHash, Generation
from depot.concurrency.foreground import Foreground, Signal
from depot.concurrency.keyed_lock import KeyedLock
from depot.config.keeper import EventSink, LedgerKeeper
from depot.config.state_dir import StateDir
from depot.dataset.disk import DiskOf
from depot.dataset.found_files import FoundFiles
from depot.device.host import DeviceWorkers, HostOf, thread_host
from depot.device.process import ProcessHost
from depot.healing.dataset_desk import DatasetDesk
from depot.healing.healer import Healer
from depot.healing.progress import Progress
from depot.healing.reconciler import Reconciler
from depot.healing.rewriter import Rewriter
from depot.healing.todo import Todo
from depot.mirrors.condition import MirrorState
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.mirrors.watch import Watch
from depot.options import StoreOptions
from depot.quarantine.desk import QuarantineDesk
from depot.quarantine.keeper import QuarantineKeeper
from depot.quarantine.wanted import wanted_by
from depot.reading.reader import Reader
from depot.scrub.copy_records import CopyRecords
from depot.scrub.dataset import ScrubContext
from depot.scrub.had import Had
from depot.scrub.pace import ScrubPace
from depot.scrub.pause import Pause
from depot.scrub.scrubber import Scrubber
from depot.state.checked import make_state
from depot.streams.arena import Arena
from depot.streams.blocks import BlockPool
from depot.streams.budget import Budget
from depot.writing.arriving import Arrivals
from depot.writing.ingest import Ingestor
from depot.writing.put_desk import PutDesk, PutLimits


class Wanted:
    """What is to be done next by the duties, each set by whoever finds a reason."""

    def __init__(self) -> None:
        self.reconcile = asyncio.Event()
        self.heal = asyncio.Event()
        self.fetch = asyncio.Event()


class Parts:
    """The parts of one store. It is closed from the outside in; see `close`."""

    def __init__(
        self,
        datasets: Sequence[Path],
        state_dir: StateDir,
        options: StoreOptions,
        emit: EventSink,
        disk_of: DiskOf,
    ) -> None:
        self.options = options
        self.state_dir = state_dir
        self.emit = emit
        self.opened = False
        self.wanted = Wanted()
        self.state = make_state(checksummed=options.checksum_state)
        self.heal_budget = Budget(options.heal_max_bytes_per_s)
        self.foreground = Foreground()
        self.commits: KeyedLock[ArtifactHash] = KeyedLock()
        self.records = CopyRecords(state_dir.path)
        # One more than can be admitted: healing works beside puts and copies.
        self._most_ingests = options.max_concurrent_puts + options.max_concurrent_copies + 1
        in_processes = options.device_workers is DeviceWorkers.PROCESS
        self.arena = Arena(BlockPool.most_blocks(self._most_ingests)) if in_processes else None
        self.mirrors = self._make_mirrors(datasets, disk_of)
        self.keeper = LedgerKeeper(
            self.mirrors,
            state_dir,
            state=self.state,
            delete_grace_s=options.delete_grace_s,
            on_event=emit,
            on_config=self._on_config,
        )
        self.quarantine = QuarantineKeeper(
            self.mirrors,
            self.keeper,
            self.commits,
            limit_bytes=options.quarantine_bytes,
            on_event=emit,
            on_set_aside=self.wanted.heal.set,
            state=self.state,
        )
        self.had = Had(self.mirrors, self.records, partial(wanted_by, self.keeper))
        self.quarantine_desk = QuarantineDesk(
            self.mirrors, self.keeper, self.quarantine, self.commits
        )
        self._make_writers()
        self._make_readers()
        self.watch = Watch(
            self.mirrors,
            interval_s=options.watch_interval_s,
            on_return=self._on_return,
            keep_doubted=state_dir.write_doubted,
        )
        self.datasets = DatasetDesk(self.mirrors, self.watch.check, disk_of, emit)

    async def open(self) -> None:
        """Attach every dataset that is there and decide which config is in force."""
        for mirror in self.mirrors.all:
            mirror.host.start()  # it takes a while, in which the database is looked at
        await self.records.open()
        self.scrubber.restore()
        known_sled_id = await asyncio.to_thread(self.state_dir.known_sled_id)
        self.mirrors.doubted = await asyncio.to_thread(self.state_dir.read_doubted)
        await self.mirrors.attach_all(known_sled_id)
        await self.keeper.load()
        await self.quarantine.refresh_all()
        await self.todo.recount()
        self.opened = True

    async def close(self) -> None:
        """Release the datasets and their locks. Running writes must have ended."""
        await self.keeper.close(2 * self.options.device_timeout_s)
        await self.scrubber.save()
        await self.had.save()
        await self.records.close(self.mirrors.all)
        await self.mirrors.close()
        self.ingestor.close()
        if self.arena is not None:
            self.arena.close()
        await asyncio.to_thread(self.state_dir.close)

    async def reset(self, expected: Generation) -> None:
        """Forget the config, and what it has had."""
        await self.keeper.reset(expected)
        await self.had.recall()
        await self.had.forget_gone()
        await self.had.save()

    def heal_again(self) -> None:
        """Try at once also what failed a moment ago: something is different now."""
        self.healer.something_changed()
        self.wanted.heal.set()

    def is_wanted(self, artifact: ArtifactHash) -> bool:
        """Whether the config in force names it."""
        config = self.keeper.resolved.config
        return config is not None and artifact in config.artifacts

    def _make_mirrors(self, datasets: Sequence[Path], disk_of: DiskOf) -> MirrorSet:
        mirrors = [
            Mirror(
                index,
                path,
                state=self.state,
                quota_bytes=self.options.quota_bytes,
                device_timeout_s=self.options.device_timeout_s,
                on_transition=self._on_transition,
                host_of=thread_host if self.arena is None else self._process_host(self.arena),
            )
            for index, path in enumerate(datasets)
        ]
        for mirror in mirrors:
            mirror.on_record = self._on_record
            mirror.on_gone = self._on_gone
        return MirrorSet(
            mirrors,
            require_mountpoint=self.options.require_mountpoint,
            sled_id=self.options.sled_id,
            disk_of=disk_of,
            recall=self._recall,
        )

    def _make_writers(self) -> None:
        options = self.options
        self.ingestor = Ingestor(
            max_ingests=self._most_ingests,
            mirrors=len(self.mirrors.all),
            stall_timeout_s=options.device_timeout_s,
            lag_s=options.mirror_lag_s,
            direct_io=options.direct_io,
            chained=options.chained_digests,
            arena=self.arena,
        )
        self.arrivals = Arrivals(
            self.mirrors,
            is_wanted=self.is_wanted,
            verify_reads=options.verify_reads,
            offered=options.relay,
        )
        self.put_desk = PutDesk(
            self.mirrors,
            self.keeper,
            self.ingestor,
            self.quarantine,
            self.commits,
            PutLimits(
                max_artifact_size_bytes=options.max_artifact_size_bytes,
                min_copies=options.min_copies,
                max_concurrent_puts=options.max_concurrent_puts,
                group_commit=options.group_commit,
                mirror_lag_s=options.mirror_lag_s,
            ),
            self.emit,
            on_shortfall=self.wanted.heal.set,
            state=self.state,
            arrivals=self.arrivals,
        )

    def _make_readers(self) -> None:
        options = self.options
        self.reconciler = Reconciler(self.mirrors, self.keeper, self.put_desk, self.emit)
        self.reader = Reader(
            self.mirrors, options.verify_reads, self.quarantine, on_damage=self.wanted.heal.set
        )
        self._make_healer()
        context = ScrubContext(
            records=self.records,
            pace=ScrubPace(options.scrub_interval_s, options.scrub_max_bytes_per_s),
            foreground=self.foreground,
            pause=Pause(self.records),
            wake=Signal(),
            on_event=self.emit,
            on_damage=self.wanted.heal.set,
            is_wanted=self.is_wanted,
        )
        self.scrubber = Scrubber(self.mirrors, context)

    def _make_healer(self) -> None:
        self.todo = Todo(self.mirrors, self.keeper, self.quarantine, self.had)
        self.healing = Progress(self.todo, self.mirrors, self.emit, state=self.state)
        self.rewriter = Rewriter(
            self.mirrors, self.put_desk, self.reader, self.quarantine, budget=self.heal_budget
        )
        self.healer = Healer(
            self.mirrors,
            self.keeper,
            self.put_desk,
            self.quarantine,
            self.todo,
            self.healing,
            self.rewriter,
            foreground=self.foreground,
        )

    def _process_host(self, arena: Arena) -> HostOf:
        return partial(
            ProcessHost,
            arena_fd=arena.fd,
            writes_at_once=self._most_ingests,
            timeout_s=self.options.device_timeout_s,
        )

    async def _recall(
        self, index: int, dataset_id: str, files: FoundFiles
    ) -> Mapping[ArtifactHash, Copy]:
        copies = await self.records.recall(index, dataset_id, files)
        await self.had.found(copies)
        return copies

    def _on_record(
        self, mirror: Mirror, artifact: ArtifactHash, before: Copy | None, after: Copy | None
    ) -> None:
        self.mirrors.note(mirror, artifact, before, after)
        self.records.note(mirror, artifact, before, after)
        self.had.note(artifact, after)

    def _on_gone(self, mirror: Mirror, artifact: ArtifactHash) -> None:
        if self.is_wanted(artifact):  # or it was deleted a moment ago
            self.records.note_gone(mirror, artifact)
            self.emit("copy_gone", {"sha256": str(artifact), "dataset": str(mirror.path)})
            self.wanted.heal.set()

    def _on_transition(self, mirror: Mirror, before: MirrorState, after: MirrorState) -> None:
        if not self.opened:
            return  # finding a dataset at boot is not its return
        fields: Mapping[str, object] = {
            "dataset": str(mirror.path),
            "state": "released" if mirror.released else str(after),
            "error": mirror.last_error,
        }
        if before is MirrorState.HEALTHY:
            self.emit("dataset_lost", fields)
        elif after is MirrorState.HEALTHY:
            self.emit("dataset_returned", fields)

    def _on_config(self) -> None:
        self.wanted.reconcile.set()
        self.heal_again()

    async def _on_return(self) -> None:
        if await self.keeper.reload():
            floor = self.keeper.resolved.floor
            self.emit("config_changed", {"generation": floor.generation, "from": "dataset"})
        await self.quarantine.refresh_all()
        self._on_config()
        self.scrubber.wake()
