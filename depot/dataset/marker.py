"""The marker: who a dataset is. Pure: what it says, and how it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from depot import document
from depot.dataset.small_files import METADATA
from depot.document import Unreadable
from depot.errors import DatasetUnusable

MARKER_NAME: Final = "marker.json"
MARKER_FILE: Final = f"{METADATA}/{MARKER_NAME}"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Marker:
    """A dataset's identity.

    Attributes:
        dataset_id: UUID of this dataset.
        siblings: UUIDs of the sled's other datasets.
        sled_id: the sled they belong to.
        retired: UUIDs of datasets that others have replaced; they are not taken back by themselves.
    """

    dataset_id: str
    siblings: tuple[str, ...]
    sled_id: str
    retired: tuple[str, ...] = ()


def encode_marker(marker: Marker) -> bytes:
    """Serialise for `marker.json`."""
    fields = {
        "dataset_id": marker.dataset_id,
        "siblings": list(marker.siblings),
        "sled_id": marker.sled_id,
        "retired": list(marker.retired),
    }
    return document.encode(fields, version=FORMAT)


def decode_marker(content: bytes, path: Path) -> Marker:
    """Parse `marker.json` of the dataset at `path`.

    Raises:
        DatasetUnusable: torn, empty or altered, naming the path.
        FormatTooNew: see `document.decode`.
    """
    try:
        fields = document.decode(content, name=f"{path}: {MARKER_NAME}", newest=FORMAT)
    except Unreadable as error:
        raise DatasetUnusable(str(error)) from error
    dataset_id, siblings, sled_id = (fields.get(k) for k in ("dataset_id", "siblings", "sled_id"))
    retired = fields.get("retired", [])  # not in what older programs wrote
    if not (
        isinstance(dataset_id, str)
        and isinstance(sled_id, str)
        and isinstance(siblings, list)
        and isinstance(retired, list)
    ):
        raise DatasetUnusable(f"{path}: {MARKER_NAME} lacks dataset_id, siblings or sled_id")
    return Marker(dataset_id, tuple(map(str, siblings)), sled_id, tuple(map(str, retired)))
