"""The order of the writes of a document: one at a time, and none that was overtaken.

A write that hangs may end long after its caller gave it up, and must not take the place of what was
written since. So nothing is written meanwhile: not by waiting for it, which would take thread after
thread, and not by who attaches the dataset anew, since its lock is held until the write has ended.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Document:
    lock: threading.Lock = field(default_factory=threading.Lock)
    last: int = 0


class Turns:
    """Who writes which document of one attached dataset; in its threads."""

    def __init__(self) -> None:
        self._documents: dict[str, _Document] = {}

    @contextmanager
    def taken(self, name: str, turn: int, root_fd: int, lock_fd: int) -> Iterator[int]:
        """Write a document within the block, below the directory that it gives.

        Args:
            name: which.
            turn: rises with every write that is begun, so that one that comes late is known.
            root_fd: the dataset. Its number may be another's by the time a hanging write goes on,
                so the block has one of its own.
            lock_fd: whose lock on the dataset lasts as long as the block.

        Raises:
            TimeoutError: an earlier write of it has not ended, or a later one was begun.
            OSError: the dataset was closed.
        """
        document = self._documents.setdefault(name, _Document())
        if not document.lock.acquire(blocking=False):
            raise TimeoutError(errno.ETIMEDOUT, "an earlier write has not ended", name)
        try:
            if turn < document.last:
                raise TimeoutError(errno.ETIMEDOUT, "a later write was begun", name)
            document.last = turn
            with ExitStack() as held:
                lock = os.dup(lock_fd)
                held.callback(os.close, lock)
                root = os.dup(root_fd)
                held.callback(os.close, root)
                yield root
        finally:
            document.lock.release()
