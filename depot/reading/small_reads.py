"""Reading several small artifacts in one call, where their device is."""

from __future__ import annotations

import os
from collections.abc import Sequence

from depot.artifact import ArtifactHash
from depot.dataset.dataset import Dataset


def read_small_files(
    dataset: Dataset, artifacts: Sequence[ArtifactHash], most_bytes: int
) -> list[bytes | None]:
    """Read each artifact whole, unchecked; None for what is not there, larger, or unreadable."""
    return [_read(dataset, artifact, most_bytes) for artifact in artifacts]


def _read(dataset: Dataset, artifact: ArtifactHash, most_bytes: int) -> bytes | None:
    try:
        fd, (size_bytes, _) = dataset.open_artifact(artifact)
    except OSError:
        return None
    try:
        return dataset.disk.pread(fd, size_bytes, 0) if size_bytes <= most_bytes else None
    except OSError:
        return None
    finally:
        os.close(fd)
