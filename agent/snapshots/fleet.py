"""An archive in the fleet's own depots: `fleet+http://coordinator:12340`.

The coordinator keeps the catalogue: which versions there are, and what was said of each. The bytes
of a version are an artifact that every sled holds; they come from the sleds' depots.

Rules kept here:
- A version names its artifact, so it is never other bytes, whatever is published meanwhile.
- What a sled cannot give, another one is asked for. Nothing that comes is believed: whoever
  downloads compares it with the checksum from the catalogue.
- No redirects, no proxies, no content codings; silence is bounded in time, and a sled that sends
  too slowly is one that failed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from pydantic import ValidationError
from yarl import URL

from agent.calls import read_answer
from agent.snapshots.errors import Gone, Malformed, Mismatch, Refused, SnapshotError, Unreachable
from agent.snapshots.fleet_depots import Depots
from agent.snapshots.fleet_wire import SnapshotBody, SnapshotVersionBody
from agent.snapshots.values import MIDSTATES, Head, Listed, Metadata, Version
from depot import errors
from depot.remote import raise_for_problem, reaching
from depot.streams.sources import Pace, PaceMeter
from depot.urls import base_url

BLOCK_BYTES: Final = 1 << 20
CONNECT_TIMEOUT_S: Final = 5.0
PACE: Final = Pace(idle_timeout_s=30.0, min_bytes_per_s=65_536.0)
ANSWER_TIMEOUT_S: Final = 60.0
# After the last byte was sent, what was sent is decompressed, hashed and staged.
SLOWEST_BYTES_PER_S: Final = 5_000_000
_BUSY: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_DAMAGED: Final = frozenset({errors.HashMismatch.code, errors.LengthMismatch.code})
_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/", re.ASCII)

T = TypeVar("T")


class FleetArchive:
    """Snapshots that the sleds hold.

    Args:
        coordinator: the URL of its API.
        pace: how slow a sled may be.

    Raises:
        InvalidRequest: it is none.
    """

    def __init__(self, coordinator: str, *, pace: Pace = PACE) -> None:
        self._pace = pace
        self._coordinator = base_url(coordinator)
        self.url = f"fleet+{self._coordinator}".rstrip("/")
        self._depots = Depots()

    def head(self, name: str) -> Head:
        """See Archive."""
        newest = self._catalogue(name).items[0]
        metadata = Metadata.parse(newest.metadata)
        return Head(_version(name, newest), newest.stored_bytes, metadata)

    def read(self, version: Version, start: int, stop: int) -> Iterator[bytes]:
        """See Archive."""
        if start >= stop:
            return
        with ExitStack() as stack:
            runner = stack.enter_context(asyncio.Runner())
            answer = stack.enter_context(_Answer(runner, self._pace))
            depot = self._ask_in_turn(answer, version, start, stop)
            while start < stop:
                try:
                    block = answer.block(min(BLOCK_BYTES, stop - start))
                except Unreachable:
                    self._depots.failed(depot)
                    raise
                start += len(block)
                yield block

    def put(self, name: str, blocks: Iterable[bytes], metadata: Metadata) -> Version:
        """See Archive."""
        assert metadata.version is not None, "whoever publishes gives it one"
        said = metadata.items()
        del said["version"]
        # The catalogue has no place for them: between sleds the network is what takes time.
        said.pop(MIDSTATES, None)
        url = self._at(name, metadata.version).with_query(said)
        with _errors():
            sending = _Sending(blocks, metadata.size_bytes or 0)
            return _version(name, asyncio.run(self._send(url, sending)))

    def versions(self, name: str) -> Sequence[Listed]:
        """See Archive."""
        try:
            found = self._catalogue(name).items
        except Gone:
            return []
        return [
            Listed(_version(name, each), each.stored_bytes, each.time_created) for each in found
        ]

    def delete(self, version: Version) -> None:
        """See Archive."""
        url = self._at(version.name, str(version.id))
        with _errors():
            asyncio.run(self._ask("DELETE", url))

    def close(self) -> None:
        """See Archive."""

    def _at(self, *path: str) -> URL:
        quoted = [quote(segment, safe="") for segment in ("v1", "snapshots", *path)]
        return self._coordinator.joinpath(*quoted, encoded=True)

    def _catalogue(self, name: str) -> SnapshotBody:
        with _errors():
            content = asyncio.run(self._ask("GET", self._at(name)))
        try:
            found = SnapshotBody.model_validate_json(content)
        except ValidationError as error:
            raise Unreachable(f"{self.url} is no coordinator: {_first(error)}") from None
        if not found.items:
            raise Malformed(f"{self.url}: has {name} without a version")
        self._depots.know(found.depots)
        return found

    async def _ask(self, method: str, url: URL) -> bytes:
        with reaching(url):
            async with (
                _session(total_s=ANSWER_TIMEOUT_S) as session,
                session.request(method, url, allow_redirects=False) as response,
            ):
                await raise_for_problem(response)
                return await read_answer(response)

    async def _send(self, url: URL, sending: _Sending) -> SnapshotVersionBody:
        """Send a version; what was recorded of it."""
        try:
            with reaching(url):
                async with sending.patience(), _session() as session:
                    request = session.put(
                        url,
                        data=sending.body(),
                        headers={hdrs.CONTENT_TYPE: "application/octet-stream"},
                        expect100=True,
                        allow_redirects=False,
                    )
                    async with request as response:
                        await raise_for_problem(response)
                        content = await read_answer(response)
        except errors.Unreachable:
            if sending.error is not None:  # the connection ended because the source did
                raise sending.error from None
            raise
        try:
            return SnapshotVersionBody.model_validate_json(content)
        except ValidationError as error:
            raise Unreachable(f"{self.url} is no coordinator: {_first(error)}") from None

    def _ask_in_turn(self, answer: _Answer, version: Version, start: int, stop: int) -> str:
        """Have a sled begin to answer; which one."""
        why: SnapshotError = Unreachable(f"{self.url} names no sled that holds {version}")
        for depot in self._depots.in_turn((version, start)):
            try:
                answer.begin(depot, version.tag, start, stop)
            except (Unreachable, Refused, Gone) as error:
                self._depots.failed(depot)
                why = Unreachable(f"no sled gives {version}: {error}")
            else:
                self._depots.gives((version, start), depot)
                return depot
        # Sleds come and go; and those that were asked may have let go of an old version.
        if _version_ids(self._catalogue(version.name)).isdisjoint({version.id}):
            raise Gone(f"{self.url}: version {version} of {version.name} is gone")
        raise why


class _Answer:
    """What a depot sends, read from a thread without an event loop."""

    def __init__(self, runner: asyncio.Runner, pace: Pace) -> None:
        self._runner = runner
        self._pace = pace
        self._stack = AsyncExitStack()
        self._response: aiohttp.ClientResponse | None = None
        self._meter = PaceMeter(pace, 0.0)
        self._waited_s = 0.0

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())

    def begin(self, depot: str, sha256: str, start: int, stop: int) -> None:
        """Ask a depot; what it sends is what was asked for, or this raises."""
        with _errors():
            self._run(lambda: self._begin(base_url(depot), sha256, start, stop))

    def block(self, size_bytes: int) -> bytes:
        """Wait for some bytes, at least one."""
        assert self._response is not None
        content = self._response.content
        begin_s = time.monotonic()
        with _errors(), reaching(self._response.url):
            block: bytes = self._run(lambda: content.read(size_bytes))
        self._waited_s += time.monotonic() - begin_s
        if not block:
            raise Unreachable(f"{self._response.url.origin()}: the answer ended early")
        try:
            self._meter.arrived(len(block), self._waited_s)
        except errors.BodyTimeout as error:
            raise Unreachable(f"{self._response.url.origin()}: {error}") from error
        return block

    def _run(self, call: Callable[[], Awaitable[T]]) -> T:
        async def wait() -> T:
            return await call()

        return self._runner.run(wait())

    async def _begin(self, depot: URL, sha256: str, start: int, stop: int) -> None:
        await self._stack.aclose()
        self._meter, self._waited_s = PaceMeter(self._pace, 0.0), 0.0
        url = depot / "artifact" / "sha256" / sha256
        headers = {hdrs.RANGE: f"bytes={start}-{stop - 1}", hdrs.ACCEPT_ENCODING: "identity"}
        with reaching(url):
            session = await self._stack.enter_async_context(
                _session(silence_s=self._pace.idle_timeout_s)
            )
            response = await self._stack.enter_async_context(
                session.get(url, headers=headers, allow_redirects=False)
            )
            await raise_for_problem(response)
        said = _RANGE.match(response.headers.get(hdrs.CONTENT_RANGE, ""))
        coded = response.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity"
        if response.status != HTTPStatus.PARTIAL_CONTENT or said is None or coded:
            raise Refused(f"{url}: expected a range of the artifact, found {response.status}")
        if (int(said[1]), int(said[2])) != (start, stop - 1):
            raise Refused(f"{url}: expected bytes {start}-{stop - 1}, found {said[0]}")
        self._response = response


class _Sending:
    """A body that is made of blocks from a thread.

    Args:
        blocks: what is sent.
        size_bytes: of the snapshot itself, which the coordinator hashes once all is sent.

    Attributes:
        error: why there are no more blocks, if not because all were sent.
    """

    def __init__(self, blocks: Iterable[bytes], size_bytes: int) -> None:
        self.error: Exception | None = None
        self._blocks = iter(blocks)
        self._size_bytes = size_bytes
        self._patience: asyncio.Timeout | None = None

    def patience(self) -> asyncio.Timeout:
        """Bound how long it may stand still, and how long its answer may take."""
        self._patience = asyncio.timeout(ANSWER_TIMEOUT_S)
        return self._patience

    async def body(self) -> AsyncIterator[bytes]:
        """The blocks; one is in memory at a time."""
        sent_bytes = 0
        while block := await asyncio.to_thread(self._next):
            yield block
            sent_bytes += len(block)
            self._wait_for(ANSWER_TIMEOUT_S)
        most_bytes = max(sent_bytes, self._size_bytes)
        self._wait_for(ANSWER_TIMEOUT_S + most_bytes / SLOWEST_BYTES_PER_S)

    def _next(self) -> bytes:
        try:
            return next((block for block in self._blocks if block), b"")
        except Exception as error:
            # The HTTP library reports that as the connection's error.
            self.error = error
            raise

    def _wait_for(self, seconds: float) -> None:
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time() + seconds)


def _session(
    *, total_s: float | None = None, silence_s: float | None = None
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=BLOCK_BYTES,
        timeout=aiohttp.ClientTimeout(
            total=total_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s
        ),
        trust_env=False,
    )


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except errors.Unreachable as error:
        raise Unreachable(str(error)) from error
    except errors.Refused as error:
        raise _meaning(error) from error
    except errors.InvalidRequest as error:  # a URL that is none
        raise Unreachable(str(error)) from error


def _meaning(error: errors.Refused) -> SnapshotError:
    if error.remote_code in _DAMAGED:
        return Mismatch(f"it was damaged on its way: {error}")
    if error.status == HTTPStatus.NOT_FOUND:
        return Gone(str(error))
    quota = error.status == HTTPStatus.INSUFFICIENT_STORAGE
    if error.status in _BUSY or (error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not quota):
        return Unreachable(str(error))
    return Refused(str(error))


def _version(name: str, found: SnapshotVersionBody) -> Version:
    return Version(name, found.version, found.sha256)


def _version_ids(found: SnapshotBody) -> set[str]:
    return {each.version for each in found.items}


def _first(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
