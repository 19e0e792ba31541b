"""A copy that is open for reading, wherever its file is open."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from depot.artifact import ArtifactHash
from depot.device.host import Host, Lane
from depot.device.resident import RemoteFile
from depot.device.source import ContentSource, FedSource, HostedSource
from depot.streams.file_state import FileState
from depot.streams.sources import Source
from depot.streams.verified_read import VerifiedRead

if TYPE_CHECKING:
    from depot.dataset.attaching import Opened
    from depot.mirrors.inventory import Copy


class OpenArtifact:
    """A copy that is open for reading; a context manager that closes it.

    Attributes:
        dataset: index of the dataset it is read from.
        fd: descriptor; reads by offset only, it may be shared. -1 when it is in another process.
        remote: the file in a worker process, and who to ask for it.
        content: all of it, unchecked, when it is small and in another process.
        read: what every byte that leaves must come through; None: any way will do.
        on_close: called once it is closed.
        place: the dataset's path, for the log; its number where nobody said.
        exempt: its filesystem checks what is read, but not of this file.
        state: of its file when it was opened; None: it is still being written.
        copy: as it was recorded when it was opened; another record may be about another file.
    """

    def __init__(
        self,
        sha256: ArtifactHash,
        size_bytes: int,
        dataset: int,
        fd: int,
        read: VerifiedRead | None = None,
        copy: Copy | None = None,
    ) -> None:
        self.sha256 = sha256
        self.size_bytes = size_bytes
        self.dataset = dataset
        self.fd = fd
        self.read = read
        self.remote: tuple[RemoteFile, Host] | None = None
        self._host: Host | None = None
        self.content: bytes | None = None
        self.on_close: Callable[[], None] | None = None
        self.exempt = False
        self.state: FileState | None = None
        self.copy = copy
        self.place = str(dataset)
        self.closed = False

    @classmethod
    def of_file(cls, sha256: ArtifactHash, dataset: int, opened: Opened, host: Host) -> Self:
        """Make one of what the dataset's host opened."""
        fd = opened.file if isinstance(opened.file, int) else -1
        made = cls(sha256, opened.size_bytes, dataset, fd)
        made._host = host
        if isinstance(opened.file, RemoteFile):
            made.remote = (opened.file, host)
        made.content = opened.content
        made.exempt = opened.exempt
        made.state = opened.state
        return made

    @contextmanager
    def source(self, timeout_s: float) -> Iterator[Source]:
        """Read it from start to end, for a write; the device may be silent for `timeout_s`."""
        if self.content is not None:
            yield ContentSource(self.content)
            return
        with closing(self._slow_source(timeout_s)) as source:
            yield source

    def _slow_source(self, timeout_s: float) -> HostedSource | FedSource:
        if self.remote is not None:
            file, host = self.remote
            return FedSource(host, file, self.size_bytes, timeout_s)
        assert self._host is not None
        return HostedSource(self._host, self.fd, timeout_s)

    def close(self) -> None:
        """Close the descriptor; a second call changes nothing."""
        if self.closed:
            return
        self.closed = True
        fd, self.fd = self.fd, -1
        if self.remote is not None:
            close_file(*self.remote)
        elif fd >= 0:
            # Some filesystems report errors here; what was read was judged by itself.
            with suppress(OSError):
                os.close(fd)
        if self.on_close is not None:
            self.on_close()

    def __enter__(self) -> Self:
        """Return the open artifact."""
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


async def close_if_late(opening: Future[Opened], waiting: Awaitable[Opened], host: Host) -> Opened:
    """Wait for a file that is being opened; what comes too late, for whatever reason, is closed."""
    try:
        return await waiting
    except BaseException:
        opening.add_done_callback(partial(_close_opened, host))
        raise


def _close_opened(host: Host, opening: Future[Opened]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        close_file(opening.result().file, host)


def close_file(file: int | RemoteFile | None, host: Host) -> None:
    """Close a file where it is open."""
    if isinstance(file, RemoteFile):
        host.submit_in(Lane.CALLS, os.close, file)  # gone with its process, if that has ended
    elif file is not None:
        os.close(file)
