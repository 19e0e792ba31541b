"""Archives that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from agent.snapshots.archive import Archive
from agent.snapshots.errors import Gone, Truncated, Unreachable
from agent.snapshots.values import Head, Metadata, Version


class MemoryArchive:
    """One version of every name, in memory."""

    url = "memory:"

    def __init__(self) -> None:
        self.stored: dict[str, tuple[Version, bytes, Metadata]] = {}
        self.reads: list[tuple[int, int]] = []

    def head(self, name: str) -> Head:
        if name not in self.stored:
            raise Gone(name)
        version, content, metadata = self.stored[name]
        return Head(version, len(content), metadata)

    def read(self, version: Version, start: int, stop: int) -> Iterator[bytes]:
        self.reads.append((start, stop))
        found, content, _ = self.stored[version.name]
        if found != version:
            raise Gone("another one is there")
        if len(content) < stop:
            raise Truncated("too short")
        for at in range(start, stop, 1 << 16):
            yield content[at : min(at + (1 << 16), stop)]

    def put(self, name: str, blocks: Sequence[bytes], metadata: Metadata) -> Version:
        version = Version(name, metadata.version, metadata.version or "")
        self.stored[name] = (version, b"".join(blocks), metadata)
        return version

    def close(self) -> None:
        pass


class Faulty:
    """An archive whose heads and reads fail, or are changed, as a test wants it.

    Attributes:
        head_fails: how often in a row a head still fails.
        read_fails: so often, a read ends after its first block.
        mangle: what becomes of a block, by its offset.
        on_read: called before each read.
    """

    def __init__(self, inner: Archive) -> None:
        self.inner = inner
        self.url = inner.url
        self.head_fails = 0
        self.read_fails = 0
        self.mangle: Callable[[int, bytes], bytes] = lambda _, block: block
        self.on_read: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def head(self, name: str) -> Head:
        if self.head_fails:
            self.head_fails -= 1
            raise Unreachable("no answer")
        return self.inner.head(name)

    def read(self, version: Version, start: int, stop: int) -> Iterator[bytes]:
        self.on_read()
        for block in self.inner.read(version, start, stop):
            yield self.mangle(start, block)
            start += len(block)
            with self._lock:
                failing = self.read_fails > 0
                self.read_fails -= failing
            if failing:
                raise Unreachable("the connection was cut")

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)
