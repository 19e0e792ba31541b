"""How the coordinator reaches the agents: one HTTP session, one client for each sled."""

from __future__ import annotations

from typing import Final, Self

import aiohttp

from agent.client import AgentClient
from coordinator.values import Sled
from depot.client import ClientTimeouts

TIMEOUTS: Final = ClientTimeouts(connect_s=5.0)


class Agents:
    """Clients of agents; an async context manager. Call it with a sled to get its client."""

    def __init__(self, timeouts: ClientTimeouts = TIMEOUTS) -> None:
        self._timeouts = timeouts
        self._session: aiohttp.ClientSession | None = None
        self._clients: dict[str, AgentClient] = {}

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        if self._session is not None:
            await self._session.close()
        self._session = None
        self._clients.clear()

    def __call__(self, sled: Sled) -> AgentClient:
        """The client of a sled's agent, where it is now.

        Raises:
            InvalidRequest: its URL is none.
        """
        assert self._session is not None, "use it as a context manager"
        if sled.agent_url not in self._clients:
            self._clients[sled.agent_url] = AgentClient(
                sled.agent_url, timeouts=self._timeouts, session=self._session
            )
        return self._clients[sled.agent_url]
