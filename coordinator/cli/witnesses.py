"""What sleds keep of the journal: each is asked itself, as the coordinator could say anything."""

from __future__ import annotations

import asyncio
from typing import Final

from agent.cli.output import Output
from agent.client import AgentClient
from coordinator.client import CoordinatorClient
from coordinator.wire import SledBody
from depot.errors import DepotError, Refused

_AT_ONCE: Final = 16
_TIMEOUT_S: Final = 15.0

Notes = list[tuple[str, str]]
"""Each note, and which sled it is from."""


async def kept_by_sleds(client: CoordinatorClient, output: Output) -> Notes:
    """The checkpoints of every sled that answers, those of expunged ones too.

    A warning names the sleds in service that do not answer.
    """
    known = await client.sleds()
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(sled: SledBody) -> Notes:
        async with slots:
            return await _kept_by(sled, output)

    return [note for notes in await asyncio.gather(*map(ask, known)) for note in notes]


async def _kept_by(sled: SledBody, output: Output) -> Notes:
    try:
        async with AgentClient(sled.agent_url, answer_timeout_s=_TIMEOUT_S) as agent:
            return [(f"sled {sled.id}", note) for note in await agent.checkpoints()]
    except Refused as error:
        reason = (
            "its agent is of an older version" if error.remote_code == "NotFound" else str(error)
        )
    except DepotError as error:
        reason = str(error)
    if sled.policy == "in_service":
        output.warning(f"sled {sled.id} did not say which checkpoints it keeps: {reason}")
    return []
