"""How the coordinator reaches the agents: one HTTP session, one client for each sled.

Whoever can add a sled says where it is: a connection goes to an address in the allowed networks
only, judged after resolution (S4).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Self

import aiohttp

from agent.client import ANSWER_TIMEOUT_S, AgentClient
from agent.copies.networks import AllowedNetworks
from agent.copies.resolver import CheckedResolver, Lookup, SystemLookup, check_literal
from agent.copies.source_url import SourceUrl
from coordinator.values import Sled
from depot.client import ClientTimeouts

TIMEOUTS: Final = ClientTimeouts(connect_s=5.0)


class Agents:
    """Clients of agents; an async context manager. Call it with a sled to get its client.

    Args:
        networks: that agents may be in.
        timeouts: how patient to be.
        lookup: asks for the addresses of names; by default the system.
    """

    def __init__(
        self,
        networks: AllowedNetworks,
        timeouts: ClientTimeouts = TIMEOUTS,
        *,
        lookup: Lookup | None = None,
    ) -> None:
        self._networks = networks
        self._timeouts = timeouts
        self._system = SystemLookup(timeouts.connect_s)
        self._lookup = lookup or self._system
        self._session: aiohttp.ClientSession | None = None
        self._clients: dict[str, tuple[str, AgentClient]] = {}

    async def __aenter__(self) -> Self:
        """Open the session."""
        resolver = CheckedResolver(self._networks, self._lookup)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver),
            cookie_jar=aiohttp.DummyCookieJar(),  # what one sled says is for no other to hear
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        if self._session is not None:
            await self._session.close()
        self._session = None
        self._clients.clear()
        self._system.close()

    def check(self, url: str) -> SourceUrl:
        """Read a URL of a sled, and judge its host when that is an address.

        Raises:
            BadSource: it is no URL, or outside the allowed networks.
        """
        source = SourceUrl.parse(url)
        check_literal(source, self._networks)
        return source

    def __call__(self, sled: Sled) -> AgentClient:
        """The client of a sled's agent, where it is now.

        Raises:
            BadSource: it is nowhere where it may be asked.
        """
        url, client = self._clients.get(sled.id, (None, None))
        if client is None or url != sled.agent_url:
            client = self._client(sled, ANSWER_TIMEOUT_S, self._timeouts)
            self._clients[sled.id] = sled.agent_url, client
        return client

    def within(self, sled: Sled, answer_timeout_s: float) -> AgentClient:
        """A client that waits so long for an answer as a whole, also when nothing comes at all.

        Raises:
            BadSource: as above.
        """
        timeouts = replace(self._timeouts, idle_s=answer_timeout_s)
        return self._client(sled, answer_timeout_s, timeouts)

    def _client(self, sled: Sled, answer_timeout_s: float, timeouts: ClientTimeouts) -> AgentClient:
        assert self._session is not None, "use it as a context manager"
        self.check(sled.agent_url)
        return AgentClient(
            sled.agent_url,
            timeouts=timeouts,
            answer_timeout_s=answer_timeout_s,
            session=self._session,
        )
