"""Healing: every wanted artifact back on every healthy dataset, from wherever its bytes are (B5).

What is to be done is not written down anywhere, because it can be read off the disks at any time:
the config, less the good copies that the datasets hold. A damaged copy is judged once more and set
aside, so that it is missing from then on, also after a restart. An artifact comes back from, in
this order,

1. the good copy of another dataset,
2. damaged copies, standing or in quarantine, that are whole between them, block by block,
3. a peer,

each through the same door as any other write, so that what is written is hashed as a whole and no
wrong byte can spread. When none of them has it, it is lost: said once, and tried again from time
to time. What this sled never had (`depot.scrub.had`) is not its to heal. One artifact at a time,
those with the fewest good copies first; what fails waits longer and longer, until something
changes.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import dataclass
from heapq import nsmallest
from typing import Final, Protocol

from depot.artifact import ArtifactHash, Generation
from depot.concurrency.backoff import Backoff
from depot.concurrency.foreground import Foreground
from depot.concurrency.unhurried import unhurried
from depot.config.keeper import EventSink, LedgerKeeper
from depot.errors import BadSource, DepotCopy, DepotError, HashMismatch, NotFound
from depot.healing.assemble import Assembler, Remains, find_digests, remains_of
from depot.healing.census import Census, Lacks
from depot.mirrors.inventory import Copy, missing_bytes
from depot.mirrors.mirror_set import MirrorSet
from depot.mirrors.verify import verify_copy
from depot.os_errors import describe_error
from depot.quarantine.keeper import QuarantineKeeper
from depot.reading.reader import Reader
from depot.scrub.had import Had
from depot.state.tables import StateStore, Table
from depot.streams.budget import Budget
from depot.streams.limited import LimitedSource
from depot.streams.sources import Source
from depot.writing.put import Put, Stored
from depot.writing.put_desk import PutDesk

_FEW: Final = 1000
COURTESY_S: Final = 2.0
"""How long an artifact that is to be healed waits for the work that is in the foreground."""


class Peers(Protocol):
    """Where artifacts come from that no dataset of this sled has."""

    async def fetch(self, artifact: ArtifactHash, generation: Generation) -> Stored | None:
        """Store an artifact through `ArtifactStore.begin_put`; None when no peer can be asked.

        Raises:
            DepotError, OSError: no peer gave it, and why.
        """


@dataclass(frozen=True, slots=True)
class HealingStatus:
    """How far healing is.

    Attributes:
        todo: artifacts that wait for their copies, or are being healed.
        todo_bytes: what is to be written for them, as far as their size is known.
        healed: artifacts healed since the start, and how long each took since its damage was
            found, in seconds, in all and at last.
        failed: of those in `todo`, how many could not be healed when they were tried last.
        current: the artifact that is being healed.
        lost: wanted artifacts of which nobody has a good copy.
    """

    todo: int = 0
    todo_bytes: int = 0
    healed: int = 0
    heal_seconds: float = 0.0
    last_heal_s: float | None = None
    failed: int = 0
    current: ArtifactHash | None = None
    lost: tuple[ArtifactHash, ...] = ()


class Healer:
    """Heals what some healthy dataset lacks.

    Attributes:
        lost: wanted artifacts of which nobody has a good copy, and the Unix time it was found out.
    """

    def __init__(
        self,
        mirrors: MirrorSet,
        keeper: LedgerKeeper,
        desk: PutDesk,
        reader: Reader,
        quarantine: QuarantineKeeper,
        had: Had,
        on_event: EventSink,
        *,
        state: StateStore,
        foreground: Foreground,
        budget: Budget,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures: Table[ArtifactHash, str] = state.table("heal failures")
        self.lost: Table[ArtifactHash, float] = state.table("lost artifacts")
        self._store = state
        self._foreground = foreground
        self._budget = budget
        self._mirrors = mirrors
        self._keeper = keeper
        self._desk = desk
        self._reader = reader
        self._quarantine = quarantine
        self._had = had
        self._emit = on_event
        self._clock = clock
        self._monotonic = monotonic
        self._pauses: Backoff[ArtifactHash] = Backoff()
        self._peer_pauses: Backoff[ArtifactHash] = Backoff()
        self._found_s: dict[ArtifactHash, float] = {}
        self._in_vain: dict[ArtifactHash, frozenset[tuple[int, str]]] = {}
        self._in_vain_pauses: Backoff[ArtifactHash] = Backoff(first_s=60.0)
        self._current: ArtifactHash | None = None
        self._healed = 0
        self._heal_seconds = 0.0
        self._last_heal_s: float | None = None
        self._census = Census(mirrors, keeper)
        self._missing: tuple[Lacks, int] = (Lacks(), 0)
        self._gone: tuple[Lacks | None, int, list[ArtifactHash]] = (None, 0, [])

    # What is to be done

    def under_replicated(self) -> tuple[ArtifactHash, ...]:
        """Wanted artifacts with a good copy somewhere, but not one that counts on every dataset."""
        return self._census.lacks().some

    def missing(self) -> tuple[ArtifactHash, ...]:
        """Wanted artifacts without any good copy."""
        return self._census.lacks().all

    def few_that_lack_copies(self) -> frozenset[ArtifactHash] | None:
        """Those of which not every dataset has a copy that counts; None: many, or nobody knows."""
        lacks = self._census.lacks_as_counted()
        if lacks is None or len(lacks.some) + len(lacks.all) > _FEW:
            return None
        return frozenset((*lacks.some, *lacks.all))

    async def recount(self) -> None:
        """Find out in a thread what is to be done, after much has changed; or who asks has to."""
        await self._census.recount()

    def status(self) -> HealingStatus:
        """How far healing is; from memory."""
        had, lacks, failed = self._to_be_had(), self._census.lacks(), set(self._failures)
        some = lacks.some
        return HealingStatus(
            todo=len(had) + len(some),
            todo_bytes=self._missing_bytes(had),
            healed=self._healed,
            heal_seconds=self._heal_seconds,
            last_heal_s=self._last_heal_s,
            failed=len(failed.intersection(lacks.all)) + len(failed.intersection(some)),
            current=self._current,
            lost=tuple(sorted(set(self.lost).intersection(lacks.all))),
        )

    def has_remains(self, artifact: ArtifactHash) -> bool:
        """Tell whether a damaged copy of it is left."""
        return bool(self._remains(artifact))

    def troubles(self, most: int) -> tuple[list[tuple[ArtifactHash, str, bool]], int]:
        """What could not be healed: why not when it was tried last, and whether it is lost.

        The first of them in order, at most so many, and how many more there are. Of what came back
        since, by whatever way, nothing is said any more.
        """
        lacks, failed, lost = self._census.lacks(), set(self._failures), set(self.lost)
        left = failed.intersection(lacks.all) | (failed - lost).intersection(lacks.some)
        first = nsmallest(most, left)
        named = [(artifact, self._failures[artifact], artifact in lost) for artifact in first]
        return named, len(left) - len(named)

    def heal_due_in_s(self) -> float | None:
        """When `heal_here` is worth another try of what failed, in seconds; None: nothing did."""
        return self._due_in_s(self._pauses)

    def fetch_due_in_s(self) -> float | None:
        """The same for `fetch`."""
        return self._due_in_s(self._peer_pauses)

    def _due_in_s(self, pauses: Backoff[ArtifactHash]) -> float | None:
        due_s = pauses.next_due_s()
        return None if due_s is None else due_s - self._monotonic()

    def something_changed(self) -> None:
        """Whatever failed may be tried again at once."""
        self._pauses.clear()
        self._peer_pauses.clear()
        self._in_vain.clear()
        self._in_vain_pauses.clear()

    def _todo(self) -> list[ArtifactHash]:
        """Those with no good copy first; of these, the ones that this sled has had."""
        return [*self._to_be_had(), *self._census.lacks().some]

    def _to_be_had(self) -> list[ArtifactHash]:
        """Those with no good copy that this sled has had; quick, however many it never had."""
        lacks = self._census.lacks()
        if not lacks.all:
            return []
        if self._gone[0] is not lacks or self._gone[1] != self._had.revision:
            self._gone = (lacks, self._had.revision, self._had.among(lacks.all))
        # What lies in quarantine may be older than what is remembered.
        aside = set(self._quarantine.sizes())
        return sorted({*self._gone[2], *aside.intersection(lacks.all)} if aside else self._gone[2])

    def _good(self, artifact: ArtifactHash) -> list[Copy]:
        copies = (mirror.good_copy(artifact) for mirror in self._mirrors.all)
        return [copy for copy in copies if copy is not None]

    def _having(self, artifact: ArtifactHash) -> list[str]:
        """Paths of the datasets that have a good copy."""
        return [str(mirror.path) for mirror in self._mirrors.all if mirror.good_copy(artifact)]

    def _lacking(self, artifact: ArtifactHash) -> int:
        return sum(mirror.good_copy(artifact) is None for mirror in self._mirrors.healthy())

    def _missing_bytes(self, had: Iterable[ArtifactHash]) -> int:
        lacks, every = self._census.lacks(), len(self._mirrors.all)
        if self._missing[0] is not lacks:
            readable = [mirror.inventory for mirror in self._mirrors.readable()]
            self._missing = (lacks, missing_bytes(lacks.some, readable, every))
        aside = self._quarantine.sizes()
        return self._missing[1] + every * sum(aside[a] for a in set(had).intersection(aside))

    # Doing it

    async def heal_here(self, *, only_due: bool = False) -> int:
        """Heal what the datasets themselves can heal; the number of artifacts healed.

        With `only_due`, those that failed a short while ago are left out, and each artifact lets
        work that somebody waits for go first, but not for ever: a copy is missing.
        """
        await self._judge_doubted(only_due=only_due)
        await self._settle_all()
        healed = 0
        async for artifact in unhurried(await self._begin_pass(self._pauses)):
            if only_due:
                await self._let_others_go_first()
            if self._may_try(artifact, self._pauses, only_due=only_due):
                healed += await self._try(artifact, self._pauses, self._from_here)
        await self._quarantine.trim()
        return healed

    async def fetch(self, peers: Peers | None, *, only_due: bool = False) -> int:
        """Get from peers what nothing here can heal; the number of artifacts healed."""

        async def from_peer(artifact: ArtifactHash, generation: Generation) -> _Outcome | None:
            return await self._from_peer(peers, artifact, generation)

        healed = 0
        async for artifact in unhurried(await self._begin_pass(self._peer_pauses)):
            if not self._is_beyond_help(artifact):
                self._peer_pauses.forget(artifact)
            elif self._may_try(artifact, self._peer_pauses, only_due=only_due):
                healed += await self._try(artifact, self._peer_pauses, from_peer)
        return healed

    async def _let_others_go_first(self) -> None:
        if self._foreground.busy:
            await self._foreground.changed.wait(COURTESY_S)

    async def _judge_doubted(self, *, only_due: bool) -> None:
        """Find out which of the copies that differ in size are good, if any: none counts before.

        What is in doubt because its dataset failed is verified before that is healthy again.
        """
        for mirror in self._mirrors.healthy():
            for artifact in sorted(mirror.doubts.rows):
                if only_due:
                    await self._let_others_go_first()
                if artifact in mirror.doubts and mirror.healthy:
                    await verify_copy(mirror, artifact)

    async def _settle_all(self) -> None:
        for mirror in self._mirrors.healthy():
            for artifact in sorted(mirror.inventory.bad):
                self._found_s.setdefault(artifact, self._clock())
                await self._quarantine.settle(mirror, artifact)

    async def _begin_pass(self, pauses: Backoff[ArtifactHash]) -> list[ArtifactHash]:
        await self._had.recall()
        await self.recount()
        todo = self._todo()
        left = frozenset(todo)
        pauses.keep_only(left)
        with self._store.transaction() as change:
            for artifact in self.lost.keys() - left:
                change.delete(self.lost, artifact)
            for artifact in self._failures.keys() - left:
                change.delete(self._failures, artifact)
        for artifact in self._found_s.keys() - left:
            del self._found_s[artifact]
        for artifact in self._in_vain.keys() - left:
            del self._in_vain[artifact]
        self._in_vain_pauses.keep_only(left)
        found_s = self._clock()
        async for artifact in unhurried(todo):
            self._found_s.setdefault(artifact, found_s)
        return todo

    def _may_try(
        self, artifact: ArtifactHash, pauses: Backoff[ArtifactHash], *, only_due: bool
    ) -> bool:
        if only_due and not pauses.is_due(artifact, self._monotonic()):
            return False
        if not self._lacking(artifact):
            pauses.forget(artifact)  # a dataset is away: its return is what wakes the healer
            return False
        if artifact in self._desk.writers:
            pauses.failed(artifact, self._monotonic())
            return False
        return True

    def _is_beyond_help(self, artifact: ArtifactHash) -> bool:
        """Tell whether nothing here can heal it; cheap for all that nobody has tried in vain."""
        tried = self._in_vain.get(artifact)
        return (
            tried is not None
            and not self._good(artifact)
            and tried == _names(self._remains(artifact))
        )

    async def _try(
        self, artifact: ArtifactHash, pauses: Backoff[ArtifactHash], heal: _Heal
    ) -> bool:
        # The list may be old by now: the artifact may be unwanted.
        config = self._keeper.resolved.config
        if config is None or artifact not in config.artifacts:
            pauses.forget(artifact)
            return False
        self._current = artifact
        had = self._having(artifact)
        try:
            outcome = await heal(artifact, config.generation)
        except DepotError as error:
            return self._failed(artifact, pauses, str(error))
        except OSError as error:
            return self._failed(artifact, pauses, describe_error(error))
        finally:
            self._current = None
        if outcome is None:
            pauses.forget(artifact)
            return False
        if outcome.source is not None:
            healed = [path for path in self._having(artifact) if path not in had]
            self._tell(artifact, outcome.source, outcome.stored, healed)
        if outcome.stored.failures:
            return self._failed(artifact, pauses, "; ".join(outcome.stored.failures))
        pauses.forget(artifact)
        with self._store.transaction() as change:
            change.delete(self._failures, artifact)
        return outcome.source is not None

    def _failed(self, artifact: ArtifactHash, pauses: Backoff[ArtifactHash], why: str) -> bool:
        with self._store.transaction() as change:
            change.put(self._failures, artifact, why)
        pauses.failed(artifact, self._monotonic())
        return False

    def _tell(
        self, artifact: ArtifactHash, source: str, stored: Stored, healed: Sequence[str]
    ) -> None:
        seconds = max(0.0, self._clock() - self._found_s.pop(artifact, self._clock()))
        self._healed += 1
        self._heal_seconds += seconds
        self._last_heal_s = seconds
        with self._store.transaction() as change:
            change.delete(self.lost, artifact)
        self._emit(
            "healed",
            {
                "sha256": str(artifact),
                "from": source,
                "healed_on": healed,
                "seconds": round(seconds, 3),
                "copies": stored.copies,
                "datasets": stored.datasets,
            },
        )

    async def _from_here(self, artifact: ArtifactHash, generation: Generation) -> _Outcome | None:
        if good := self._good(artifact):
            try:
                return await self._from_mirror(artifact, generation, good[0].size_bytes)
            except NotFound:
                if self._good(artifact):
                    raise
                # It has turned out to be bad or gone, too: what else is there?
        return await self._from_remains(artifact, generation)

    async def _from_mirror(
        self, artifact: ArtifactHash, generation: Generation, size_bytes: int
    ) -> _Outcome:
        async with self._admit(artifact, generation, size_bytes) as put:
            if put.held is not None:
                # On every dataset, or on all that have room; then it is said which has none.
                return _Outcome(None, put.held)
            # What arrives is hashed as a whole.
            copy = await self._reader.open(artifact, to_read=False)
            with copy, copy.source(self._mirrors.all[copy.dataset].timeout_s) as source:
                try:
                    return _Outcome("mirror", await self._receive(put, source, size_bytes))
                except HashMismatch as error:
                    self._reader.failed(copy, OSError(errno.EIO, str(error)))
                    raise
                except OSError as error:
                    if not isinstance(error, TimeoutError):  # which is a target's
                        self._reader.failed(copy, error)
                    raise

    async def _from_remains(
        self, artifact: ArtifactHash, generation: Generation
    ) -> _Outcome | None:
        remains = self._remains(artifact)
        if self._is_known_in_vain(artifact, remains):
            return None
        digests = await find_digests(artifact, remains, self._mirrors) if remains else None
        if digests is None:
            self._tried_in_vain(artifact, remains)
            return None
        async with self._admit(artifact, generation, digests.size_bytes) as put:
            if put.held is not None:
                return _Outcome(None, put.held)
            remains = self._remains(artifact)  # some may have been set aside
            try:
                source = Assembler(digests, remains).source()
                stored = await self._receive(put, source, digests.size_bytes)
                return _Outcome("blocks", stored)
            except (HashMismatch, OSError) as error:
                if isinstance(error, TimeoutError):
                    raise
                self._tried_in_vain(artifact, remains)
                return None

    async def _receive(self, put: Put, source: Source, size_bytes: int) -> Stored:
        """Store what `source` gives, no faster than healing may be."""
        with closing(LimitedSource(source, lambda: [(self._budget, 1)], size_bytes)) as limited:
            return await put.receive(limited)

    def _is_known_in_vain(self, artifact: ArtifactHash, remains: Iterable[Remains]) -> bool:
        # Not for ever: what could not be read may have been a bad moment of the device.
        waits = not self._in_vain_pauses.is_due(artifact, self._monotonic())
        return waits and self._in_vain.get(artifact) == _names(remains)

    def _tried_in_vain(self, artifact: ArtifactHash, remains: Iterable[Remains]) -> None:
        self._in_vain[artifact] = _names(remains)
        self._in_vain_pauses.failed(artifact, self._monotonic())

    async def _from_peer(
        self, peers: Peers | None, artifact: ArtifactHash, generation: Generation
    ) -> _Outcome | None:
        try:
            stored = await peers.fetch(artifact, generation) if peers else None
        except (DepotCopy, BadSource):
            self._lose(artifact)
            raise
        if stored is None:
            self._lose(artifact)
            raise DepotCopy("no dataset here has it whole, and no peer is known")
        return _Outcome("peer", stored)

    def _lose(self, artifact: ArtifactHash) -> None:
        self._census.lacks()  # it may have come, or be wanted no more, while peers were asked
        if artifact in self.lost or not self._census.lacks_all(artifact):
            return
        if all(mirror.readable for mirror in self._mirrors.all):  # one that is away may have it
            with self._store.transaction() as change:
                change.put(self.lost, artifact, self._clock())
            self._emit("lost", {"sha256": str(artifact)})

    def _admit(
        self, artifact: ArtifactHash, generation: Generation, size_bytes: int
    ) -> AbstractAsyncContextManager[Put]:
        return self._desk.begin(artifact, generation, size_bytes, counted=False, event=None)

    def _remains(self, artifact: ArtifactHash) -> list[Remains]:
        return remains_of(artifact, self._mirrors, self._quarantine)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How healing one artifact ended; `source` is None when nothing had to be written."""

    source: str | None
    stored: Stored


_Heal = Callable[[ArtifactHash, Generation], Awaitable[_Outcome | None]]


def _names(remains: Iterable[Remains]) -> frozenset[tuple[int, str]]:
    return frozenset((each.mirror.index, each.path) for each in remains)
