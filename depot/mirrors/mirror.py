"""A configured dataset path and its live state: attached or not, trusted or not, and what it holds.

The event loop's view of a `Dataset`. Every blocking call runs in the mirror's own host, threads or
a worker process, under a deadline, so one device's hang stays its own (B4). A failure moves its
condition (`depot.mirrors.condition`).

Nothing is written to a dataset that comes (back) before its ledger was read: it may be the newer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from depot.artifact import ArtifactHash
from depot.concurrency.threads import wait_within
from depot.dataset.attaching import Opened, open_for_another, open_here, open_staged, release
from depot.dataset.dataset import Dataset
from depot.dataset.marker import MARKER_FILE, Marker, encode_marker
from depot.dataset.page_cache import CachedFile, available
from depot.dataset.space import Space
from depot.device.host import HostOf, thread_host
from depot.device.resident import let_go
from depot.errors import DatasetUnusable
from depot.mirrors import records
from depot.mirrors.condition import Condition, MirrorState, casts_doubt, is_own_want
from depot.mirrors.inventory import Copy, Inventory, Stock, good_in, take_stock
from depot.mirrors.open_artifact import OpenArtifact, close_if_late
from depot.mirrors.quota import Quota
from depot.state.tables import StateStore, Table

P = ParamSpec("P")
T = TypeVar("T")

VERIFICATIONS: Final = 2
"""Copies that are hashed at once: the deadline of a call includes its wait for a thread, so a crowd
of readers must not hold them all and make a healthy dataset look hung."""
Transition = Callable[["Mirror", MirrorState, MirrorState], None]


class Mirror:
    """One of the datasets of a store.

    Args:
        index: its place in the configuration.
        state: where what is known of the dataset is kept.
        on_transition: told after each change of state.

    Attributes:
        artifacts: every copy on the dataset, good or not.
        closing: the last dataset's release, which gives up its lock.
        inventory: what is worked out of `artifacts`.
        stock_revision: raised whenever copies may have changed otherwise than one by one.
        on_record: told the copy before and after each `record`.
        on_gone: told each artifact whose copy was found to be gone, after it was recorded.
        on_copy: told each artifact whose copy, or whether it counts, changed by itself.
        marker: of the dataset that is here, or was here last.
        doubts: copies that do not count before they are verified: they were there when the dataset
            failed, or another dataset's copy has another size.
        pardoned: an operator takes a dataset back here now, also a retired one.
        was_mount: what is here, or was here last, is a mount of its own.
    """

    def __init__(
        self,
        index: int,
        path: Path,
        *,
        state: StateStore,
        quota_bytes: int,
        device_timeout_s: float,
        on_transition: Transition,
        host_of: HostOf = thread_host,
    ) -> None:
        self.index = index
        self.path = path
        self.artifacts: Table[ArtifactHash, Copy] = state.table(f"copies on dataset {index + 1}")
        self.doubts: Table[ArtifactHash, object] = state.table(f"doubts on dataset {index + 1}")
        self._conditions: Table[int, Condition] = state.table("datasets")
        self._spaces: Table[int, Space] = state.table("space")
        self.store = state
        self.quota = Quota(quota_bytes)
        self.closing: Future[None] | None = None
        self.marker: Marker | None = None
        self.pardoned = False
        self.was_mount = False
        self._dataset: Dataset | None = None
        self.timeout_s = device_timeout_s
        self._on_transition = on_transition
        self.verifying = asyncio.Semaphore(VERIFICATIONS)
        self.host = host_of(f"dataset-{index}", self._worker_ended)
        self.on_record: records.Recorded = records.tell_nobody
        self.on_gone: records.Gone = records.tell_nobody
        self.on_copy: Callable[[ArtifactHash], object] = records.tell_nobody
        self.inventory = Inventory()
        self.stock_revision = 0
        with state.transaction() as change:
            change.put(self._conditions, index, Condition())

    @property
    def condition(self) -> Condition:
        """Everything about its state, as of one moment."""
        return self._conditions[self.index]

    @property
    def state(self) -> MirrorState:
        """How far it can be used."""
        return self.condition.state

    @property
    def joining(self) -> bool:
        """It can be written again, but what it says was not read yet."""
        return self.condition.joining

    @property
    def full(self) -> bool:
        """The last write found no room."""
        return self.condition.full

    @property
    def over_quota(self) -> bool:
        """A quota refused a write, and nothing was purged since."""
        return self.condition.over_quota

    def made_room(self) -> None:
        """Something was purged, or could not be: the next refusal tells whether it was enough."""
        self._become(replace(self.condition, over_quota=False))

    @property
    def last_error(self) -> str | None:
        """What went wrong last, for people."""
        return self.condition.last_error

    @last_error.setter
    def last_error(self, last_error: str) -> None:
        self._become(replace(self.condition, last_error=last_error))

    @property
    def released(self) -> bool:
        """An operator had it let go of; it is left alone."""
        return self.condition.released

    @property
    def doubtful(self) -> bool:
        """Its copies count only once they were verified again."""
        return self.condition.doubtful

    @property
    def space(self) -> Space | None:
        """What the filesystem said when it was last asked."""
        return self._spaces.get(self.index)

    @space.setter
    def space(self, space: Space) -> None:
        with self.store.transaction() as change:
            change.put(self._spaces, self.index, space)

    @property
    def revision(self) -> int:
        """Raised whenever `artifacts` or a condition changes: what is derived keeps until then."""
        return max(self.artifacts.revision, self._conditions.revision, self.doubts.revision)

    @property
    def healthy(self) -> bool:
        """Can be read and written."""
        return self.condition.state is MirrorState.HEALTHY

    @property
    def readable(self) -> bool:
        """Can be read."""
        return self.condition.state is not MirrorState.MISSING

    def has(self, dataset: Dataset) -> bool:
        """Tell whether this very dataset is attached, and has not left since it was asked for."""
        return self._dataset is dataset

    @property
    def dataset(self) -> Dataset:
        """The attached dataset; ask only a readable mirror."""
        if self._dataset is None:
            raise DatasetUnusable(f"{self.path}: {self.last_error or 'not attached'}")
        return self._dataset

    def good_copy(self, artifact: ArtifactHash) -> Copy | None:
        """The artifact's copy here, unless it is known to be damaged or cannot be whole."""
        copy = good_in(self.artifacts, artifact)
        return copy if copy is not None and self.readable else None

    def certain_copy(self, artifact: ArtifactHash) -> Copy | None:
        """The artifact's good copy here if it counts: one in doubt can be read, checked, only."""
        return None if artifact in self.doubts else self.good_copy(artifact)

    def certain_copies(self) -> Set[ArtifactHash]:
        """Those whose copy here counts, as of now; to keep, and for other threads too."""
        if not self.readable:
            return frozenset()
        return self.inventory.good_but(self.doubts.rows)

    def room_for(self, size_bytes: int) -> bool:
        """Tell whether the filesystem, as last asked, has the bytes and an inode."""
        space = self.space
        return space is None or (space.free_bytes >= size_bytes and space.free_inodes != 0)

    async def call(
        self, function: Callable[Concatenate[Dataset, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a file operation; its failure is also the mirror's.

        Raises:
            OSError, DatasetUnusable: after the state was moved accordingly.
        """
        dataset = self.dataset
        try:
            return await self.read(function, *args, **kwargs)
        except (OSError, DatasetUnusable) as error:
            self.failed(error, dataset)
            raise

    async def read(
        self, function: Callable[Concatenate[Dataset, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a file operation whose failure says nothing about the rest of the dataset."""
        return await self.wait(self.host.submit(function, self.dataset, *args, **kwargs))

    def cached_file(self, artifact: ArtifactHash, size_bytes: int) -> CachedFile | None:
        """A small artifact's file, as far as memory has it; None where nobody can tell.

        Only beside a worker process: where its disk is in this one, every call goes through that.
        """
        dataset = self._dataset
        if dataset is None or not self.host.remote or not dataset.has_page_cache:
            return None
        if not available():
            return None
        return CachedFile(f"{dataset.path}/{artifact}", size_bytes, dataset.device_id)

    async def open_artifact(
        self, artifact: ArtifactHash, *, content_bytes: int = -1
    ) -> OpenArtifact:
        """Open an artifact, as `Dataset.open_artifact`; its failure is not the mirror's.

        A descriptor that comes too late, for whatever reason, is closed. What another process has
        open, and is no longer than `content_bytes`, comes with its content at once.
        """
        if self.host.remote:
            opening = self.begin(open_for_another, self.dataset, artifact, content_bytes)
        else:
            opening = self.begin(open_here, self.dataset, artifact)
        return await self._opened(artifact, opening)

    async def open_staged(self, artifact: ArtifactHash, name: str) -> OpenArtifact:
        """Open what is being written as `name`; its size is not known, its failure nobody's."""
        opening = self.begin(open_staged, self.dataset, name, remote=self.host.remote)
        return await self._opened(artifact, opening)

    async def _opened(self, artifact: ArtifactHash, opening: Future[Opened]) -> OpenArtifact:
        opened = await close_if_late(opening, self.wait(opening), self.host)
        made = OpenArtifact.of_file(artifact, self.index, opened, self.host)
        made.place = str(self.path)
        return made

    def failed(self, error: OSError | DatasetUnusable, dataset: Dataset | None = None) -> None:
        """Move the state after a failed operation, unless `dataset` has been replaced since."""
        if dataset not in (None, self._dataset):
            return
        if isinstance(error, DatasetUnusable):
            self.detach(str(error))
        else:
            after = self.condition.after(error)
            doubted = self.artifacts.rows if self.readable and casts_doubt(error) else None
            self._become(after, doubted=doubted)

    def write_failed(self, error: OSError | DatasetUnusable, dataset: Dataset) -> None:
        """Move the state after a failed write of an artifact, which is healed in any case.

        A ledger's is another matter: a dataset that stays healthy without it would break G3.
        """
        if isinstance(error, DatasetUnusable) or not is_own_want(error):
            self.failed(error, dataset)

    def doubt(self, artifact: ArtifactHash, copy: Copy) -> None:
        """Have a copy that is about to be recorded in doubt, as all are that were there before."""
        records.doubt(self, {artifact: copy})

    def reclaim(self) -> None:
        """A released dataset may be attached again."""
        self._become(replace(self.condition, released=False))

    def attached(
        self,
        dataset: Dataset,
        stock: Stock,
        problem: OSError | None,
        *,
        doubtful: bool = False,
    ) -> None:
        """Take over a dataset that was opened, with what is on it and why it is not written.

        One that was `doubtful` before is not joined before its copies were verified.
        """
        self._dataset = dataset
        self.marker = dataset.marker
        self.quota.set_used(stock.inventory.used_bytes)
        condition = Condition.on_arrival(problem, doubtful=doubtful)
        self._become(condition, stock, doubted=stock.copies if condition.doubtful else {})

    def recovered(self) -> None:
        """The dataset has proved that it can be written; what it says is to be read next."""
        self._become(self.condition.recovered())

    def join(self) -> None:
        """What a recovered dataset says is known: it may be written to."""
        if self.joining:
            self._become(self.condition.joined())

    async def release(self, reason: str) -> None:
        """Let go of the dataset and of every file on it, and leave it alone from now on."""
        self.detach(reason, release_files=True)
        if self.closing is not None:
            closing = asyncio.wrap_future(self.closing)
            closing.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait((closing,), timeout=self.timeout_s)
            if not closing.done():
                self.last_error = f"{reason}; its device does not answer and may stay busy"

    async def write_marker(self, marker: Marker) -> None:
        """Say anew who the dataset is among its siblings; a failure moves the state."""
        if marker == self.marker:
            return
        with suppress(OSError, DatasetUnusable):
            await self.call(Dataset.write_document, MARKER_FILE, encode_marker(marker))
            self.marker = marker

    def detach(self, reason: str, *, release_files: bool = False) -> None:
        """Let go of the dataset, with `release_files` of every file on it too."""
        dataset, self._dataset = self._dataset, None
        if dataset is not None:
            # Closing can hang on a dead device, so it is the mirror's threads' work too.
            self.closing = self.host.submit(release if release_files else let_go, dataset)
        self.quota.set_used(0)
        gone = self.condition.gone(reason, released=release_files)
        self._become(gone, take_stock({}), doubted={})

    def begin(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a call in the mirror's threads without waiting for it."""
        return self.host.submit(function, *args, **kwargs)

    async def wait(self, call: Future[T]) -> T:
        """Wait for a call that was begun, at most as long as for any other.

        Raises:
            OSError: ETIMEDOUT, when it has not ended by then. It may still end later.
        """
        return await wait_within(self.timeout_s, call, f"dataset {self.index + 1}")

    def record(self, artifact: ArtifactHash, copy: Copy | None) -> None:
        """Note that a copy appeared, changed or left; keeps the quota's use right."""
        records.record_all([records.Record((self,), artifact, copy)])

    def gone(self, artifact: ArtifactHash) -> None:
        """Note that a copy was found to be gone, which nobody here has taken away."""
        was_here = artifact in self.artifacts
        self.record(artifact, None)
        if was_here:
            self.on_gone(self, artifact)

    async def close(self) -> None:
        """Release the dataset, or leave it behind if its device hangs, and let the threads end."""
        if self._dataset is not None:
            with suppress(OSError, DatasetUnusable):
                await self.wait(self.host.submit(let_go, self._dataset))
            self._dataset = None
        with self.store.transaction() as change:  # the end, not a loss: nobody is told
            change.put(self._conditions, self.index, Condition(last_error="closed"))
        await self.host.close()

    def _worker_ended(self, error: DatasetUnusable) -> None:
        if self._dataset is None:
            self.last_error = str(error)
        else:
            self.failed(error)

    def _become(
        self,
        after: Condition,
        stock: Stock | None = None,
        *,
        doubted: Mapping[ArtifactHash, object] | None = None,
    ) -> None:
        """Commit a condition, and with it what the dataset holds and what is in doubt, if new."""
        before = self.condition
        with self.store.transaction() as change:
            if stock is not None:
                change.replace(self.artifacts, stock.copies)
            if doubted is not None:
                change.replace(self.doubts, doubted)
            if after.state is MirrorState.MISSING:
                change.delete(self._spaces, self.index)
            if after != before:
                change.put(self._conditions, self.index, after)
        if stock is not None:
            self.inventory = stock.inventory
        self.stock_revision += stock is not None or doubted is not None or before != after
        if before.state is not after.state:
            self._on_transition(self, before.state, after.state)
