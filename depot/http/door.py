"""Who may connect: pure counting of connections, in total and by client address (S1)."""

from __future__ import annotations

import resource
from collections import Counter
from typing import Final

from depot.errors import TooManyConnections
from depot.http.limits import HttpLimits

# Each connection may hold its socket, a duplicate of it, and files on two mirrors.
DESCRIPTORS_PER_CONNECTION: Final = 4
DESCRIPTORS_FOR_OTHERS: Final = 256
FEWEST_CONNECTIONS: Final = 16


class Door:
    """The open connections of one server."""

    def __init__(self, max_connections: int, max_connections_per_client: int) -> None:
        self._max_connections = max_connections
        self._max_per_client = max_connections_per_client
        self._by_client: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._by_client.total()

    def enter(self, client: str) -> None:
        """Count a connection of `client` in; raises TooManyConnections when it may not stay."""
        if self.connections >= self._max_connections:
            raise TooManyConnections(
                f"this server has {self.connections} connections, as many as it may have"
            )
        if self._by_client[client] >= self._max_per_client:
            raise TooManyConnections(
                f"{client} has {self._by_client[client]} connections, as many as it may have"
            )
        self._by_client[client] += 1

    def leave(self, client: str) -> None:
        """Count one out that was counted in."""
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]


def affordable_connections(limits: HttpLimits) -> int:
    """`max_connections`, or fewer when the process may not open descriptors enough for them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.max_connections
    affordable = (soft - DESCRIPTORS_FOR_OTHERS) // DESCRIPTORS_PER_CONNECTION
    return min(limits.max_connections, max(affordable, FEWEST_CONNECTIONS))
