"""The directory of a staging depot: what is where in it, made durably when it is not there.

    <path>/artifacts   the dataset
    <path>/state       what the store keeps outside it, and the lock against a second coordinator
    <path>/incoming    uploads on their way in, not yet looked at

All calls block.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from depot.config.ledger import WITNESS_NAME
from depot.dataset.marker import MARKER_NAME
from depot.dataset.small_files import METADATA
from depot.errors import DatasetUnusable
from depot.initialise import init_datasets


@dataclass(frozen=True, slots=True)
class Place:
    """The paths of the depot at `path`."""

    path: Path

    @property
    def dataset(self) -> Path:
        """Where the artifacts are."""
        return self.path / "artifacts"

    @property
    def state(self) -> Path:
        """What must outlive the dataset."""
        return self.path / "state"

    @property
    def incoming(self) -> Path:
        """Uploads that are still being received or judged."""
        return self.path / "incoming"

    def prepare(self) -> None:
        """Make what is not there, durably.

        Raises:
            DatasetUnusable, DatasetForeign, DatasetBusy, OSError.
        """
        new = [each for each in (self.path, *self.path.parents) if not each.exists()]
        for directory in (self.path, self.dataset, self.state, self.incoming):
            directory.mkdir(parents=True, exist_ok=True)
        for directory in (*new, self.dataset):
            _sync(directory.parent)
        if (self.dataset / METADATA / MARKER_NAME).exists():
            return
        if (self.state / WITNESS_NAME).exists():
            raise DatasetUnusable(
                f"{self.dataset} is not the staging depot that {self.state} is about: mount or "
                f"restore it, or, when it is gone for good, move {self.state} away and upload "
                "again what it alone had"
            )
        init_datasets([self.dataset], state_dir=self.state)

    def clear_incoming(self) -> None:
        """Remove what dead writers left; only for who holds the lock."""
        for entry in self.incoming.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
