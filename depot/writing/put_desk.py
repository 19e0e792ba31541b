"""Admission of writes: every refusal that needs no body, in the contract's order.

Knows which artifacts have a writer, which the reconciler asks before it deletes (D1), and counts
the writes that run (S1). Whatever way a write ends, its space and its place are given back (Q1).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from depot.artifact import ArtifactHash, Generation
from depot.concurrency.keyed_lock import KeyedLock
from depot.config import fencing
from depot.config.keeper import EventSink, LedgerKeeper
from depot.errors import TooManyPuts
from depot.mirrors.mirror_set import MirrorSet
from depot.quarantine.keeper import QuarantineKeeper
from depot.state.tables import StateStore, Table
from depot.writing.arriving import Arrivals
from depot.writing.ground import Ground, survey
from depot.writing.group_commit import GroupCommit
from depot.writing.ingest import Ingestor
from depot.writing.landing import Landings
from depot.writing.put import Put


@dataclass(frozen=True, slots=True, kw_only=True)
class PutLimits:
    """Bounds of writes; sizes in bytes.

    Attributes:
        group_commit: short bodies are made durable together; see `depot.writing.group_commit`.
        mirror_lag_s: how long one commit may wait for one dataset alone.
    """

    max_artifact_size_bytes: int
    min_copies: int
    max_concurrent_puts: int
    group_commit: bool
    mirror_lag_s: float


class PutDesk:
    """Admits writes and knows which artifacts have one running.

    Attributes:
        running: writes that count towards the limit.
        writers: how many writers each artifact has now; those that have none are not in it.
        commits: held for each artifact while its files get or lose their names.
        group_commit: gives files their names on the mirrors.
        landings: records what got its name, also when no put waits for it any more.
        arrivals: what is being received and may be read.
        on_shortfall: called when a write has landed on fewer datasets than there are.
    """

    def __init__(
        self,
        mirrors: MirrorSet,
        keeper: LedgerKeeper,
        ingestor: Ingestor,
        quarantine: QuarantineKeeper,
        commits: KeyedLock[ArtifactHash],
        limits: PutLimits,
        on_event: EventSink,
        on_shortfall: Callable[[], None],
        *,
        state: StateStore,
        arrivals: Arrivals,
    ) -> None:
        self.running = 0
        self.writers: Table[ArtifactHash, int] = state.table("writers")
        self._store = state
        self.commits = commits
        self.on_shortfall = on_shortfall
        self.mirrors = mirrors
        self.keeper = keeper
        self.ingestor = ingestor
        self.quarantine = quarantine
        self.limits = limits
        self.emit = on_event
        self.arrivals = arrivals
        self.group_commit = GroupCommit(
            mirrors.all, together=limits.group_commit, lag_s=limits.mirror_lag_s
        )
        self.landings = Landings(keeper, quarantine, commits)

    @asynccontextmanager
    async def begin(
        self,
        artifact: ArtifactHash,
        generation: Generation,
        length_bytes: int | None,
        *,
        counted: bool,
        event: str | None,
    ) -> AsyncIterator[Put]:
        """Admit a write for the block; see `ArtifactStore.begin_put`."""
        self._check(artifact, generation)
        self.count_writers((artifact,), 1)
        put = Put(self, artifact, generation, length_bytes, event, self.mirrors.healthy())
        try:
            await put.room.look_for_copies()
            if put.held is None:
                await put.room.make()
            fencing.check_commit(self.keeper.resolved, artifact, generation)  # that took a while
            if put.held is None:
                put.room.reserve()
            with self._counted(counted and put.held is None):
                yield put
        finally:
            put.room.release()
            self.count_writers((artifact,), -1)

    def survey(self) -> Ground | None:
        """The datasets for `begin_at_once`, in this step of the event loop; see `ground.survey`."""
        return survey(self.mirrors, self.quarantine)

    def begin_at_once(
        self,
        artifact: ArtifactHash,
        generation: Generation,
        length_bytes: int,
        ground: Ground,
        *,
        event: str,
    ) -> Put | None:
        """Admit a write without waiting for anything; None where that cannot be.

        It counts as running, and has its artifact's commit lock, until `end`. It is to be entered
        with `count_writers` in the same step of the event loop.

        Raises:
            NoConfig, ArtifactGeneration, LedgerUnknown, NotInConfig, TooManyPuts.
        """
        fencing.check_write(self.keeper.resolved, artifact, generation)
        self._check_place()
        put = Put(self, artifact, generation, length_bytes, event, ground.healthy)
        if not self.commits.take_now(artifact):
            return None
        try:
            reserved = put.room.reserve_at_once(ground)
        except BaseException:
            put.room.release()
            self.commits.release(artifact)
            raise
        if not reserved:
            self.commits.release(artifact)
            return None
        self.running += 1
        return put

    def end(self, put: Put, artifact: ArtifactHash) -> None:
        """End what `begin_at_once` began."""
        put.room.release()
        self.running -= 1
        self.commits.release(artifact)

    def count_writers(self, artifacts: Iterable[ArtifactHash], change: int) -> None:
        """Count one more writer of each, or one less; none may come twice."""
        with self._store.transaction() as transaction:
            for artifact in artifacts:
                writers = self.writers.get(artifact, 0) + change
                if writers:
                    transaction.put(self.writers, artifact, writers)
                else:
                    transaction.delete(self.writers, artifact)

    def _check(self, artifact: ArtifactHash, generation: Generation) -> None:
        self.mirrors.require_readable()
        fencing.check_write(self.keeper.resolved, artifact, generation)
        self.mirrors.require_healthy()

    def _check_place(self) -> None:
        if self.running >= self.limits.max_concurrent_puts:
            raise TooManyPuts(f"{self.running} puts are running, the limit of this sled")

    def _counted(self, counted: bool) -> _Slot:
        if counted:
            self._check_place()
        return _Slot(self, int(counted))


@dataclass(frozen=True, slots=True)
class _Slot:
    desk: PutDesk
    weight: int

    def __enter__(self) -> None:
        self.desk.running += self.weight

    def __exit__(self, *_exc: object) -> None:
        self.desk.running -= self.weight
