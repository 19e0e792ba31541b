"""All releases, of which only those are read whole that were not known before.

A release has thousands of names, and passes and looks at the status come every few seconds.

Rules kept here:
- A release is never changed but in its state, so what it names is known for as long as its row says
  that it is the same recording. The rows are read each time: other coordinators write them too.
- What is not recorded any more is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from coordinator.database import releases
from coordinator.database.tables import releases as releases_table
from coordinator.database.transaction import Transaction
from coordinator.values import Release, ReleaseArtifact

READ_AT_ONCE: Final = 100


class KnownReleases:
    """Remembers what releases name; for transactions that only read."""

    def __init__(self) -> None:
        self._known: Mapping[str, Release] = {}

    async def every(self, tx: Transaction) -> tuple[Release, ...]:
        """All releases, by their versions: the same as `releases.every` reads."""
        recorded = await releases.without_artifacts(tx)
        known = {each.version: self._artifacts(each) for each in recorded}
        known |= await _read(tx, [version for version, its in known.items() if its is None])
        found = tuple(replace(each, artifacts=known[each.version] or ()) for each in recorded)
        self._known = {each.version: each for each in found}
        return found

    def _artifacts(self, release: Release) -> tuple[ReleaseArtifact, ...] | None:
        known = self._known.get(release.version)
        return known.artifacts if known and _recording(known) == _recording(release) else None


def _recording(release: Release) -> tuple[object, ...]:
    """What no other recording has, of the same version or by another database."""
    return release.generation, release.sha256, release.time_created_s


async def _read(tx: Transaction, versions: list[str]) -> dict[str, tuple[ReleaseArtifact, ...]]:
    found: dict[str, tuple[ReleaseArtifact, ...]] = {}
    for begin in range(0, len(versions), READ_AT_ONCE):
        some = releases_table.c.version.in_(versions[begin : begin + READ_AT_ONCE])
        found |= await releases.artifacts_of(tx, some)
    return found
