"""Making directories into datasets: the markers, written once, by an explicit command.

Idempotent. A directory that holds anything but what systems put there is left alone.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from depot.config.ledger import LEDGER_NAME, NO_LEDGER, decode_ledger, encode_ledger
from depot.config.state_dir import acknowledged, kept_from_agents
from depot.dataset.adopt import check_mounted
from depot.dataset.dataset import Dataset
from depot.dataset.disk import SYSTEM, Disk
from depot.dataset.lock import require_unused
from depot.dataset.marker import MARKER_NAME, Marker, encode_marker
from depot.dataset.metadata import prepare_metadata, read_marker
from depot.dataset.small_files import METADATA, open_root, sync_directory, write_document
from depot.document import Unreadable
from depot.errors import DatasetUnusable


@dataclass(frozen=True, slots=True)
class InitReport:
    """What became of one path.

    Attributes:
        dataset_id: None when the path was passed over.
        created: a marker was written where there was none.
        problem: why the path was passed over.
    """

    path: Path
    dataset_id: str | None
    created: bool
    problem: str | None = None


def init_datasets(
    paths: Sequence[Path],
    *,
    sled_id: str | None = None,
    force: bool = False,
    disk: Disk = SYSTEM,
    state_dir: Path | None = None,
) -> list[InitReport]:
    """Give each directory its marker; those that have one keep it.

    Never beside a running agent: that one would take a marked directory into use although an
    operator had the dataset released, and would not know which disk was replaced.

    With `force`, paths that are not there are passed over, and datasets whose ledger is missing or
    unreadable are declared to have none, so that a first config is accepted although a dataset is
    away. That is done only where nothing can tell what was accepted: not with one ledger that can
    be read, nor with a state directory that remembers. An unreadable ledger is moved aside.

    Raises:
        DatasetUnusable: a directory is missing (without `force`), or the markers disagree.
        DatasetForeign: a directory is not empty and not a dataset.
        DatasetBusy: a dataset, or the state directory, is in use; nothing was changed.
        OSError: the device fails.
    """
    with kept_from_agents(state_dir) if state_dir else nullcontext():
        sled, reports = _init_datasets(paths, sled_id, disk, force=force)
        if force and not (state_dir and acknowledged(state_dir, sled)):
            present = [report.path for report in reports if not report.problem]
            _declare_no_ledger(present, sled, disk)
        return reports


def _init_datasets(
    paths: Sequence[Path], sled_id: str | None, disk: Disk, *, force: bool
) -> tuple[str, list[InitReport]]:
    problems = {path: problem for path in paths if (problem := _problem(path))}
    if problems and not force:
        raise DatasetUnusable(next(iter(problems.values())))
    present = [path for path in paths if path not in problems]
    _check_unused(present)
    _check_mounted(present)
    found = {path: marker for path in present if (marker := _prepare(path, disk))}
    sled = _agree(found, sled_id)
    ids = {path: found[path].dataset_id if path in found else str(uuid.uuid4()) for path in present}
    known = {sibling for marker in found.values() for sibling in marker.siblings}
    retired = {name for marker in found.values() for name in marker.retired}
    if not problems:  # with every path there, whoever is not among them was replaced
        retired |= known
    retired -= set(ids.values())
    for path in present:
        siblings = {other for other in ids.values() if other != ids[path]}
        if problems and path in found:  # the one that is away is still a sibling
            siblings |= set(found[path].siblings)
        marker = Marker(ids[path], tuple(sorted(siblings)), sled, tuple(sorted(retired)))
        if found.get(path) != marker:
            _write_marker(path, marker, disk)
    return sled, [
        InitReport(p, ids.get(p), p in ids and p not in found, problems.get(p)) for p in paths
    ]


def _problem(path: Path) -> str | None:
    try:
        with open_root(path):
            return None
    except DatasetUnusable as error:
        return str(error)


def _check_unused(paths: Sequence[Path]) -> None:
    """Raise DatasetBusy, before anything is changed, when one of the datasets is in use."""
    for path in paths:
        with open_root(path) as root:
            require_unused(root, path)


def _check_mounted(paths: Sequence[Path]) -> None:
    """Refuse to mark the bare mount point of a disk that is not mounted beside one that is.

    Raises:
        DatasetUnusable: naming the path.
    """
    marked = [path for path in paths if (path / METADATA / MARKER_NAME).exists()]
    expects_mount = any(path.is_mount() for path in marked)
    for path in paths:
        if path not in marked:
            check_mounted(path, expects_mount=expects_mount)


def _prepare(path: Path, disk: Disk) -> Marker | None:
    with open_root(path) as root:
        prepare_metadata(root, path, disk)
        if not (path / METADATA / MARKER_NAME).exists():
            return None
        return read_marker(root, path)


def _agree(found: dict[Path, Marker], sled_id: str | None) -> str:
    named = {marker.sled_id: path for path, marker in found.items()}
    if sled_id is not None:
        named.setdefault(sled_id, Path("the configuration"))
    if len(named) > 1:
        raise DatasetUnusable(
            "the datasets belong to different sleds: "
            + ", ".join(f"{where} to {sled}" for sled, where in sorted(named.items()))
        )
    return next(iter(named), None) or str(uuid.uuid4())


def _write_marker(path: Path, marker: Marker, disk: Disk) -> None:
    with open_root(path) as root:
        write_document(root, f"{METADATA}/{MARKER_NAME}", encode_marker(marker), disk)


def _declare_no_ledger(paths: Sequence[Path], sled_id: str, disk: Disk) -> None:
    datasets = [
        Dataset.attach(path, require_mountpoint=False, sled_id=sled_id, disk=disk) for path in paths
    ]
    try:
        contents = [_ledger_bytes(dataset) for dataset in datasets]
        if any(_intact(content, sled_id) for content in contents):
            return
        for dataset in datasets:
            # Moved and not copied: what fails to be read today may be read tomorrow.
            kept = f"{METADATA}/unreadable-{secrets.token_hex(4)}-{LEDGER_NAME}"
            with suppress(FileNotFoundError):
                dataset.disk.rename(LEDGER_NAME, kept, dir_fd=dataset.root)
                sync_directory(dataset.root, METADATA, dataset.disk)
            dataset.write_document(LEDGER_NAME, encode_ledger(NO_LEDGER, sled_id))
    finally:
        for dataset in datasets:
            dataset.close()


def _ledger_bytes(dataset: Dataset) -> bytes | None:
    with suppress(OSError):
        return dataset.read_document(LEDGER_NAME)
    return None


def _intact(content: bytes | None, sled_id: str) -> bool:
    if content is None:
        return False
    try:
        decode_ledger(content, sled_id)
    except Unreadable:
        return False
    return True
