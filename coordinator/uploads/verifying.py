"""A release that is verified in a thread, and given up when nobody waits for it any more."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

from coordinator.releases.release import VerifiedRelease, open_release
from coordinator.releases.repository import Body, ReleaseLimits, Repository
from coordinator.uploads.errors import no_room
from coordinator.uploads.moved import Moved
from coordinator.uploads.threads import run_until_over
from depot.artifact import ArtifactHash
from depot.concurrency.threads import DaemonThreads


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of an upload.

    Attributes:
        file_name: what to record; None: what the repository calls itself.
        allow_expired: take it though metadata of it has expired.
        version: see `open_release`.
    """

    file_name: str | None = None
    allow_expired: bool = False
    version: str | None = None


@asynccontextmanager
async def verified(
    make: Callable[[threading.Event], Repository],
    roots: Sequence[bytes],
    wanted: Wanted,
    *,
    now_s: float,
    limits: ReleaseLimits,
    threads: DaemonThreads,
    moved: Moved,
) -> AsyncIterator[VerifiedRelease]:
    """Verify the repository that `make` opens, and give what is in it to the block.

    `make` is given what is set when nobody waits any more; `moved` is told what is read.

    Raises:
        as `open_release`; what the disk does wrong is QuotaExceeded or Io.
    """
    opened, stop = ExitStack(), threading.Event()

    def verify() -> VerifiedRelease:
        try:
            return opened.enter_context(
                open_release(
                    _Watched(make(stop), stop, moved),
                    roots,
                    now_s=now_s,
                    allow_expired=wanted.allow_expired,
                    version=wanted.version,
                    file_name=wanted.file_name,
                    limits=limits,
                )
            )
        except OSError as error:
            raise no_room(error) from error

    try:
        yield await run_until_over(threads, verify, stop.set)
    finally:
        await run_until_over(threads, opened.close, stop.set)


class _Stopped(Exception):
    """Nobody waits for this verification any more."""


class _Watched(Repository):
    """A repository of which nothing more is read once `stop` is set; what is read is counted."""

    def __init__(self, inner: Repository, stop: threading.Event, moved: Moved) -> None:
        self._inner = inner
        self._stop = stop
        self._moved = moved

    @property
    def file_name(self) -> str:
        return self._inner.file_name

    def fingerprint(self) -> ArtifactHash | None:
        return self._inner.fingerprint()

    def open(self, path: str, most_bytes: int, /) -> Body | None:
        if self._stop.is_set():
            raise _Stopped
        body = self._inner.open(path, most_bytes)
        return None if body is None else _WatchedBody(body, self._stop, self._moved)

    def close(self) -> None:
        self._inner.close()


class _WatchedBody:
    def __init__(self, inner: Body, stop: threading.Event, moved: Moved) -> None:
        self._inner = inner
        self._stop = stop
        self._moved = moved

    @property
    def size_bytes(self) -> int:
        return self._inner.size_bytes

    def read(self, size_bytes: int, /) -> bytes:
        if self._stop.is_set():
            raise _Stopped
        block = self._inner.read(size_bytes)
        self._moved(len(block))
        return block

    def close(self) -> None:
        self._inner.close()
