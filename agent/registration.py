"""Telling the fleet's coordinators where this sled is: at start, and every minute from then on.

Rules kept here:
- Nothing waits for a coordinator: an agent starts and serves with none of them there, and a
  registration that fails shows as a failing duty (S5).
- One coordinator is enough, because they share a database. The one that took the last registration
  is asked first, the others in the order of the configuration.
- Answers are bounded in size and time, and no redirect is followed (S2, S4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import aiohttp
import structlog

from depot.errors import DepotError, NoDataset, Refused, Unreachable
from depot.remote import raise_for_problem, reaching
from depot.urls import base_url

INTERVAL_S: Final = 60.0
FIRST_RETRY_S: Final = 1.0
_TIMEOUT_S: Final = 20.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SledAddress:
    """Who this sled is, and where others reach its two servers."""

    sled_id: str | None
    agent_url: str
    depot_url: str


class Registration:
    """Registers this sled with one of the coordinators.

    Args:
        coordinators: their base URLs; at least one.
        address: says where this sled is, as of now.
    """

    def __init__(
        self,
        coordinators: Sequence[str],
        address: Callable[[], SledAddress],
        *,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._coordinators = list(coordinators)
        self._address = address
        self._timeout_s = timeout_s
        self._told: tuple[str, SledAddress] | None = None

    async def tell(self) -> None:
        """Register once.

        Raises:
            NoDataset: no dataset says yet which sled this is.
            Refused, Unreachable: no coordinator took it; with what each of them said.
        """
        address = self._address()
        if address.sled_id is None:
            raise NoDataset("no dataset is there to say which sled this is")
        failures: list[DepotError] = []
        for coordinator in self._in_turn():
            try:
                await self._register(coordinator, address.sled_id, address)
            except (Refused, Unreachable) as error:
                failures.append(error)
            else:
                self._note(coordinator, address)
                return
        raise failures[0] if len(failures) == 1 else Unreachable("; ".join(map(str, failures)))

    def _in_turn(self) -> list[str]:
        last = self._told[0] if self._told is not None else None
        return sorted(self._coordinators, key=lambda coordinator: coordinator != last)

    async def _register(self, coordinator: str, sled_id: str, address: SledAddress) -> None:
        url = base_url(coordinator)
        body = {"agent_url": address.agent_url, "depot_url": address.depot_url}
        with reaching(url):
            # A session for each: in between, nobody has a connection to keep open.
            async with (
                asyncio.timeout(self._timeout_s),
                aiohttp.ClientSession() as session,
                session.put(
                    url.joinpath("v1", "sleds", quote(sled_id, safe=""), encoded=True),
                    json=body,
                    allow_redirects=False,
                ) as response,
            ):
                await raise_for_problem(response)

    def _note(self, coordinator: str, address: SledAddress) -> None:
        if self._told != (coordinator, address):
            self._told = coordinator, address
            _log.info(
                "registered",
                coordinator=coordinator,
                agent_url=address.agent_url,
                depot_url=address.depot_url,
            )
