"""Writes an artifact anew from what the datasets have of it.

From the good copy of another dataset; else from damaged copies, standing or in quarantine, that are
whole between them, block by block. Either goes through the same door as any other write, so that
what is written is hashed as a whole and no wrong byte can spread, and no faster than healing may
be.

Remains that were tried in vain are not tried again before they are others, something has changed,
or a while has passed.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import dataclass

from depot.artifact import ArtifactHash, Generation
from depot.concurrency.backoff import Backoff
from depot.errors import HashMismatch, NotFound
from depot.healing.assemble import Assembler, Remains, find_digests, remains_of
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror_set import MirrorSet
from depot.quarantine.keeper import QuarantineKeeper
from depot.reading.reader import Reader
from depot.streams.budget import Budget
from depot.streams.limited import LimitedSource
from depot.streams.sources import Source
from depot.writing.put import Put
from depot.writing.put_desk import PutDesk
from depot.writing.stored import Stored


@dataclass(frozen=True, slots=True)
class Rewritten:
    """How healing one artifact ended; `source` is None when nothing had to be written."""

    source: str | None
    stored: Stored


class Rewriter:
    """Heals one artifact at a time by what is on the datasets themselves.

    Args:
        budget: how fast it may write.
    """

    def __init__(
        self,
        mirrors: MirrorSet,
        desk: PutDesk,
        reader: Reader,
        quarantine: QuarantineKeeper,
        *,
        budget: Budget,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mirrors = mirrors
        self._desk = desk
        self._reader = reader
        self._quarantine = quarantine
        self._budget = budget
        self._monotonic = monotonic
        self._in_vain: dict[ArtifactHash, frozenset[tuple[int, str]]] = {}
        self._in_vain_pauses: Backoff[ArtifactHash] = Backoff(first_s=60.0)

    async def rewrite(self, artifact: ArtifactHash, generation: Generation) -> Rewritten | None:
        """Have it on every dataset that can be written; None: nothing here can give it.

        Raises:
            DepotError, OSError: it could not be read, or not be written.
        """
        if good := self._good(artifact):
            try:
                return await self._from_mirror(artifact, generation, good[0].size_bytes)
            except NotFound:
                if self._good(artifact):
                    raise
                # It has turned out to be bad or gone, too: what else is there?
        return await self._from_remains(artifact, generation)

    def is_beyond_help(self, artifact: ArtifactHash) -> bool:
        """Tell whether nothing here can heal it; cheap for all that nobody has tried in vain."""
        tried = self._in_vain.get(artifact)
        return (
            tried is not None
            and not self._good(artifact)
            and tried == _names(self._remains(artifact))
        )

    def something_changed(self) -> None:
        """What was tried in vain may be tried again at once."""
        self._in_vain.clear()
        self._in_vain_pauses.clear()

    def keep_only(self, artifacts: frozenset[ArtifactHash]) -> None:
        """Forget what was tried in vain of everything else (S1)."""
        for artifact in self._in_vain.keys() - artifacts:
            del self._in_vain[artifact]
        self._in_vain_pauses.keep_only(artifacts)

    async def _from_mirror(
        self, artifact: ArtifactHash, generation: Generation, size_bytes: int
    ) -> Rewritten:
        async with self._admit(artifact, generation, size_bytes) as put:
            if put.held is not None:
                # On every dataset, or on all that have room; then it is said which has none.
                return Rewritten(None, put.held)
            # What arrives is hashed as a whole.
            copy = await self._reader.open(artifact, to_read=False)
            with copy, copy.source(self._mirrors.all[copy.dataset].timeout_s) as source:
                try:
                    return Rewritten("mirror", await self._receive(put, source, size_bytes))
                except HashMismatch as error:
                    self._reader.failed(copy, OSError(errno.EIO, str(error)))
                    raise
                except OSError as error:
                    if not isinstance(error, TimeoutError):  # which is a target's
                        self._reader.failed(copy, error)
                    raise

    async def _from_remains(
        self, artifact: ArtifactHash, generation: Generation
    ) -> Rewritten | None:
        remains = self._remains(artifact)
        if self._is_known_in_vain(artifact, remains):
            return None
        digests = await find_digests(artifact, remains, self._mirrors) if remains else None
        if digests is None:
            self._tried_in_vain(artifact, remains)
            return None
        async with self._admit(artifact, generation, digests.size_bytes) as put:
            if put.held is not None:
                return Rewritten(None, put.held)
            remains = self._remains(artifact)  # some may have been set aside
            try:
                source = Assembler(digests, remains).source()
                stored = await self._receive(put, source, digests.size_bytes)
                return Rewritten("blocks", stored)
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

    def _admit(
        self, artifact: ArtifactHash, generation: Generation, size_bytes: int
    ) -> AbstractAsyncContextManager[Put]:
        return self._desk.begin(artifact, generation, size_bytes, counted=False, event=None)

    def _good(self, artifact: ArtifactHash) -> list[Copy]:
        copies = (mirror.good_copy(artifact) for mirror in self._mirrors.all)
        return [copy for copy in copies if copy is not None]

    def _remains(self, artifact: ArtifactHash) -> list[Remains]:
        return remains_of(artifact, self._mirrors, self._quarantine)


def _names(remains: Iterable[Remains]) -> frozenset[tuple[int, str]]:
    return frozenset((each.mirror.index, each.path) for each in remains)
