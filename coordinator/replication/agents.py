"""How the coordinator reaches the agents: one HTTP session, one client for each sled.

Whoever can add a sled says where it is: a connection goes to an address in the allowed networks
only, judged after resolution (S4).

How long an answer may take is for whoever asks to say: a client bounds only what nobody has
bounded, and a sled that works on a large config in silence is as well as one that talks meanwhile.
"""

from __future__ import annotations

from typing import Final, Self

import aiohttp

from agent.client import ANSWER_TIMEOUT_S, AgentClient
from agent.copies.networks import AllowedNetworks
from agent.copies.resolver import CheckedResolver, Lookup, SystemLookup, check_literal
from agent.copies.source_url import SourceUrl
from coordinator.values import Sled
from depot.client import ClientTimeouts

CONNECT_S: Final = 5.0


class Agents:
    """Clients of agents; an async context manager. Call it with a sled to get its client.

    Args:
        networks: that agents may be in.
        longest_s: that an answer may take, also when nothing comes at all.
        lookup: asks for the addresses of names; by default the system.
    """

    def __init__(
        self,
        networks: AllowedNetworks,
        *,
        longest_s: float = ANSWER_TIMEOUT_S,
        lookup: Lookup | None = None,
    ) -> None:
        self._networks = networks
        self._longest_s = longest_s
        self._system = SystemLookup(CONNECT_S)
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
            client = self.within(sled, self._longest_s)
            self._clients[sled.id] = sled.agent_url, client
        return client

    def within(self, sled: Sled, answer_timeout_s: float) -> AgentClient:
        """A client that waits so long for an answer as a whole, also when nothing comes at all.

        Raises:
            BadSource: as above.
        """
        assert self._session is not None, "use it as a context manager"
        self.check(sled.agent_url)
        return AgentClient(
            sled.agent_url,
            timeouts=ClientTimeouts(connect_s=CONNECT_S, idle_s=answer_timeout_s),
            answer_timeout_s=answer_timeout_s,
            session=self._session,
        )
