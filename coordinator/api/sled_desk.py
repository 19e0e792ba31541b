"""What an operator does with one sled: make it forget, or let it go."""

from __future__ import annotations

from typing import Final

import structlog

from agent.client import AgentClient
from coordinator.errors import SledExpunged
from coordinator.values import Sled, SledPolicy
from depot.artifact import Generation
from depot.errors import DepotError

ANSWER_TIMEOUT_S: Final = 30.0

_log = structlog.get_logger(__name__)


class SledDesk:
    """Asks the agent of one sled at a time."""

    async def reset(self, sled: Sled) -> Generation:
        """Make a sled forget its config; the generation that it was at. It deletes nothing.

        Raises:
            SledExpunged: no work is done with it.
            Unreachable, Refused: its agent did not.
        """
        if sled.policy is SledPolicy.EXPUNGED:
            raise SledExpunged(f"sled {sled.id!r} was expunged; put it in service again first")
        async with _agent(sled) as client:
            forgotten = (await client.config()).generation
            await client.reset(forgotten)
        _log.warning("sled reset", sled=sled.id, forgotten_generation=int(forgotten))
        return forgotten

    async def what_stays(self, sled: Sled) -> tuple[str, ...]:
        """Say what is left on the disks of a sled that no work is done with any more."""
        _log.info("sled expunged", sled=sled.id)
        try:
            async with _agent(sled) as client:
                listed = await client.list_artifacts()
        except DepotError as error:
            return (f"what is on its disks stays there; its agent did not say what: {error}",)
        return (
            f"artifacts that stay on its disks: {len(listed.list)}, of generation "
            f"{listed.generation}; its depot goes on serving them",
        )


def _agent(sled: Sled) -> AgentClient:
    return AgentClient(sled.agent_url, answer_timeout_s=ANSWER_TIMEOUT_S)
