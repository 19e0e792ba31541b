"""Bringing every wanted artifact back onto every healthy dataset, from the mirror that has it.

Works through the same door as any other write, so the copy it reads is hashed and a wrong byte can
never spread. One artifact at a time: foreground work comes first.
"""

from __future__ import annotations

from depot.artifact import ArtifactHash, Generation
from depot.errors import DepotError
from depot.ledger_keeper import LedgerKeeper
from depot.mirror import Copy
from depot.mirrors import MirrorSet
from depot.put import PutDesk
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

    def under_replicated(self) -> list[ArtifactHash]:
        """Wanted artifacts with a good copy on some dataset, but not on every configured one."""
        config = self._keeper.resolved.config
        if config is None:
            return []
        wanted = config.artifacts
        counts = [len(self._good(artifact)) for artifact in wanted]
        total = len(self._mirrors.all)
        return sorted(a for a, count in zip(wanted, counts, strict=True) if 0 < count < total)

    async def run_once(self) -> int:
        """Try every artifact that a healthy dataset lacks; the number healed."""
        self.failures = {}
        healed = 0
        for artifact in self.under_replicated():
            if not self._lacking(artifact) or self._desk.in_flight[artifact]:
                continue
            try:
                healed += await self._heal(artifact)
            except (DepotError, OSError) as error:
                self.failures[artifact] = str(error)
        return healed

    async def _heal(self, artifact: ArtifactHash) -> bool:
        config = self._keeper.resolved.config
        size_bytes = self._good(artifact)[0].size_bytes
        generation = config.generation if config else Generation(0)
        admission = self._desk.begin(
            artifact, generation, size_bytes, counted=False, event="healed"
        )
        async with admission as put:
            if put.held is not None:
                return False
            with await self._reader.open(artifact) as copy:
                await put.receive(FileSource(copy.fd))
        return True

    def _good(self, artifact: ArtifactHash) -> list[Copy]:
        copies = (mirror.good_copy(artifact) for mirror in self._mirrors.all)
        return [copy for copy in copies if copy is not None]

    def _lacking(self, artifact: ArtifactHash) -> bool:
        return any(mirror.good_copy(artifact) is None for mirror in self._mirrors.healthy())
