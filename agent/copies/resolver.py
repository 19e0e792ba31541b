"""Names of peers become addresses here, and only allowed ones come out.

The system's resolver runs in daemon threads of its own: a name server that hangs must neither take
the threads that the event loop shares with everyone, nor keep the process from ending.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from agent.copies.networks import AllowedNetworks
from agent.copies.source_url import SourceUrl
from depot.concurrency.threads import DaemonThreads
from depot.errors import BadSource

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
MAX_LOOKUPS: Final = 8


class SystemLookup:
    """The system's resolver.

    Args:
        timeout_s: for each lookup.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._threads = DaemonThreads("resolve", MAX_LOOKUPS)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Every address of `host`, an IPv6 one with its scope.

        Raises:
            OSError: it has none, or the resolver does not answer.
        """
        found = await self._threads.call(self._timeout_s, _get_addresses, host, port)
        if isinstance(found, OSError):
            raise found
        return found

    def close(self) -> None:
        """Let the threads end once they can."""
        self._threads.close()


class CheckedResolver(AbstractResolver):
    """A resolver for the HTTP library that gives allowed addresses only."""

    def __init__(self, networks: AllowedNetworks, lookup: Lookup) -> None:
        self._networks = networks
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve `host`.

        Raises:
            BadSource: it has addresses, and none is in the allowed networks.
            OSError: it has none.
        """
        addresses = await self._lookup(host, port)
        allowed = [address for address in addresses if self._networks.allows(address)]
        if addresses and not allowed:
            raise not_allowed(f"{host} is at {', '.join(addresses)}, which", self._networks)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in allowed
        ]

    async def close(self) -> None:
        """Nothing is held."""


def check_literal(source: SourceUrl, networks: AllowedNetworks) -> None:
    """Judge a host that is an address, which no resolver is asked about.

    Raises:
        BadSource: it is outside the networks.
    """
    if source.is_literal and not networks.allows(source.host):
        raise not_allowed(str(source), networks)


def not_allowed(what: str, networks: AllowedNetworks) -> BadSource:
    """Make the refusal of an address; `what` ends where "is outside" goes on."""
    return BadSource(f"{what} is outside the allowed networks: {networks}")


def _get_addresses(host: str, port: int) -> tuple[str, ...] | OSError:
    # A value and not an exception: whoever asked may have stopped waiting for it.
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return error
    return tuple(dict.fromkeys(_address(info[4]) for info in infos))


def _address(sockaddr: tuple[object, ...]) -> str:
    host, scope = str(sockaddr[0]), sockaddr[3] if len(sockaddr) == 4 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host
