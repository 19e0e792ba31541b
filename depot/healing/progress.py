"""What came of healing so far: what was healed, what failed and why, what is lost.

An artifact is lost when it is wanted and nobody has a good copy: said once, however often it is
tried again, and only while every dataset can be read, since one that is away may have it. Of what
came back, by whatever way, nothing is said any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nsmallest

from depot.artifact import ArtifactHash
from depot.concurrency.unhurried import unhurried
from depot.config.keeper import EventSink
from depot.healing.todo import Todo
from depot.mirrors.mirror_set import MirrorSet
from depot.state.tables import StateStore, Table
from depot.writing.stored import Stored


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


class Progress:
    """Keeps what the healer found and did, for the status, its warnings and the events.

    Attributes:
        current: the artifact that is being healed.
    """

    def __init__(
        self,
        todo: Todo,
        mirrors: MirrorSet,
        on_event: EventSink,
        *,
        state: StateStore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.current: ArtifactHash | None = None
        self._todo = todo
        self._mirrors = mirrors
        self._emit = on_event
        self._store = state
        self._clock = clock
        self._failures: Table[ArtifactHash, str] = state.table("heal failures")
        self._lost: Table[ArtifactHash, float] = state.table("lost artifacts")  # Unix time of that
        self._found_s: dict[ArtifactHash, float] = {}
        self._healed = 0
        self._heal_seconds = 0.0
        self._last_heal_s: float | None = None

    # Asked

    def status(self) -> HealingStatus:
        """How far healing is; from memory."""
        had, lacks, failed = self._todo.to_be_had(), self._todo.lacks(), set(self._failures)
        some = lacks.some
        return HealingStatus(
            todo=len(had) + len(some),
            todo_bytes=self._todo.missing_bytes(had),
            healed=self._healed,
            heal_seconds=self._heal_seconds,
            last_heal_s=self._last_heal_s,
            failed=len(failed.intersection(lacks.all)) + len(failed.intersection(some)),
            current=self.current,
            lost=tuple(sorted(set(self._lost).intersection(lacks.all))),
        )

    def troubles(self, most: int) -> tuple[list[tuple[ArtifactHash, str, bool]], int]:
        """What could not be healed: why not when it was tried last, and whether it is lost.

        The first of them in order, at most so many, and how many more there are. Of what came back
        since, by whatever way, nothing is said any more.
        """
        lacks, failed, lost = self._todo.lacks(), set(self._failures), set(self._lost)
        left = failed.intersection(lacks.all) | (failed - lost).intersection(lacks.some)
        first = nsmallest(most, left)
        named = [(artifact, self._failures[artifact], artifact in lost) for artifact in first]
        return named, len(left) - len(named)

    # Told

    def found(self, artifact: ArtifactHash) -> None:
        """Damage of it was found, now unless that was known."""
        self._found_s.setdefault(artifact, self._clock())

    async def begin_pass(self, todo: Sequence[ArtifactHash]) -> None:
        """This is to be healed now, and whatever else there was is not any more."""
        left = frozenset(todo)
        with self._store.transaction() as change:
            for artifact in self._lost.keys() - left:
                change.delete(self._lost, artifact)
            for artifact in self._failures.keys() - left:
                change.delete(self._failures, artifact)
        for artifact in self._found_s.keys() - left:
            del self._found_s[artifact]
        found_s = self._clock()
        async for artifact in unhurried(todo):
            self._found_s.setdefault(artifact, found_s)

    def healed(
        self, artifact: ArtifactHash, source: str, stored: Stored, healed_on: Sequence[str]
    ) -> None:
        """Copies of it were written, from `source`, on the datasets of these paths."""
        seconds = max(0.0, self._clock() - self._found_s.pop(artifact, self._clock()))
        self._healed += 1
        self._heal_seconds += seconds
        self._last_heal_s = seconds
        with self._store.transaction() as change:
            change.delete(self._lost, artifact)
        self._emit(
            "healed",
            {
                "sha256": str(artifact),
                "from": source,
                "healed_on": healed_on,
                "seconds": round(seconds, 3),
                "copies": stored.copies,
                "datasets": stored.datasets,
            },
        )

    def succeeded(self, artifact: ArtifactHash) -> None:
        """Every copy that there was to write is there."""
        with self._store.transaction() as change:
            change.delete(self._failures, artifact)

    def failed(self, artifact: ArtifactHash, why: str) -> None:
        """It could not be healed, or not on every dataset."""
        with self._store.transaction() as change:
            change.put(self._failures, artifact, why)

    def lose(self, artifact: ArtifactHash) -> None:
        """Nobody who was asked has it: say that it is lost, if it is and was not said to be."""
        lacks_all = self._todo.lacks_all(artifact)
        if artifact in self._lost or not lacks_all:
            return
        if all(mirror.readable for mirror in self._mirrors.all):  # one that is away may have it
            with self._store.transaction() as change:
                change.put(self._lost, artifact, self._clock())
            self._emit("lost", {"sha256": str(artifact)})
