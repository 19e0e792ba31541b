"""Puts whose whole body is in memory when they begin: many in a step, and no task for any.

Rules kept here:
- Each is what a put alone is, by the same functions (`Put`, `PutDesk`): it asks the fence,
  reserves, has its artifact's commit lock, is published together with whatever else waits, asks
  the fence again and is entered in the records in that same step (G5).
- What cannot be admitted without waiting, or at all, is not begun here: whoever asked puts it the
  ordinary way, and hears there what is wrong.
- What came within one turn of the event loop begins together, and what ended within one ends
  together: one change of the state for all, and the same people told in the same order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from depot.artifact import ArtifactHash, Generation
from depot.concurrency.foreground import Foreground
from depot.dataset.dataset import Dataset
from depot.dataset.publishing import Entry
from depot.mirrors.records import Record
from depot.writing.ground import Ground
from depot.writing.group_commit import Publication
from depot.writing.ingest import Ingested
from depot.writing.put import WHOLE_BYTES, Put
from depot.writing.put_desk import PutDesk
from depot.writing.stored import Stored

log = structlog.get_logger("depot")

EVENT: Final = "put"

Tell = Callable[[Stored | Exception | None], None]
"""Is told how a put ended, what went wrong, or that it was not begun (None)."""


@dataclass(frozen=True, slots=True)
class _Asked:
    artifact: ArtifactHash
    generation: Generation
    content: bytes
    tell: Tell


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """An admitted put, and what it is published as."""

    artifact: ArtifactHash
    put: Put
    ingested: Ingested
    entries: dict[int, tuple[Dataset, Entry]]
    tell: Tell
    end_work: Callable[[], None]


class ShortPuts:
    """The puts of this kind of one store. Of one event loop."""

    def __init__(self, desk: PutDesk, foreground: Foreground) -> None:
        self._desk = desk
        self._foreground = foreground
        self._asked: list[_Asked] = []
        self._ended: list[tuple[_Running, Publication]] = []
        self._taking_back: set[asyncio.Task[None]] = set()

    def begin(
        self, artifact: ArtifactHash, generation: Generation, content: bytes, tell: Tell
    ) -> bool:
        """Put an artifact of which this is to be the content; False: not like this.

        Otherwise `tell` is called, later and once. Nobody can take the put back by then.
        """
        if not self._desk.limits.group_commit or not 0 < len(content) <= WHOLE_BYTES:
            return False
        if not self._asked:
            asyncio.get_running_loop().call_soon(self._admit)
        self._asked.append(_Asked(artifact, generation, content, tell))
        return True

    def _admit(self) -> None:
        asked, self._asked = self._asked, []
        running: list[_Running] = []
        others: list[_Asked] = []
        ground = self._survey()
        for each in asked:
            admitted = None if ground is None else self._admitted(each, ground)
            if admitted is not None:
                running.append(admitted)
            else:
                others.append(each)
        self._desk.count_writers([each.artifact for each in running], 1)
        for admitted in running:
            self._publish(admitted)
        for each in others:
            _tell(each.tell, None)

    def _survey(self) -> Ground | None:
        # A root: whatever is wrong is wrong on the ordinary way, too, which has somebody to tell.
        try:
            return self._desk.survey()
        except Exception:
            return None

    def _admitted(self, asked: _Asked, ground: Ground) -> _Running | None:
        desk, artifact, content = self._desk, asked.artifact, asked.content
        try:  # a root, as above
            put = desk.begin_at_once(artifact, asked.generation, len(content), ground, event=EVENT)
        except Exception:
            return None
        if put is None:
            return None
        try:
            ingested = put.take_whole(content, ground.unstaged)
            entries = put.commit.entries(ingested, content)
        except Exception:
            desk.end(put, artifact)
            return None
        work = self._foreground.begin()
        return _Running(artifact, put, ingested, entries, asked.tell, work)

    def _publish(self, running: _Running) -> None:
        self._desk.group_commit.begin(running.entries, partial(self._has_ended, running))

    def _has_ended(self, running: _Running, publication: Publication) -> None:
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._settle)
        self._ended.append((running, publication))

    def _settle(self) -> None:
        ended, self._ended = self._ended, []
        settled: list[tuple[_Running, Record | Exception]] = []
        for running, publication in ended:
            record = self._confirmed(running, publication)
            if record is not None:
                settled.append((running, record))
        # In the step in which the fence was asked, and nobody sees a part of it.
        try:
            self._desk.landings.record([each for _, each in settled if isinstance(each, Record)])
        except Exception as error:  # a root, as below
            settled = [(running, error) for running, _ in settled]
        self._desk.count_writers([running.artifact for running, _ in settled], -1)
        for running, record in settled:
            self._end(running)
            _tell(running.tell, _outcome(running, record))

    def _confirmed(self, running: _Running, publication: Publication) -> Record | Exception | None:
        """What is to be recorded, or what went wrong; None: it is to be taken back first."""
        put, published = running.put, set[int]()
        on_late = partial(put.commit.leave, running.entries, running.ingested)
        try:
            published = put.commit.note_outcomes(running.entries, publication.result(on_late))
            return put.commit.confirm(published, running.ingested)
        except Exception as error:  # a root: whatever happened belongs to the one who asked
            if not published:
                return error
            self._take_back(running, published, error)
            return None

    def _take_back(self, running: _Running, published: set[int], error: Exception) -> None:
        task = asyncio.get_running_loop().create_task(self._taken_back(running, published, error))
        self._taking_back.add(task)
        task.add_done_callback(self._taking_back.discard)

    async def _taken_back(self, running: _Running, published: set[int], error: Exception) -> None:
        try:
            await running.put.commit.take_back(published, running.ingested)
        finally:
            self._desk.count_writers((running.artifact,), -1)
            self._end(running)
            _tell(running.tell, error)

    def _end(self, running: _Running) -> None:
        self._desk.end(running.put, running.artifact)
        running.end_work()


def _outcome(running: _Running, record: Record | Exception) -> Stored | Exception:
    if isinstance(record, Exception):
        return record
    landed = {mirror.index for mirror in record.mirrors}
    try:
        return running.put.outcome(running.ingested, landed)
    except Exception as error:  # a root, as above
        return error


def _tell(tell: Tell, outcome: Stored | Exception | None) -> None:
    try:
        tell(outcome)
    except Exception as error:  # a root: the others are to be told all the same
        log.error("the end of a put could not be told", exc_info=error)
