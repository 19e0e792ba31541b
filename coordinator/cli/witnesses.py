"""What sleds keep of the journal: each is asked itself, as the coordinator could say anything."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from agent.cli.output import Output
from agent.client import AgentClient
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from depot.errors import DepotError, Refused

_AT_ONCE: Final = 16
_TIMEOUT_S: Final = 15.0

Notes = list[tuple[str, str]]
"""Each note, and which sled it is from."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which sleds are asked.

    Attributes:
        agents: those whose agents are at these URLs.
        every: all that the coordinator knows, as well.
    """

    agents: tuple[str, ...]
    every: bool


async def kept_by_sleds(common: Common, output: Output, asked: Asked) -> Notes:
    """The checkpoints of every sled that answers, those of expunged ones too.

    A warning names the others, but for expunged ones.
    """
    wanted = [(f"the sled at {url}", url, True) for url in asked.agents]
    if asked.every:
        async with coordinator(common) as client:
            known = await client.sleds()
        wanted += [(f"sled {s.id}", s.agent_url, s.policy == "in_service") for s in known]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(name: str, url: str, due: bool) -> Notes:
        async with slots:
            try:
                return await _kept_by(name, url)
            except DepotError as error:
                if due:
                    output.warning(f"{name} did not say which checkpoints it keeps: {_why(error)}")
                return []

    found = await asyncio.gather(*(ask(*each) for each in wanted))
    return [note for notes in found for note in notes]


async def _kept_by(name: str, url: str) -> Notes:
    async with AgentClient(url, answer_timeout_s=_TIMEOUT_S) as agent:
        return [(name, note) for note in await agent.checkpoints()]


def _why(error: DepotError) -> str:
    if isinstance(error, Refused) and error.remote_code == "NotFound":
        return "its agent is of an older version"
    return str(error)
