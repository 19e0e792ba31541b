"""Asks a peer's depot for an artifact, at an address that was checked.

Rules kept here (S2, S4):
- A connection goes to an address that is in the allowed networks and that was judged after
  resolution: the resolver hands the HTTP library only such addresses, nothing caches them, and no
  proxy or environment variable changes the way. Hosts that are addresses, which the library does
  not resolve, are judged before it sees them.
- No redirect is followed and no coding is decoded.
- Every wait ends: connecting within `connect_timeout_s` an address, the whole head of the answer
  within that and `idle_timeout_s`; the body has a `Pace`.
- One connection serves one request, so that an answer cannot be left over from another.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final, Self

import aiohttp

from agent.copies.networks import AllowedNetworks
from agent.copies.peer_answer import Asked, PeerAnswer, judge_answer
from agent.copies.resolver import CheckedResolver, Lookup, SystemLookup, check_literal
from agent.copies.source_url import SourceUrl
from depot.artifact import ArtifactHash
from depot.errors import DepotCopy
from depot.http.body import response_body
from depot.streams.limited import Budgets, LimitedSource
from depot.streams.sources import Pace, Source

_USER_AGENT: Final = "sled-agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLimits:
    """How patient a copy is with a peer, and how much it takes.

    Attributes:
        connect_timeout_s: for each address of the peer.
        idle_timeout_s: longest silence.
        min_bytes_per_s: lowest average rate of a body over any `rate_window_s`.
        max_artifact_size_bytes: an answer that announces more is refused.
    """

    connect_timeout_s: float = 5.0
    idle_timeout_s: float = 30.0
    min_bytes_per_s: float = 1024.0
    rate_window_s: float = 30.0
    max_artifact_size_bytes: int = 2 << 30

    @property
    def pace(self) -> Pace:
        """How slow a body may be."""
        return Pace(
            idle_timeout_s=self.idle_timeout_s,
            min_bytes_per_s=self.min_bytes_per_s,
            window_s=self.rate_window_s,
        )


@dataclass(slots=True, eq=False)
class PeerBody:
    """An accepted answer whose body is still to be read.

    Attributes:
        url: the depot that answered.
        answer: what the body is.
        content: the body, for a worker thread to read. Lives until `close`.
        meter: what tells how its reading goes, once it is limited.
    """

    url: SourceUrl
    answer: PeerAnswer
    content: Source
    _stack: AsyncExitStack = field(repr=False)
    meter: LimitedSource | None = None

    @property
    def silent_s(self) -> float:
        """For how long the running read has been waiting for a byte."""
        since_s = self.meter.waiting_since_s if self.meter else None
        return 0.0 if since_s is None else time.monotonic() - since_s

    def limit(self, budgets: Budgets) -> None:
        """Read the body no faster than `budgets` allow, and measure it."""
        self.meter = LimitedSource(self.content, budgets, self.answer.length_bytes)
        self._stack.callback(self.meter.close)
        self.content = self.meter

    async def close(self) -> None:
        """Close the connection, whatever is left on it."""
        await self._stack.aclose()


class PeerFetcher:
    """Opens artifacts at peers. An async context manager: the session lives as long as it."""

    def __init__(
        self, networks: AllowedNetworks, limits: PeerLimits, *, lookup: Lookup | None = None
    ) -> None:
        self.limits = limits
        self._networks = networks
        self._system = SystemLookup(limits.connect_timeout_s)
        self._lookup = lookup or self._system
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(self._networks, self._lookup),
            use_dns_cache=False,
            force_close=True,
            limit=0,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": _USER_AGENT},
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self.limits.connect_timeout_s, sock_read=None
            ),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()
        self._system.close()

    def check(self, source: SourceUrl) -> None:
        """Refuse a source whose address is known without asking anyone.

        Raises:
            BadSource: its host is an address outside the allowed networks.
        """
        check_literal(source, self._networks)

    async def open(
        self,
        source: SourceUrl,
        sha256: ArtifactHash,
        offset_bytes: int = 0,
        end_bytes: int | None = None,
    ) -> PeerBody:
        """Ask for the artifact from `offset_bytes` on, to `end_bytes` or to its end.

        Returns once a plausible head is here.

        The body may start at 0 all the same: see `PeerAnswer.starts_at_bytes`.

        Raises:
            BadSource: the peer's address is outside the allowed networks.
            DepotCopy: unreachable, too slow, not HTTP, or not the artifact.
            TooLarge: the peer announces more than an artifact may have.
        """
        self.check(source)
        asked = Asked(sha256, offset_bytes, self.limits.max_artifact_size_bytes, end_bytes)
        response = await self._ask(source, asked)
        stack = AsyncExitStack()
        stack.callback(response.close)
        try:
            answer = judge_answer(response.status, response.headers, asked)
            content = await stack.enter_async_context(
                response_body(response, answer.length_bytes, self.limits.pace)
            )
        except BaseException:
            await stack.aclose()
            raise
        return PeerBody(source, answer, content, stack)

    async def _ask(self, source: SourceUrl, asked: Asked) -> aiohttp.ClientResponse:
        """The head of the answer, or why there is none.

        The HTTP library asks a second time, once, when a connection ends without an answer.
        """
        assert self._session is not None
        patience_s = self.limits.connect_timeout_s + self.limits.idle_timeout_s
        try:
            async with asyncio.timeout(patience_s):
                return await self._session.get(
                    source.artifact_url(asked.sha256),
                    headers=_request_headers(source, asked),
                    allow_redirects=False,
                )
        except aiohttp.ClientResponseError as error:
            raise DepotCopy(f"its answer is not HTTP: {_first_line(error.message)}") from error
        except aiohttp.ConnectionTimeoutError as error:
            limit_s = self.limits.connect_timeout_s
            raise DepotCopy(f"no connection within {limit_s:g} s", transient=True) from error
        except TimeoutError as error:
            raise DepotCopy(f"no answer within {patience_s:g} s", transient=True) from error
        except aiohttp.ServerDisconnectedError as error:
            raise DepotCopy("it hung up without an answer", transient=True) from error
        except aiohttp.ClientConnectorDNSError as error:
            raise DepotCopy(
                f"its name does not resolve: {_reason(error)}", transient=True
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise DepotCopy(f"it cannot be reached: {_reason(error)}", transient=True) from error


def _request_headers(source: SourceUrl, asked: Asked) -> dict[str, str]:
    headers = {"Host": source.host_header}
    if asked.offset_bytes or asked.end_bytes is not None:
        last = "" if asked.end_bytes is None else asked.end_bytes - 1
        headers["Range"] = f"bytes={asked.offset_bytes}-{last}"
        headers["If-Range"] = f'"sha256:{asked.sha256}"'
    return headers


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _first_line(error.os_error.strerror or str(error.os_error))
    return _first_line(str(error)) or type(error).__name__


def _first_line(text: str) -> str:
    """The peer may have written parts of it: one line, bounded, nothing but printable."""
    line = text.strip().partition("\n")[0][:200]
    return "".join(character if character.isprintable() else "?" for character in line)
