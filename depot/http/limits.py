"""What one server grants its clients (S1, S2). Every bound is a setting; the defaults are here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from depot.streams.sources import Pace

MIB = 1 << 20
MAX_JSON_BODY_BYTES: Final = 16 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds of one server.

    Attributes:
        header_timeout_s: from the first byte of a request's head (or from the opening of the
            connection) to its last.
        idle_timeout_s: longest silence on a kept connection, in a body, and of a reader.
        min_body_bytes_per_s: lowest average rate of a body in either direction, over 30 s.
        max_connections: open connections; fewer when the descriptor limit is low.
        max_connections_per_client: open connections from one address.
        max_json_body_bytes: largest JSON body that is read.
        json_memory_bytes: what JSON bodies may take together, beyond the first part of each.
        refused_drain_bytes: how much of an unread body is taken in after its answer was sent.
        refused_drain_s: for how long.
    """

    header_timeout_s: float = 10.0
    idle_timeout_s: float = 75.0
    min_body_bytes_per_s: float = 1024.0
    max_connections: int = 1024
    max_connections_per_client: int = 256
    max_json_body_bytes: int = MAX_JSON_BODY_BYTES
    json_memory_bytes: int = 64 * MIB
    refused_drain_bytes: int = MIB
    refused_drain_s: float = 2.0

    @property
    def pace(self) -> Pace:
        """How slow a body may be, in either direction."""
        return Pace(idle_timeout_s=self.idle_timeout_s, min_bytes_per_s=self.min_body_bytes_per_s)
