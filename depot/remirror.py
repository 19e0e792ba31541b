"""Bringing every wanted artifact back onto every healthy dataset, from the mirror that has it.

Works through the same door as any other write, so the copy it reads is hashed and a wrong byte can
never spread. One artifact at a time: foreground work comes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from depot.artifact import ArtifactHash, Generation
from depot.errors import DepotError
from depot.ledger_keeper import LedgerKeeper
from depot.mirror import Copy
from depot.mirrors import MirrorSet
from depot.put import Stored
from depot.put_desk import PutDesk
from depot.reader import Reader
from depot.sources import FileSource
from depot.state import StateStore, Table


@dataclass(frozen=True, slots=True)
class Lacks:
    """Wanted artifacts that lack some of their copies, and those that lack all."""

    some: tuple[ArtifactHash, ...] = ()
    all: tuple[ArtifactHash, ...] = ()


class Remirrorer:
    """Heals artifacts that some healthy dataset lacks.

    Attributes:
        failures: why artifacts could not be healed at the last try, by artifact.
    """

    def __init__(
        self,
        mirrors: MirrorSet,
        keeper: LedgerKeeper,
        desk: PutDesk,
        reader: Reader,
        *,
        state: StateStore,
    ) -> None:
        self.failures: Table[ArtifactHash, str] = state.table("heal failures")
        self._store = state
        self._mirrors = mirrors
        self._keeper = keeper
        self._desk = desk
        self._reader = reader
        self._seen: tuple[object, ...] = ()
        self._counted = Lacks()

    def under_replicated(self) -> tuple[ArtifactHash, ...]:
        """Wanted artifacts with a good copy on some dataset, but not on every configured one."""
        return self._lacks().some

    def missing(self) -> tuple[ArtifactHash, ...]:
        """Wanted artifacts without any good copy."""
        return self._lacks().all

    def _lacks(self) -> Lacks:
        # Kept until a copy, a dataset or the config changes: a status is free while none does.
        config = self._keeper.resolved.config
        seen = (config, *(mirror.revision for mirror in self._mirrors.all))
        if seen != self._seen:
            self._seen, self._counted = seen, self._count(config.artifacts if config else ())
        return self._counted

    async def run_once(self) -> int:
        """Try every artifact that a healthy dataset lacks; the number healed."""
        with self._store.transaction() as change:
            change.replace(self.failures, {})
        healed = 0
        for artifact in self.under_replicated():
            if self._lacking(artifact) and artifact not in self._desk.writers:
                healed += await self._try(artifact)
        return healed

    async def _try(self, artifact: ArtifactHash) -> bool:
        # The list may be old by now: the artifact may be unwanted, or without any copy.
        config, copies = self._keeper.resolved.config, self._good(artifact)
        if config is None or artifact not in config.artifacts or not copies:
            return False
        try:
            return await self._heal(artifact, config.generation, copies[0].size_bytes)
        except (DepotError, OSError) as error:
            self._fail(artifact, str(error))
            return False

    async def _heal(self, artifact: ArtifactHash, generation: Generation, size_bytes: int) -> bool:
        admission = self._desk.begin(
            artifact, generation, size_bytes, counted=False, event="healed"
        )
        async with admission as put:
            if put.held is not None:
                # On every dataset, or on all that have room; then it is said which has none.
                self._note(artifact, put.held)
                return False
            # What arrives is hashed as a whole.
            with await self._reader.open(artifact, to_read=False) as copy:
                stored = await put.receive(FileSource(copy.fd))
        self._note(artifact, stored)
        return not stored.failures

    def _note(self, artifact: ArtifactHash, stored: Stored) -> None:
        if stored.failures:
            self._fail(artifact, "; ".join(stored.failures))

    def _fail(self, artifact: ArtifactHash, why: str) -> None:
        with self._store.transaction() as change:
            change.put(self.failures, artifact, why)

    def _count(self, wanted: Iterable[ArtifactHash]) -> Lacks:
        copies = {artifact: len(self._good(artifact)) for artifact in wanted}
        every = len(self._mirrors.all)
        return Lacks(
            some=tuple(sorted(a for a, count in copies.items() if 0 < count < every)),
            all=tuple(sorted(a for a, count in copies.items() if count == 0)),
        )

    def _good(self, artifact: ArtifactHash) -> list[Copy]:
        copies = (mirror.good_copy(artifact) for mirror in self._mirrors.all)
        return [copy for copy in copies if copy is not None]

    def _lacking(self, artifact: ArtifactHash) -> bool:
        return any(mirror.good_copy(artifact) is None for mirror in self._mirrors.healthy())
