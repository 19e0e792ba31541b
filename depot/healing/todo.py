"""What is to be healed: read off the disks at any time, and written down nowhere.

It is the config, less the good copies that the datasets hold. Those with no good copy come first.
Of these, what this sled never had (`depot.scrub.had`) is not its to heal: whoever configured it
sends it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from depot.artifact import ArtifactHash
from depot.config.keeper import LedgerKeeper
from depot.healing.census import Census, Lacks
from depot.mirrors.inventory import missing_bytes
from depot.mirrors.mirror_set import MirrorSet
from depot.quarantine.keeper import QuarantineKeeper
from depot.scrub.had import Had

_FEW: Final = 1000


class Todo:
    """The wanted artifacts that lack copies, as of now."""

    def __init__(
        self, mirrors: MirrorSet, keeper: LedgerKeeper, quarantine: QuarantineKeeper, had: Had
    ) -> None:
        self._mirrors = mirrors
        self._quarantine = quarantine
        self._had = had
        self._census = Census(mirrors, keeper)
        self._missing: tuple[Lacks, int] = (Lacks(), 0)
        self._gone: tuple[Lacks | None, int, list[ArtifactHash]] = (None, 0, [])

    def lacks(self) -> Lacks:
        """Those with a good copy, but not one that counts on every dataset, and those with none."""
        return self._census.lacks()

    def lacks_all(self, artifact: ArtifactHash) -> bool:
        """Tell whether it is wanted and has no good copy."""
        self._census.lacks()  # it may have come, or be wanted no more
        return self._census.lacks_all(artifact)

    def few_that_lack_copies(self) -> frozenset[ArtifactHash] | None:
        """Those of which not every dataset has a copy that counts; None: many, or nobody knows."""
        lacks = self._census.lacks_as_counted()
        if lacks is None or len(lacks.some) + len(lacks.all) > _FEW:
            return None
        return frozenset((*lacks.some, *lacks.all))

    async def recount(self) -> None:
        """Find it out in a thread, after much has changed; or who asks has to."""
        await self._census.recount()

    async def list_anew(self) -> list[ArtifactHash]:
        """Everything that is to be healed, in order, once all is known that this sled has had."""
        await self._had.recall()
        await self.recount()
        return [*self.to_be_had(), *self._census.lacks().some]

    def to_be_had(self) -> list[ArtifactHash]:
        """Those with no good copy that this sled has had; quick, however many it never had."""
        lacks = self._census.lacks()
        if not lacks.all:
            return []
        if self._gone[0] is not lacks or self._gone[1] != self._had.revision:
            self._gone = (lacks, self._had.revision, self._had.among(lacks.all))
        # What lies in quarantine may be older than what is remembered.
        aside = set(self._quarantine.sizes())
        return sorted({*self._gone[2], *aside.intersection(lacks.all)} if aside else self._gone[2])

    def missing_bytes(self, had: Iterable[ArtifactHash]) -> int:
        """What is to be written for `had` and all that lack some copies, where sizes are known."""
        lacks, every = self._census.lacks(), len(self._mirrors.all)
        if self._missing[0] is not lacks:
            readable = [mirror.inventory for mirror in self._mirrors.readable()]
            self._missing = (lacks, missing_bytes(lacks.some, readable, every))
        aside = self._quarantine.sizes()
        return self._missing[1] + every * sum(aside[a] for a in set(had).intersection(aside))
