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
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from depot.artifact import ArtifactHash
from depot.os_errors import SyncFailed


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
    def naming(self, artifacts: Collection[ArtifactHash]) -> Iterator[set[ArtifactHash]]:
        """Artifacts' files get their names within the block, and are not certain before its end.

        Yields those that have none yet, for the block to take out what it has named.
        """
        mine = object()
        unnamed = set(artifacts)
        with self._lock:
            doubted = self._disowned & unnamed
            self._disowned -= doubted
            self._naming.update(dict.fromkeys(artifacts, mine))
        uncertain = doubted
        try:
            yield unnamed
            uncertain = doubted & unnamed
        except SyncFailed:
            uncertain = doubted | (set(artifacts) - unnamed)
            raise
        finally:
            with self._lock:  # unless a later writer has the name by now
                ours = {a for a in artifacts if self._naming.get(a) is mine}
                self._disowned |= ours & uncertain
                for artifact in ours:
                    del self._naming[artifact]

    def is_certain(self, artifact: bytes) -> bool:
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
