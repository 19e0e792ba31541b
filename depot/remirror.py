"""Bringing every wanted artifact back onto every healthy dataset, from the mirror that has it.

Works through the same door as any other write, so the copy it reads is hashed and a wrong byte can
never spread. One artifact at a time: foreground work comes first.
"""

from __future__ import annotations

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import DepotError
from depot.ledger_keeper import LedgerKeeper
from depot.mirror import Copy
from depot.mirrors import MirrorSet
from depot.put import Stored
from depot.put_desk import PutDesk
from depot.reading import Reader
from depot.sources import FileSource


class Remirrorer:
    """Heals artifacts that some healthy dataset lacks.

    Attributes:
        failures: why artifacts could not be healed at the last try, by artifact.
    """

    def __init__(
        self, mirrors: MirrorSet, keeper: LedgerKeeper, desk: PutDesk, reader: Reader
    ) -> None:
        self.failures: dict[ArtifactHash, str] = {}
        self._mirrors = mirrors
        self._keeper = keeper
        self._desk = desk
        self._reader = reader
        self._seen: tuple[object, ...] = ()
        self._under_replicated: tuple[ArtifactHash, ...] = ()

    def under_replicated(self) -> tuple[ArtifactHash, ...]:
        """Wanted artifacts with a good copy on some dataset, but not on every configured one.

        Kept until a copy, a dataset or the config changes: a status costs nothing while none does.
        """
        config = self._keeper.resolved.config
        if config is None:
            return ()
        seen = (config, *(mirror.revision for mirror in self._mirrors.all))
        if seen != self._seen:
            self._seen, self._under_replicated = seen, self._count(config)
        return self._under_replicated

    async def run_once(self) -> int:
        """Try every artifact that a healthy dataset lacks; the number healed."""
        self.failures = {}
        healed = 0
        for artifact in self.under_replicated():
            if self._lacking(artifact) and not self._desk.in_flight[artifact]:
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
            self.failures[artifact] = str(error)
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
            with await self._reader.open(artifact) as copy:
                stored = await put.receive(FileSource(copy.fd))
        self._note(artifact, stored)
        return not stored.failures

    def _note(self, artifact: ArtifactHash, stored: Stored) -> None:
        if stored.failures:
            self.failures[artifact] = "; ".join(stored.failures)

    def _count(self, config: ArtifactConfig) -> tuple[ArtifactHash, ...]:
        total = len(self._mirrors.all)
        return tuple(sorted(a for a in config.artifacts if 0 < len(self._good(a)) < total))

    def _good(self, artifact: ArtifactHash) -> list[Copy]:
        copies = (mirror.good_copy(artifact) for mirror in self._mirrors.all)
        return [copy for copy in copies if copy is not None]

    def _lacking(self, artifact: ArtifactHash) -> bool:
        return any(mirror.good_copy(artifact) is None for mirror in self._mirrors.healthy())
