"""One of several sources that a copy reads from at once, and the room that all of them share."""

from __future__ import annotations

import concurrent.futures
import hashlib
import threading
from dataclasses import dataclass, field
from typing import Any

from agent.copies.peers import PeerBody
from agent.copies.source_url import SourceUrl
from depot.concurrency.threads import DaemonThreads


class BraidRoom:
    """What all braids of a sled share: their threads, and how many buffers there may be (S1)."""

    def __init__(self, *, part_bytes: int = 2 << 20, buffers: int = 8) -> None:
        self.part_bytes = part_bytes
        self.threads = DaemonThreads("copy-lane", buffers)
        self._free = buffers
        self._lock = threading.Lock()

    def take(self, buffers: int) -> bool:
        """Reserve buffers; False when there are not so many."""
        with self._lock:
            if self._free < buffers:
                return False
            self._free -= buffers
            return True

    def give_back(self, buffers: int) -> None:
        """Let others have them."""
        with self._lock:
            self._free += buffers

    def close(self) -> None:
        """Let the threads end."""
        self.threads.close()


@dataclass(slots=True, eq=False)
class Lane:
    """One source of a braid, and the thread that reads it.

    Attributes:
        running: done when the thread is.
        pending: what the thread waits for on the event loop.
        dropped: why it is to end; empty when nothing is wrong with it.
        over: whether it has ended; well: whether in good terms, or not at all.
        gave_bytes: how much of what it read was taken; at_byte: up to where.
        waited_s: how long it has waited for its source.
        asking_since_s: since when it waits for an answer.
        said: digest of what came of the running part.
    """

    number: int
    source: SourceUrl
    running: concurrent.futures.Future[None] = field(default_factory=concurrent.futures.Future)
    body: PeerBody | None = None
    pending: concurrent.futures.Future[Any] | None = None
    dropped: str | None = None
    over: bool = False
    well: bool = True
    gave_bytes: int = 0
    at_byte: int = 0
    waited_s: float = 0.0
    asking_since_s: float | None = None
    said: Any = field(default_factory=hashlib.sha256)

    def silent_s(self, now_s: float) -> float:
        """For how long it has been waiting for an answer, or for a byte."""
        if self.body is not None:
            return self.body.silent_s
        return 0.0 if self.asking_since_s is None else now_s - self.asking_since_s

    def drop(self, why: str) -> None:
        """End it soon; called with the condition held."""
        if self.dropped is None:
            self.dropped = why
        if self.body is not None:
            self.body.content.abort()
        if self.pending is not None:
            self.pending.cancel()
