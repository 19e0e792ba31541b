"""A release in a TUF repository on an HTTP(S) server: `URL/metadata/...` and `URL/targets/...`.

Rules kept here (S2, S4), the same as for copies between nodes:
- A connection goes to an address in the allowed networks, judged after resolution; no proxy, no
  redirect, no content coding.
- Every wait ends, a body that trickles is given up, and no more than one byte beyond what is wanted
  of a file is taken.

What was fetched is kept, in one file without a name in the spool directory, until the repository is
closed: so each file is fetched once, and is the same however often it is read. Nothing is left of
it by a crash.

Used from a thread without an event loop; it has one of its own, which runs only inside its calls.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from yarl import URL

from agent.copies.networks import AllowedNetworks
from agent.copies.resolver import CheckedResolver, Lookup, SystemLookup, check_literal
from agent.copies.source_url import SourceUrl
from coordinator.releases.repository import BLOCK_BYTES, Body, Damaged, Repository
from depot.errors import BodyTimeout, Refused, Unreachable
from depot.remote import raise_for_problem, reaching
from depot.streams.sources import Pace, PaceMeter

_NOT_THERE: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN, HTTPStatus.GONE)
"""Stores of files answer 403 where they do not tell whether there is one."""
_USER_AGENT: Final = "depot-coordinator"
_STOP_CHECK_S: Final = 0.5
_PACE: Final = Pace(idle_timeout_s=30.0)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How patient a download is.

    Attributes:
        connect_timeout_s: for each address of the server.
        pace: of a body; its idle timeout is that of an answer's head, too.
    """

    connect_timeout_s: float = 10.0
    pace: Pace = _PACE


_PATIENCE: Final = Patience()


class HttpRepository(Repository):
    """A repository on a server.

    Args:
        url: where its `metadata` and `targets` are.
        networks: which addresses may be connected to.
        spool: an existing directory, with room for all of the release.
        patience: how slow the server may be.
        lookup: asks for the addresses of names; by default the system.
        on_fetched: called with the size of each block.
        stop: once set, whoever waits for the server gets ConnectionAbortedError within a second.

    Raises:
        BadSource: not a URL that is read here, or its host is an address outside the networks.
        OSError: nothing can be written to the spool directory.
    """

    def __init__(
        self,
        url: str,
        networks: AllowedNetworks,
        spool: Path,
        *,
        patience: Patience = _PATIENCE,
        lookup: Lookup | None = None,
        stop: threading.Event | None = None,
        on_fetched: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._url = SourceUrl.parse(url)
        check_literal(self._url, networks)
        self._patience = patience
        self._stop = stop or threading.Event()
        self._on_fetched = on_fetched
        self._kept: dict[tuple[str, int], _Kept | None] = {}
        self._spool = tempfile.TemporaryFile(dir=spool)  # noqa: SIM115  # closed with the rest
        self._end_bytes = 0
        self._lookup = SystemLookup(patience.connect_timeout_s)
        self._runner = asyncio.Runner()
        resolver = CheckedResolver(networks, lookup or self._lookup)
        self._session = self._runner.run(self._open_session(resolver))

    @property
    def file_name(self) -> str:
        """The URL."""
        return str(self._url)

    def fingerprint(self) -> None:
        """A server is no one file."""

    def open(self, path: str, most_bytes: int, /) -> Body | None:
        """See `Repository`.

        Raises:
            BadSource: the server's address is outside the allowed networks.
            Unreachable: it cannot be reached, breaks off or is too slow.
            Refused: it answers with neither the file nor that there is none.
            ConnectionAbortedError: it was told to stop.
        """
        key = (path, most_bytes)
        if key not in self._kept:
            self._kept[key] = self._fetch(path, most_bytes)
        kept = self._kept[key]
        return None if kept is None else _KeptBody(self._spool.fileno(), kept)

    def close(self) -> None:
        """Close the connection, and forget what was fetched."""
        try:
            self._runner.run(self._session.close())
        finally:
            self._runner.close()
            self._lookup.close()
            self._spool.close()

    async def _open_session(self, resolver: CheckedResolver) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=resolver, use_dns_cache=False, force_close=True
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                hdrs.ACCEPT_ENCODING: "identity",
                hdrs.HOST: self._url.host_header,
                hdrs.USER_AGENT: _USER_AGENT,
            },
            read_bufsize=BLOCK_BYTES,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._patience.connect_timeout_s
            ),
            trust_env=False,
        )

    def _fetch(self, path: str, most_bytes: int) -> _Kept | None:
        """Ask for a file, and keep what is wanted of it."""
        url = URL(f"{self._url}/{quote(path)}", encoded=True)
        patience_s = self._patience.connect_timeout_s + self._patience.pace.idle_timeout_s
        response = self._run(url, self._session.get(url, allow_redirects=False), patience_s)
        try:
            if response.status in _NOT_THERE:
                return None
            self._run(url, _check_head(response), patience_s)
            return self._keep(url, response, most_bytes)
        finally:
            response.close()

    def _keep(self, url: URL, response: aiohttp.ClientResponse, most_bytes: int) -> _Kept:
        start_bytes, left_bytes = self._end_bytes, most_bytes + 1
        meter, waited_s = PaceMeter(self._patience.pace, 0.0), 0.0
        while left_bytes:
            asked_s = time.monotonic()
            block = self._run(
                url,
                response.content.read(min(BLOCK_BYTES, left_bytes)),
                self._patience.pace.idle_timeout_s,
            )
            waited_s += time.monotonic() - asked_s
            if not block:
                break
            left_bytes -= len(block)
            self._write(block)
            self._on_fetched(len(block))
            try:
                meter.arrived(len(block), waited_s)
            except BodyTimeout as error:
                raise Unreachable(f"{url}: {error}") from error
        return _Kept(start_bytes, self._end_bytes - start_bytes)

    def _write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            written = os.pwrite(self._spool.fileno(), view, self._end_bytes)
            self._end_bytes += written
            view = view[written:]

    def _run(self, url: URL, doing: Awaitable[T], patience_s: float) -> T:
        with reaching(url):
            return self._runner.run(self._wait(doing, patience_s))

    async def _wait(self, doing: Awaitable[T], patience_s: float) -> T:
        task = asyncio.ensure_future(doing)
        try:
            async with asyncio.timeout(patience_s):
                while not task.done():
                    if self._stop.is_set():
                        raise ConnectionAbortedError("the download was given up")
                    await asyncio.wait([task], timeout=_STOP_CHECK_S)
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])


@dataclass(frozen=True, slots=True)
class _Kept:
    """Where in the spool a file is."""

    offset_bytes: int
    size_bytes: int


class _KeptBody:
    """A file that was fetched."""

    def __init__(self, fd: int, kept: _Kept) -> None:
        self._fd = fd
        self._at = kept.offset_bytes
        self._left_bytes = self.size_bytes = kept.size_bytes

    def read(self, size_bytes: int, /) -> bytes:
        block = os.pread(self._fd, min(size_bytes, self._left_bytes), self._at)
        if not block and self._left_bytes and size_bytes:
            raise Damaged("what was fetched of it is gone from the spool directory")
        self._at += len(block)
        self._left_bytes -= len(block)
        return block

    def close(self) -> None:
        """Nothing is held: the spool is the repository's."""


async def _check_head(response: aiohttp.ClientResponse) -> None:
    await raise_for_problem(response)
    coding = ", ".join(response.headers.getall(hdrs.CONTENT_ENCODING, ["identity"])).lower()
    if response.status != HTTPStatus.OK or coding != "identity":
        said = f"a body encoded as {coding[:80]!r}" if coding != "identity" else "no whole file"
        raise Refused(str(response.url), response.status, remote_message=said)
