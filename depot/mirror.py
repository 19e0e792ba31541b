"""A configured dataset path and its live state: attached or not, trusted or not, and what it holds.

The event loop's view of a `Dataset`. Every blocking call runs in the mirror's own daemon threads
under a deadline, so one device's hang stays its own (B4). A failure moves the state:

    healthy --write fails, call hangs--> suspect (still readable) --probe succeeds--> joining
    any --path no longer leads to the dataset--> missing --attach succeeds--> joining
    joining (suspect until then) --what it says was read--> healthy

Nothing is written to a dataset that comes (back) before its ledger was read: it may be the newer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from depot.artifact import ArtifactHash
from depot.dataset import Dataset, Space
from depot.errors import DatasetUnusable
from depot.quota import Quota
from depot.worker import DaemonThreads, describe_error, full_disk

P = ParamSpec("P")
T = TypeVar("T")

THREADS: Final = 8
VERIFICATIONS: Final = 2
"""Copies that are hashed at once: the deadline of a call includes its wait for a thread, so a crowd
of readers must not hold them all and make a healthy dataset look hung."""
EMPTY_ARTIFACT: Final = ArtifactHash.of(b"")


class MirrorState(StrEnum):
    """How far a dataset can be used."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Copy:
    """One artifact's file on one dataset.

    Attributes:
        verified_at_s: Unix time when its bytes last hashed to its name; None: never seen.
        damaged: known not to hold the bytes its name says.
    """

    size_bytes: int
    verified_at_s: float | None = None
    damaged: bool = False


Transition = Callable[["Mirror", MirrorState, MirrorState], None]


class Mirror:
    """One of the datasets of a store.

    Args:
        index: its place in the configuration.
        on_transition: told after each change of state.

    Attributes:
        revision: raised whenever `artifacts` or the state changes, so that what is derived from
            them can be kept until then.
        closing: the last dataset's release, which gives up its lock.
    """

    def __init__(
        self,
        index: int,
        path: Path,
        *,
        quota_bytes: int,
        device_timeout_s: float,
        on_transition: Transition,
    ) -> None:
        self.index = index
        self.path = path
        self.artifacts: dict[ArtifactHash, Copy] = {}
        self.revision = 0
        self.quota = Quota(quota_bytes)
        self.space: Space | None = None
        self.full = False
        self.last_error: str | None = None
        self.state = MirrorState.MISSING
        self.joining = False
        self.closing: Future[None] | None = None
        self._dataset: Dataset | None = None
        self.timeout_s = device_timeout_s
        self._on_transition = on_transition
        self.verifying = asyncio.Semaphore(VERIFICATIONS)
        self._threads = DaemonThreads(f"dataset-{index}", THREADS)

    @property
    def healthy(self) -> bool:
        """Can be read and written."""
        return self.state is MirrorState.HEALTHY

    @property
    def readable(self) -> bool:
        """Can be read."""
        return self.state is not MirrorState.MISSING

    @property
    def dataset(self) -> Dataset:
        """The attached dataset; ask only a readable mirror."""
        if self._dataset is None:
            raise DatasetUnusable(f"{self.path}: {self.last_error or 'not attached'}")
        return self._dataset

    def good_copy(self, artifact: ArtifactHash) -> Copy | None:
        """The artifact's copy here, unless it is known to be damaged or cannot be whole."""
        copy = self.artifacts.get(artifact)
        if copy is None or copy.damaged or not self.readable:
            return None
        return None if copy.size_bytes == 0 and artifact != EMPTY_ARTIFACT else copy

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
        return await self._threads.call(self.timeout_s, function, self.dataset, *args, **kwargs)

    async def open_artifact(self, artifact: ArtifactHash) -> tuple[int, int]:
        """Open an artifact, as `Dataset.open_artifact`; its failure is not the mirror's.

        A descriptor that comes too late, for whatever reason, is closed.
        """
        opening = self.begin(Dataset.open_artifact, self.dataset, artifact)
        try:
            return await self.wait(opening)
        except BaseException:
            opening.add_done_callback(_close_opened)
            raise

    def failed(self, error: OSError | DatasetUnusable, dataset: Dataset | None = None) -> None:
        """Move the state after a failed operation, unless `dataset` has been replaced since."""
        if dataset not in (None, self._dataset):
            return
        if isinstance(error, DatasetUnusable):
            self.detach(str(error))
        elif isinstance(error, FileNotFoundError):
            pass
        elif full_disk(error):
            self.full = True
            self.last_error = describe_error(error)
        else:
            self.last_error = describe_error(error)
            self.joining = False
            if self.state is MirrorState.HEALTHY:
                self._move(MirrorState.SUSPECT)

    def attached(
        self, dataset: Dataset, sizes: dict[ArtifactHash, int], problem: OSError | None
    ) -> None:
        """Take over a dataset that was opened, with what a scan found and why it is not written."""
        self._dataset = dataset
        self.revision += 1
        self.artifacts = {artifact: Copy(size) for artifact, size in sizes.items()}
        self.quota.set_used(sum(sizes.values()))
        self._move(MirrorState.SUSPECT)
        self.recovered()
        if problem is not None:
            self.failed(problem)

    def recovered(self) -> None:
        """The dataset has proved that it can be written; what it says is to be read next."""
        self.last_error = None
        self.full = False
        self.joining = True

    def join(self) -> None:
        """What a recovered dataset says is known: it may be written to."""
        if self.joining:
            self.joining = False
            self._move(MirrorState.HEALTHY)

    def detach(self, reason: str) -> None:
        """Let go of the dataset."""
        self.last_error = reason
        self.joining = False
        self.revision += 1
        self.artifacts = {}
        self.quota.set_used(0)
        self.space = None
        dataset, self._dataset = self._dataset, None
        if dataset is not None:
            # Closing can hang on a dead device, so it is the mirror's threads' work too.
            self.closing = self._threads.submit(dataset.close)
        self._move(MirrorState.MISSING)

    def begin(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a call in the mirror's threads without waiting for it."""
        return self._threads.submit(function, *args, **kwargs)

    async def wait(self, call: Future[T]) -> T:
        """Wait for a call that was begun, at most as long as for any other.

        Raises:
            OSError: ETIMEDOUT, when it has not ended by then. It may still end later.
        """
        return await self._threads.wait(self.timeout_s, call)

    def record(self, artifact: ArtifactHash, copy: Copy | None) -> None:
        """Note that a copy appeared, changed or left; keeps the quota's use right."""
        self.revision += 1
        before = self.artifacts.get(artifact)
        self.quota.add_used((copy.size_bytes if copy else 0) - (before.size_bytes if before else 0))
        if copy is None:
            self.artifacts.pop(artifact, None)
        else:
            self.artifacts[artifact] = copy

    async def close(self) -> None:
        """Release the dataset, or leave it behind if its device hangs, and let the threads end."""
        if self._dataset is not None:
            with suppress(OSError):
                await self._threads.call(self.timeout_s, self._dataset.close)
            self._dataset = None
        self.state, self.last_error = MirrorState.MISSING, "closed"
        self._threads.close()

    def _move(self, state: MirrorState) -> None:
        self.revision += 1
        before, self.state = self.state, state
        if before is not state:
            self._on_transition(self, before, state)


def _close_opened(opening: Future[tuple[int, int]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result()[0])
