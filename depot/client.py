"""`DepotClient`: fetch artifacts from a depot into files.

Rules kept here:
- A file stands under its final name only after its bytes hashed to its artifact, and durably:
  written beside it, synced, renamed, directory synced.
- What has arrived is kept when a transfer breaks, and is hashed again before the next one builds on
  it. A kept part that turns out not to belong to the artifact is dropped.
- A depot that announces no length, or sends more than it announced, cannot fill the disk.
- No redirects, no content codings. Files are only touched in threads.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, Self

import aiohttp
from aiohttp import hdrs

from depot.artifact import ArtifactHash
from depot.dataset.part_file import PartFile
from depot.errors import LengthMismatch, Refused, TooLarge, Unreachable
from depot.http.conditional import entity_tag
from depot.remote import Session, raise_for_problem, reaching
from depot.streams.budget import Budget
from depot.urls import base_url

BLOCK_BYTES: Final = 1 << 20
UNANNOUNCED_BYTES: Final = 2 << 30
"""What is taken, without another bound, of an artifact whose size the depot does not say."""
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", re.ASCII)

Progress = Callable[[int, int | None], None]
Broken = Callable[[Unreachable], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimeouts:
    """How patient a client is, seconds.

    Attributes:
        connect_s: to establish a connection.
        idle_s: longest silence of a server that is to send something.
    """

    connect_s: float = 10.0
    idle_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a transfer that broke is taken up again.

    Attributes:
        attempts: in a row without a byte of progress.
        first_delay_s: before the second attempt; each later one waits twice as long.
    """

    attempts: int = 5
    first_delay_s: float = 0.2

    def delay_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        return float(self.first_delay_s * 2 ** (failures - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a client takes, and how fast.

    Attributes:
        max_size_bytes: of one artifact; None: what the depot announces, or UNANNOUNCED_BYTES.
        max_bytes_per_s: of all fetches of the client together; 0: no limit.
    """

    max_size_bytes: int | None = None
    max_bytes_per_s: int = 0

    def most_bytes(self, announced_bytes: int | None) -> int:
        """How large an artifact may get.

        Raises:
            TooLarge: more than that is announced.
        """
        if announced_bytes is None:
            return UNANNOUNCED_BYTES if self.max_size_bytes is None else self.max_size_bytes
        if self.max_size_bytes is not None and announced_bytes > self.max_size_bytes:
            raise TooLarge(
                f"the artifact has {announced_bytes} bytes, at most {self.max_size_bytes} are taken"
            )
        return announced_bytes


@dataclass(frozen=True, slots=True)
class RemoteArtifact:
    """An artifact that a depot has; `size_bytes` is None when it does not say."""

    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """An artifact that was fetched and verified.

    Attributes:
        size_bytes: its size.
        resumed_bytes: how much of it an earlier, broken transfer had left.
    """

    size_bytes: int
    resumed_bytes: int


class DepotClient:
    """A client of one repo depot; an async context manager.

    Args:
        url: where the depot listens.
        timeouts: how patient to be.
        retries: how often to take up a broken transfer.
        bounds: how much to take, and how fast.
        session: used instead of an own one, and not closed.

    Raises:
        InvalidRequest: `url` is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeouts: ClientTimeouts = ClientTimeouts(),
        retries: Retries = Retries(),
        bounds: Bounds = Bounds(),
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._url = base_url(url)
        self._retries = retries
        self._bounds = bounds
        self._budget = Budget(bounds.max_bytes_per_s)
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=timeouts.connect_s, sock_read=timeouts.idle_s
        )
        self._session = Session(session)

    async def __aenter__(self) -> Self:
        """Open a session unless one was given."""
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session if it is the client's own."""
        await self._session.__aexit__(*exc)

    async def head(self, artifact: ArtifactHash) -> RemoteArtifact:
        """Ask whether the depot has `artifact`, and how large it is.

        Raises:
            Unreachable, Refused.
        """
        async with self._request("HEAD", artifact, {}) as response:
            await raise_for_problem(response)
            # An encoded answer's length, from whoever encodes unasked, is not the artifact's.
            coded = _coding(response) != "identity"
            length = None if coded else response.headers.get(hdrs.CONTENT_LENGTH)
            return RemoteArtifact(int(length) if length is not None else None)

    async def fetch(
        self,
        artifact: ArtifactHash,
        target: Path,
        *,
        progress: Progress | None = None,
        broken: Broken | None = None,
        resume: bool = True,
    ) -> Fetched:
        """Fetch `artifact` into the file `target`, replacing what is there.

        Idempotent. What arrived before a failure is kept beside `target` for the next call.

        Args:
            artifact: what to fetch.
            target: the file to make; its directory exists.
            progress: called with the bytes that are there and the size, None until it is known.
            broken: called with each failure after which the transfer is taken up again.
            resume: build on what an earlier call left.

        Raises:
            Unreachable: also after a transfer broke too often.
            Refused: the depot answered with anything but the artifact.
            HashMismatch: it sent other bytes; they are dropped.
            TooLarge: it announces, or sends, more than the bounds allow.
            LengthMismatch: it sends more than it announces.
            OSError: the file cannot be written.
        """
        report, broken = progress or _silent, broken or _unheard
        part = await asyncio.to_thread(PartFile.open, target, artifact, resume=resume)
        try:
            resumed_bytes = part.size_bytes
            await self._fetch_rest(artifact, part, report, broken)
            if resumed_bytes and not part.whole:
                # What was kept may be what is wrong.
                resumed_bytes = 0
                await asyncio.to_thread(part.restart)
                await self._fetch_rest(artifact, part, report, broken)
            await asyncio.to_thread(part.publish)
            return Fetched(part.size_bytes, resumed_bytes)
        finally:
            await asyncio.to_thread(part.close)

    async def _fetch_rest(
        self, artifact: ArtifactHash, part: PartFile, report: Progress, broken: Broken
    ) -> None:
        failures = 0
        while not part.whole:
            before_bytes = part.size_bytes
            try:
                total_bytes = await self._attempt(artifact, part, report)
                # A depot may answer with less of the range than it was asked for.
                if total_bytes is None or not before_bytes < part.size_bytes < total_bytes:
                    return
            except Unreachable as error:
                failures = failures + 1 if part.size_bytes <= before_bytes else 1
                if failures >= self._retries.attempts:
                    raise
                broken(error)
                await asyncio.sleep(self._retries.delay_s(failures))

    async def _attempt(
        self, artifact: ArtifactHash, part: PartFile, report: Progress
    ) -> int | None:
        async with self._request("GET", artifact, _range(artifact, part)) as response:
            total_bytes = await _place(response, part)
            report(part.size_bytes, total_bytes)
            most_bytes = self._bounds.most_bytes(total_bytes)
            while block := await self._next_block(response.content):
                if part.size_bytes + len(block) > most_bytes:
                    await asyncio.to_thread(part.restart)
                    if total_bytes is not None:
                        raise LengthMismatch(total_bytes, most_bytes + 1)
                    raise TooLarge(
                        f"the depot does not say how large the artifact is, and sends more than "
                        f"{most_bytes} bytes"
                    )
                await asyncio.to_thread(part.append, block)
                report(part.size_bytes, total_bytes)
            return total_bytes

    async def _next_block(self, content: aiohttp.StreamReader) -> bytes:
        granted_bytes = await self._budget.grant(BLOCK_BYTES)
        block = b""
        try:
            block = await content.read(granted_bytes)
            return block
        finally:
            self._budget.give_back(granted_bytes - len(block))

    @asynccontextmanager
    async def _request(
        self, method: str, artifact: ArtifactHash, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        with reaching(self._url):
            async with self._session.http.request(
                method,
                self._url / "artifact" / "sha256" / str(artifact),
                headers={hdrs.ACCEPT_ENCODING: "identity", **headers},
                allow_redirects=False,
                auto_decompress=False,
                timeout=self._timeout,
                read_bufsize=BLOCK_BYTES,
            ) as response:
                yield response


def _silent(_done_bytes: int, _total_bytes: int | None) -> None:
    """Report nothing."""


def _unheard(_error: Unreachable) -> None:
    """Report nothing."""


def _range(artifact: ArtifactHash, part: PartFile) -> Mapping[str, str]:
    """Ask for what is missing, of this artifact only."""
    if not part.size_bytes:
        return {}
    return {hdrs.RANGE: f"bytes={part.size_bytes}-", hdrs.IF_RANGE: entity_tag(artifact)}


async def _place(response: aiohttp.ClientResponse, part: PartFile) -> int | None:
    """Bring `part` to where the body of `response` begins.

    Returns:
        The artifact's size as the depot has it, None when it does not say.
    """
    if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.size_bytes:
        await asyncio.to_thread(part.restart)
        raise Unreachable(f"{response.url}: what was kept of it is too long; begun anew")
    await raise_for_problem(response)
    coding = _coding(response)
    if coding != "identity":
        raise _unwanted(response, f"bytes encoded as {coding[:80]!r}")
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        return _partial_of(response, part.size_bytes)
    if response.status != HTTPStatus.OK:
        raise _unwanted(response, "neither the artifact nor a part of it")
    await asyncio.to_thread(part.restart)
    return response.content_length


def _coding(response: aiohttp.ClientResponse) -> str:
    return ", ".join(response.headers.getall(hdrs.CONTENT_ENCODING, ["identity"])).lower()


def _partial_of(response: aiohttp.ClientResponse, start: int) -> int:
    text = response.headers.get(hdrs.CONTENT_RANGE, "")
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None or int(match[1]) != start:
        raise _unwanted(response, f"range {text[:80]!r} where bytes from {start} were asked for")
    return int(match[2])


def _unwanted(response: aiohttp.ClientResponse, what: str) -> Refused:
    return Refused(str(response.url), response.status, remote_message=what)
