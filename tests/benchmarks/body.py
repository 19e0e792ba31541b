"""The artifact that is moved: random bytes in a file, changed a little when a new one is needed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from tests.benchmarks.measure import MIB

_COUNTER_BYTES: Final = 8


class Body:
    """A file of random bytes, so that no filesystem that compresses flatters anyone.

    Attributes:
        sha256: of the file as it is now.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self._changes = 0
        with path.open("wb") as file:
            for begin in range(0, size_bytes, MIB):
                file.write(os.urandom(min(MIB, size_bytes - begin)))
            file.flush()
            # Else its write-back would fall into the first runs.
            os.fsync(file.fileno())
        self.sha256 = self._hash()

    def change(self) -> str:
        """Make it another artifact of the same size; its hash."""
        self._changes += 1
        with self.path.open("r+b") as file:
            file.write(self._changes.to_bytes(_COUNTER_BYTES, "big"))
            file.flush()
            os.fsync(file.fileno())
        self.sha256 = self._hash()
        return self.sha256

    def _hash(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
