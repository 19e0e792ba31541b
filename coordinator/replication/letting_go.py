"""Which of the staged artifacts are no longer needed here, and letting go of them.

Rules kept here (F2):
- Enough sleds hold the artifact, as they listed it just now and under the generation that the
  database has at the time; or no release has wanted it for a while.
- No upload has claimed it since before the first of those lists was asked for.
- Nothing is taken from under a put.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

import structlog

from coordinator.replication.ports import AsOf, Records, Staging
from coordinator.replication.values import Plan
from depot.artifact import ArtifactHash

FRESH_S: Final = 30.0
"""A list that is older proves nothing: the sled may have lost its disks since."""
UNWANTED_S: Final = 30.0
"""Whether a commit went through can be unknown for a while; what it wants is kept that long."""

_log = structlog.get_logger(__name__)


class LettingGo:
    """Drops what this coordinator's staging holds for no reason any more."""

    def __init__(self, staging: Staging, records: Records) -> None:
        self._staging = staging
        self._records = records
        self._unwanted_since: dict[ArtifactHash, float] = {}

    async def let_go(
        self, plan: Plan, as_of: AsOf, in_use: Collection[ArtifactHash]
    ) -> list[ArtifactHash]:
        """Drop what can be dropped by a plan; what that was.

        Args:
            plan: says what enough sleds hold, and what nobody wants.
            as_of: when the first of the lists was begun that it is made from.
            in_use: what is being sent from staging.

        Raises:
            DatabaseUnavailable: nothing was dropped, or that could not be written down.
            DepotError: staging cannot tell, or change, what it holds.
        """
        unwanted = self._long_unwanted(plan)
        candidates = (_held_elsewhere(plan, as_of) | unwanted).difference(in_use)
        if not candidates or not await self._records.strike_staged(candidates, plan.generation):
            return []
        # Once more: this process may have stood still meanwhile.
        certain = candidates & (_held_elsewhere(plan, as_of) | unwanted)
        dropped = await self._staging.drop(sorted(certain), since=as_of.moment)
        if len(dropped) < len(candidates):
            # Somebody has claimed the others, or deleting failed: they are here all the same.
            await self._records.write_staged(self._staging.held)
        for artifact in dropped:
            _log.info(
                "let go of a staged artifact",
                sha256=str(artifact),
                generation=int(plan.generation),
                wanted=artifact in plan.droppable,
            )
        return dropped

    def _long_unwanted(self, plan: Plan) -> frozenset[ArtifactHash]:
        now_s = asyncio.get_running_loop().time()
        self._unwanted_since = {
            artifact: self._unwanted_since.get(artifact, now_s) for artifact in plan.unwanted
        }
        return frozenset(
            artifact
            for artifact, since_s in self._unwanted_since.items()
            if now_s - since_s >= UNWANTED_S
        )


def _held_elsewhere(plan: Plan, as_of: AsOf) -> frozenset[ArtifactHash]:
    """What enough sleds hold, if they said so lately."""
    age_s = asyncio.get_running_loop().time() - as_of.loop_s
    return plan.droppable if age_s <= FRESH_S else frozenset()
