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
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.concurrency.uncancelled import to_its_end
from depot.config import fencing
from depot.config.keeper import EventSink
from depot.config.state_dir import StateDir
from depot.dataset.disk import DiskOf, system_disk
from depot.duties import Duties
from depot.errors import ConfigNotFound, NoConfig
from depot.healing.healer import Peers
from depot.mirrors.open_artifact import OpenArtifact
from depot.options import StoreOptions
from depot.parts import Parts
from depot.quarantine.keeper import Quarantined
from depot.reading.answers import ArtifactDetail, CopyCounts, Listing, detail_of
from depot.reading.holdings import Holdings
from depot.scrub.report import ScrubPass, ScrubStatus
from depot.store_status import StoreStatus, status_of
from depot.writing.put import Put
from depot.writing.short_puts import ShortPuts

GIB = 1 << 30


def _ignore_event(_kind: str, _fields: Mapping[str, object]) -> None:
    """Nobody listens."""


class ArtifactStore:
    """Artifacts on mirrored datasets, under one config. Make one with `open`.

    Attributes:
        state: everything the store knows; whoever is composed with it may keep tables there too.
        arrivals: what can be read while it is being received.
        heal_budget: what healing may move; whoever fetches from peers for it counts there, too.
        short_puts: takes bodies that are in memory, as `begin_put` would, with less ado.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._mirrors = parts.mirrors
        self._duties = Duties(parts)
        self.state = parts.state
        self.arrivals = parts.arrivals
        self.heal_budget = parts.heal_budget
        self.short_puts = ShortPuts(parts.put_desk, parts.foreground)

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
        parts = Parts(datasets, opened, options or StoreOptions(), on_event, disk_of)
        try:
            await parts.open()
        except BaseException:
            await parts.close()
            raise
        return cls(parts)

    async def close(self) -> None:
        """Release the datasets and their locks. Running writes must have ended."""
        await self._parts.close()

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
            return fencing.check_config_known(self._parts.keeper.resolved)
        except NoConfig as error:
            raise ConfigNotFound from error

    async def put_config(self, config: ArtifactConfig) -> None:
        """Accept a config; the identical one repairs its copies on the datasets.

        Raises:
            NoDataset, LedgerUnknown, ConfigGeneration, ArtifactInUse, QuotaExceeded, Io.
        """
        await self._parts.keeper.put_config(config)

    async def reset(self, expected_generation: Generation) -> None:
        """Forget the config and its generation on every dataset.

        Raises:
            NoDataset: unless every dataset is there and writable.
            NoConfig, ConfigGeneration, Io.
        """
        await to_its_end(self._parts.reset(expected_generation))

    # Artifacts

    def list_artifacts(self) -> Listing:
        """Count the good copies of each artifact of the config that has any.

        Raises:
            NoDataset, NoConfig, LedgerUnknown.
        """
        self._mirrors.require_readable()
        config = fencing.check_config_known(self._parts.keeper.resolved)
        self._mirrors.check_inventories()
        return Listing(config.generation, self._count_copies(config))

    def _count_copies(self, config: ArtifactConfig) -> CopyCounts:
        mirrors, lacking = self._mirrors, self._parts.todo.few_that_lack_copies()
        if lacking is None:
            return CopyCounts(config, [mirror.certain_copies() for mirror in mirrors.readable()])
        counted = [{a for a in lacking if m.certain_copy(a) is not None} for m in mirrors.all]
        return CopyCounts(config, counted, lacking)

    async def describe(self, artifact: ArtifactHash) -> ArtifactDetail:
        """Say where the artifact's copies are, dataset by dataset.

        Raises:
            NoDataset, NotFound.
        """
        self._mirrors.require_readable()
        return detail_of(artifact, self._mirrors.all, self._parts.quarantine.listing_of(artifact))

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
        with self._parts.foreground.work():
            async with self._parts.put_desk.begin(
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
        opened = await self._parts.reader.open(artifact, exclude, to_read=to_read)
        if to_read:
            opened.on_close = self._parts.foreground.begin()
        return opened

    def read_failed(self, opened: OpenArtifact, error: OSError) -> None:
        """Note that a copy could not be read, so that it is not counted or served again."""
        self._parts.reader.failed(opened, error)

    def holdings(self) -> Holdings:
        """What can be said at once of the copies that are good."""
        return Holdings(self._mirrors, self.state, self._parts.foreground)

    # Pins

    def pins(self) -> Mapping[str, frozenset[ArtifactHash]]:
        """Every pin by name, sorted.

        Raises:
            NoDataset.
        """
        self._mirrors.require_readable()
        return self._parts.keeper.book.pins

    async def put_pin(self, name: str, artifacts: Collection[ArtifactHash]) -> None:
        """Hold artifacts: no config may drop them.

        Raises:
            NoDataset, NoConfig, LedgerUnknown, NotInConfig, InvalidRequest, QuotaExceeded, Io.
        """
        await self._parts.keeper.put_pin(name, artifacts)

    async def delete_pin(self, name: str) -> None:
        """Let go of a pin.

        Raises:
            NoDataset, NotFound, QuotaExceeded, Io.
        """
        await self._parts.keeper.delete_pin(name)

    # Quarantine

    def quarantined(self) -> tuple[Quarantined, ...]:
        """Every damaged copy that was set aside, oldest first; they may be many: for a thread.

        Raises:
            NoDataset.
        """
        self._mirrors.require_readable()
        return self._parts.quarantine.listing()

    async def restore_quarantined(self, id_: str) -> None:
        """Give a copy in quarantine its name back, if its bytes hash to it.

        Raises:
            NoDataset, NotFound.
            KeptInQuarantine: they do not, nobody wants it, or a good copy stands there.
            QuotaExceeded, Io.
        """
        await self._parts.quarantine_desk.restore(id_)
        self._parts.heal_again()

    async def purge_quarantined(self, id_: str, *, force: bool = False) -> None:
        """Delete a copy in quarantine; the last one of an artifact only with `force`.

        Raises:
            NoDataset, NotFound, KeptInQuarantine, Io.
        """
        await self._parts.quarantine_desk.purge(id_, force=force)

    def status(self) -> StoreStatus:
        """Everything an operator wants to know, from memory."""
        self._mirrors.check_inventories()
        self._parts.quarantine.check_shelves()
        return status_of(
            self._mirrors,
            self._parts.keeper,
            self._parts.todo,
            self._parts.healing,
            self._parts.quarantine,
            self._parts.put_desk.running,
            self._parts.scrubber.status(),
            self.arrivals.status(),
        )

    # Scrub

    def scrub_status(self) -> ScrubStatus:
        """How the background verification is, from memory."""
        return self._parts.scrubber.status()

    async def start_scrub(self) -> None:
        """Have `run_duties` verify every copy from now on, as fast as is allowed.

        Joins a pass that was asked for already, and ends a pause.
        """
        await self._parts.scrubber.start()

    async def pause_scrub(self, seconds: float) -> None:
        """Verify nothing in the background for so long, at most `MAX_PAUSE_S`."""
        await self._parts.scrubber.pause(seconds)

    async def resume_scrub(self) -> None:
        """End a pause."""
        await self._parts.scrubber.resume()

    async def scrub(self) -> list[ScrubPass]:
        """Verify every copy of every healthy dataset now; how it went, dataset by dataset."""
        return await self._parts.scrubber.run_once()

    # Duties

    async def run_duties(self, peers: Peers | None = None) -> None:
        """Watch the datasets, delete, heal, scrub; until cancelled.

        `peers` is where that comes from which no dataset here has whole.
        """
        await self._duties.run(peers)

    async def reconcile(self) -> int:
        """Delete what no config wants, now; the number of artifacts deleted."""
        return await self._duties.reconcile()

    async def remirror(self, peers: Peers | None = None) -> int:
        """Heal what some healthy dataset lacks, now; the number of artifacts healed."""
        return await self._parts.healer.heal_here() + await self._parts.healer.fetch(peers)

    # Datasets

    async def release_dataset(self, path: Path, *, last: bool = False) -> None:
        """Let go of a dataset so that it can be unmounted; see `DatasetDesk.release`.

        Raises:
            NotFound, DatasetRefused.
        """
        await self._parts.datasets.release(path, last=last)

    async def attach_dataset(self, path: Path) -> None:
        """Take a released or retired dataset back; see `DatasetDesk.attach`.

        Raises:
            NotFound, DatasetRefused.
        """
        await self._parts.datasets.attach(path)

    async def replace_dataset(self, path: Path, *, plain_directory: bool = False) -> str:
        """Adopt an empty disk in place of the one that was there; see `DatasetDesk.replace`.

        Raises:
            NotFound, NoDataset, DatasetRefused.
        """
        return await self._parts.datasets.replace(path, plain_directory=plain_directory)

    async def check_datasets(self) -> None:
        """Look at every dataset now."""
        await asyncio.gather(*(self._parts.watch.check(mirror) for mirror in self._mirrors.all))
