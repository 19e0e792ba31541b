"""What a dataset's syncs have told: which documents are durable, which names are not.

A failed sync is believed for good. The kernel marks the pages clean and reports the failure once to
each descriptor, so a second sync, or one that ran beside it, may succeed without a byte having
moved. What was to be made durable is written anew, under a new file, or not counted. Calls come
from any thread of the dataset.
"""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from depot.artifact import ArtifactHash
from depot.disk import SyncFailed


class Durability:
    """The memory of one attached dataset.

    Attributes:
        failures: syncs that failed, whoever waited for them or had given up by then.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._lock = threading.Lock()
        self._documents: dict[str, bytes] = {}
        self._naming: dict[ArtifactHash, object] = {}
        self._disowned: set[ArtifactHash] = set()

    @contextmanager
    def syncing(self, *, names: bool) -> Iterator[None]:
        """Watch over a sync; that of `names` shares its report with those that run beside it.

        Raises:
            SyncFailed: it failed, or another one did while it ran.
        """
        before = self.failures
        try:
            yield
        except SyncFailed:
            with self._lock:
                self.failures += 1
                self._documents.clear()
            raise
        if names and self.failures != before:
            raise SyncFailed(errno.EIO, "another sync of this dataset failed meanwhile")

    def wrote(self, name: str, content: bytes) -> None:
        """Note that a document is durable with this content."""
        self._documents[name] = hashlib.sha256(content).digest()

    def has_written(self, name: str, content: bytes) -> bool:
        """Tell whether a document was made durable with this content, and nothing failed since."""
        return self._documents.get(name) == hashlib.sha256(content).digest()

    @contextmanager
    def naming(self, artifact: ArtifactHash) -> Iterator[None]:
        """An artifact's file gets its name within the block, and is not certain before its end."""
        mine = object()
        with self._lock:
            doubted = artifact in self._disowned
            self._disowned.discard(artifact)
            self._naming[artifact] = mine
        try:
            yield
        except OSError as error:
            with self._lock:  # unless a later writer has the name by now
                if self._naming.get(artifact) is mine and (
                    doubted or isinstance(error, SyncFailed)
                ):
                    self._disowned.add(artifact)
            raise
        finally:
            with self._lock:
                if self._naming.get(artifact) is mine:
                    del self._naming[artifact]

    def is_certain(self, artifact: ArtifactHash) -> bool:
        """Tell whether the artifact's name, if it is there, will be there after a power cut."""
        return artifact not in self._naming and artifact not in self._disowned

    def disown(self, remove: Callable[[ArtifactHash], None]) -> None:
        """Have every name removed that could not be made durable.

        Raises:
            OSError: as `remove` does; what is left stays uncertain.
        """
        for artifact in sorted(self._disowned):
            with self._lock:  # whoever gives the name anew waits, and then it is his
                if artifact in self._disowned:
                    remove(artifact)
                    self._disowned.discard(artifact)
