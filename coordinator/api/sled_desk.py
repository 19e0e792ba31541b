"""What is done with one sled: say where it is, make it forget, let it go."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from agent.copies.source_url import SourceUrl
from agent.wire.identity import IdentityBody
from coordinator.database import history, sleds
from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.errors import SledAddressTaken, SledExpunged
from coordinator.replication.agents import Agents
from coordinator.replication.identity import SAYS_NOTHING, other_sled
from coordinator.replication.request_log import RESET
from coordinator.values import RequestRecord, Sled, SledPolicy, SledSighting, SledState, Told
from depot.artifact import Generation
from depot.errors import BadSource, ConfigGeneration, DepotError, Refused

ASK_TIMEOUT_S: Final = 30.0
# By then the agent has said which of its datasets did not take that: each has its device_timeout.
RESET_ANSWER_S: Final = 90.0
WAS_RESET: Final = "was reset, and is told what to hold with the next pass"

_log = structlog.get_logger(__name__)


class SledDesk:
    """Asks the agent of one sled at a time.

    Args:
        database: of the fleet, where a reset is written down.
        agents: reaches the sleds.
        clock: Unix seconds.
    """

    def __init__(
        self, database: Database, agents: Agents, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock

    def check(self, name: str, url: str) -> SourceUrl:
        """Read where a sled is to be; a name is judged by its addresses, when it is asked.

        Raises:
            BadSource: it is no URL, or outside the allowed networks; with the field's `name`.
        """
        try:
            return self._agents.check(url)
        except BadSource as error:
            raise BadSource(f"{name}: {error}") from None

    async def reset(self, sled: Sled, expected: Generation | None = None) -> Generation:
        """Make a sled forget its config; the generation that it was at. It deletes nothing.

        Args:
            sled: which one.
            expected: the generation that whoever decided this has seen it at.

        Raises:
            SledExpunged: no work is done with it.
            SledAddressTaken: another sled answers at its address.
            ConfigGeneration: it is at another generation than `expected`.
            BadSource, Unreachable, Refused: its agent did not.
        """
        if sled.policy is SledPolicy.EXPUNGED:
            raise SledExpunged(f"sled {sled.id!r} was expunged; put it in service again first")
        forgotten = await self._generation_of(sled)
        if expected is not None and forgotten != expected:
            raise ConfigGeneration(
                f"sled {sled.id!r} is at generation {int(forgotten)}, not {int(expected)}: it has "
                "been told something since; look at it again",
                attempted=expected,
                current=forgotten,
            )
        # And it refuses when it moves on between its answer and this.
        await self._agents.within(sled, RESET_ANSWER_S).reset(forgotten)
        await self._database.run(partial(_note_reset, sled, forgotten, self._clock()))
        _log.warning("sled reset", sled=sled.id, forgotten_generation=int(forgotten))
        return forgotten

    async def what_stays(self, sled: Sled) -> tuple[str, ...]:
        """Say what is left on the disks of a sled that no work is done with any more."""
        _log.info("sled expunged", sled=sled.id)
        try:
            await self._identity_of(sled)
            listed = await self._agents.within(sled, ASK_TIMEOUT_S).list_artifacts()
        except DepotError as error:
            return (f"what is on its disks stays there; its agent did not say what: {error}",)
        return (
            f"artifacts that stay on its disks: {len(listed.list)}, of generation "
            f"{listed.generation}; its depot goes on serving them",
        )

    async def _generation_of(self, sled: Sled) -> Generation:
        """The one that a reset makes it forget.

        A sled whose datasets disagree, or lack the newest config, cannot say what it is to hold,
        but which generation it remembers.
        """
        said = await self._identity_of(sled)
        if said.generation is not None:
            return Generation(said.generation)
        return (await self._agents.within(sled, ASK_TIMEOUT_S).config()).generation

    async def _identity_of(self, sled: Sled) -> IdentityBody:
        try:
            said = await self._agents.within(sled, ASK_TIMEOUT_S).identity()
        except Refused:
            said = SAYS_NOTHING  # it does not have to
        if said.sled_id is not None and (other := other_sled(sled, said)) is not None:
            raise SledAddressTaken(f"sled {sled.id!r}: {other.reason}", said.sled_id)
        return said


async def _note_reset(sled: Sled, forgotten: Generation, now_s: float, tx: Transaction) -> None:
    """Nobody is to take what was known of it for what it is now."""
    await sleds.note(tx, [SledSighting(sled.id, SledState.BEHIND, WAS_RESET, now_s)])
    await history.append(tx, [RequestRecord(now_s, sled.id, RESET, forgotten)])
    await tx.tell(Told("fleet.sled_reset", sled_id=sled.id, data={"generation": int(forgotten)}))
