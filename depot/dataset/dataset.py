"""One dataset: a directory on one M.2 that carries our marker.

On disk::

    <64 hex>                 an artifact, mode 0444
    artifact-config.json     the ledger
    .sled-depot/marker.json  who this dataset is (its UUID, its siblings', its sled's)
    .sled-depot/pins.json    what local consumers hold
    .sled-depot/lock         flock of the process that uses it
    .sled-depot/reserve      room kept so that metadata can be written to a full disk
    .sled-depot/staging/     files not yet under their name, or about to go (`staging_names`)
    .sled-depot/quarantine/  damaged copies that were set aside (`depot.dataset.quarantine_names`)

Everything goes through the directory descriptor taken at `attach`, and every write and commit first
compares that descriptor with what the path leads to now: a path without its marker, unmounted or
swapped is missing, never empty, and nothing is written there. Whatever touches the device goes
through the dataset's `Disk`. All calls block; `Mirror` runs them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from depot.artifact import ArtifactHash
from depot.dataset import artifact_files, open_files, small_files
from depot.dataset.artifact_files import ARTIFACT_NAME
from depot.dataset.disk import SYSTEM, Disk
from depot.dataset.durability import Durability
from depot.dataset.found_files import FoundFiles
from depot.dataset.lock import take_lock
from depot.dataset.marker import MARKER_NAME, Marker
from depot.dataset.metadata import read_marker
from depot.dataset.small_files import (
    METADATA,
    STAGING,
    directory,
    exists,
    make_directory,
    open_root,
)
from depot.dataset.space import Space, ask_space, give_up_reserve, refill_reserve
from depot.dataset.staging_names import is_leaving, leaving_artifact, leaving_name, new_staged_name
from depot.dataset.turns import Turns
from depot.dataset.verification import Verifications
from depot.device.resident import stay
from depot.errors import DatasetUnusable
from depot.os_errors import SyncFailed, full_disk
from depot.streams.file_state import FileState

BLOCKS: Final = f"{METADATA}/blocks"


class Dataset:
    """An attached dataset: marker seen, lock held, directory open."""

    def __init__(self, path: Path, root_fd: int, lock_fd: int, marker: Marker, disk: Disk) -> None:
        self.path = path
        self.marker = marker
        self.disk = disk
        self.device_id = os.fstat(root_fd).st_dev
        self.checksums_data = disk.checksums_data(path)
        self.syncs_whole = disk.syncs_whole(path)
        self.has_page_cache = disk.has_page_cache(path)
        self.verifications = Verifications()
        self.durability = Durability()
        self._root = root_fd
        self._lock = lock_fd
        self._turns = Turns()

    @classmethod
    def attach(
        cls, path: Path, *, require_mountpoint: bool, sled_id: str | None, disk: Disk = SYSTEM
    ) -> Self:
        """Open and lock the dataset at `path`, and clear what dead writers staged.

        Raises:
            DatasetUnusable: no such directory, no marker, not a mount, another sled's.
            DatasetBusy: another process uses it.
            FormatTooNew: the marker was written by a newer program.
            OSError: the device fails.
        """
        with open_root(path) as root:
            marker = read_marker(root, path, disk)
            if require_mountpoint and not path.is_mount():
                raise DatasetUnusable(f"{path} is not a mount point of its own")
            if sled_id is not None and marker.sled_id != sled_id:
                raise DatasetUnusable(
                    f"{path} belongs to sled {marker.sled_id}, this is sled {sled_id}"
                )
            with ExitStack() as unless_attached:
                # Or the next try would find the lock taken, by this process.
                lock = take_lock(root, path)
                unless_attached.callback(os.close, lock)
                held_root = os.dup(root)
                unless_attached.callback(os.close, held_root)
                dataset = cls(path, held_root, lock, marker, disk)
                dataset._clear_staging()
                unless_attached.pop_all()
        return dataset

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Stay here: another process gets what stands for it, with these facts."""
        return stay(
            self,
            {
                "path": self.path,
                "marker": self.marker,
                "device_id": self.device_id,
                "checksums_data": self.checksums_data,
                "has_page_cache": self.has_page_cache,
            },
        )

    def close(self) -> None:
        """Give up the directory and the lock."""
        self.verifications.end_all()
        fds = (self._root, self._lock)
        # The numbers may soon be somebody else's: a late call of ours must not go there.
        self._root = self._lock = -1
        for fd in fds:
            with suppress(OSError):
                os.close(fd)

    @property
    def root(self) -> int:
        """The directory's descriptor, to which every name here is relative."""
        return self._root

    def release(self) -> None:
        """Give up the directory, the lock and every file on it, so that it can be unmounted."""
        self.close()
        open_files.revoke(self.path, self.device_id)

    def check_identity(self) -> None:
        """Raise DatasetUnusable when the path no longer leads to this dataset."""
        try:
            held = os.fstat(self._root)
        except FileNotFoundError as error:  # a filesystem that keeps no removed directory
            raise DatasetUnusable(f"{self.path} is not there any more") from error
        try:
            found = self.disk.stat_path(self.path)
            there = (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)
        except OSError as error:
            raise DatasetUnusable(f"{self.path}: {os.strerror(error.errno or 0)}") from error
        if not there:
            raise DatasetUnusable(f"{self.path} leads to another filesystem or directory now")
        if not exists(self._root, f"{METADATA}/{MARKER_NAME}", self.disk):
            raise DatasetUnusable(f"{self.path} has lost its marker")
        if not exists(self._root, STAGING, self.disk):  # made anew at the next attach
            raise DatasetUnusable(f"{self.path} has lost its staging directory")

    def space(self) -> Space:
        """Ask the filesystem."""
        return ask_space(self._root, self.disk)

    def scan(self) -> FoundFiles:
        """Find every artifact: a regular file named by a hash."""
        return artifact_files.scan(self._root, self.durability, self.disk)

    def look_at(self, artifacts: Iterable[ArtifactHash]) -> FoundFiles:
        """Find the files of some artifacts, where there are any."""
        return artifact_files.look_at(self._root, artifacts, self.durability, self.disk)

    def artifact_size(self, artifact: ArtifactHash) -> int | None:
        """Size in bytes of the file under the artifact's name; None when none is there for good.

        A file that cannot even be looked at counts as empty, which no copy is.
        """
        found = self.look_at((artifact,))
        file = found.find(artifact) if found else None  # a put asks, and there is none
        return None if file is None else file.size_bytes

    def open_artifact(self, artifact: ArtifactHash) -> tuple[int, FileState]:
        """Open an artifact for reading: descriptor and state of its file.

        Raises:
            FileNotFoundError: there is none; a link or directory of its name is not one.
        """
        return artifact_files.open_file(self._root, artifact, self.disk)

    def stage(self, name: str | None = None) -> tuple[int, str]:
        """Create a file that no other writer can have: descriptor and name for `commit`.

        A writer that must know the name beforehand makes it with `new_staged_name`.
        """
        self.check_identity()
        name = name or new_staged_name()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        return self.disk.open(name, flags, 0o444, dir_fd=self._root), name

    def open_staged(self, name: str) -> int:
        """Open a file that is being written, for reading.

        Raises:
            FileNotFoundError: it was not begun, or has another name or none by now.
        """
        return self.disk.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._root)

    def sync(self, fd: int) -> None:
        """Make a staged file durable.

        Raises:
            SyncFailed: the file is worthless; never try again.
        """
        with self.durability.syncing(names=False):
            small_files.sync_file(fd, self.disk)

    def sync_whole(self, root: int) -> None:
        """Make every staged file durable that was written since `root` was opened.

        Raises:
            SyncFailed: any of them may be worthless; never try again.
        """
        with self.durability.syncing(names=False):
            small_files.sync_whole(root, self.disk)

    @contextmanager
    def naming(self, artifacts: Collection[ArtifactHash]) -> Iterator[set[ArtifactHash]]:
        """Staged, synced files get these names within the block, durably at its end.

        Yields those that have no file yet: whoever renames one takes it out.

        Raises:
            SyncFailed: no name is durable. All are taken back, and not counted until they are.
        """
        try:
            with (
                self.durability.naming(artifacts) as unnamed,
                self.durability.syncing(names=True),
            ):
                yield unnamed
                small_files.sync_names(self._root, self.disk)
        except SyncFailed:
            with suppress(OSError):
                self.disown_names()
            raise

    def disown_names(self) -> None:
        """Remove every name that could not be made durable: a later sync proves nothing of it."""
        self.durability.disown(lambda artifact: self.discard(str(artifact)))

    def sync_failures(self) -> int:
        """How many syncs have failed since the dataset was attached."""
        return self.durability.failures

    def discard(self, staged: str) -> None:
        """Remove a staged file, if it is still there."""
        with suppress(FileNotFoundError):
            self.disk.unlink(staged, dir_fd=self._root)

    def set_aside(self, artifact: ArtifactHash) -> None:
        """Take an artifact's name away, if it is still there, so that it can be decided on.

        Where even that takes room, as on a btrfs, it has that of the reserve.
        """
        self.check_identity()
        with suppress(FileNotFoundError):
            try:
                self.disk.rename(str(artifact), leaving_name(artifact), dir_fd=self._root)
            except OSError as error:
                if not full_disk(error):
                    raise
                self._set_aside_in_reserve(artifact)

    def _set_aside_in_reserve(self, artifact: ArtifactHash) -> None:
        give_up_reserve(self._root, self.disk)
        try:
            self.disk.rename(str(artifact), leaving_name(artifact), dir_fd=self._root)
        except OSError:
            self.refill_reserve()  # or somebody else takes the room, for nothing
            raise
        # Refilled by the watch: what is deleted now makes the room for it.

    def remove_aside(self, artifact: ArtifactHash) -> None:
        """Remove an artifact that was set aside, and what was derived from it."""
        self.discard(_blocks_of(artifact))
        self.discard(leaving_name(artifact))

    def bring_back(self, artifact: ArtifactHash) -> None:
        """Give an artifact that was set aside its name again, unless another took it."""
        if self.artifact_size(artifact) is not None:
            self.remove_aside(artifact)
            return
        with suppress(FileNotFoundError):
            self.disk.rename(leaving_name(artifact), str(artifact), dir_fd=self._root)

    def bring_all_back(self) -> None:
        """Undo what was set aside and never decided on: a crash or a hang came in between."""
        with directory(self._root, STAGING, self.disk) as staging:
            names = [name for name in self.disk.listdir(staging) if is_leaving(name)]
        for name in names:
            self.bring_back(leaving_artifact(name))

    def read_block_digests(self, artifact: ArtifactHash) -> bytes | None:
        """Read what was kept of an artifact's block digests; None when there is nothing."""
        return small_files.read_document(self._root, _blocks_of(artifact), self.disk)

    def block_digests_kept(self) -> set[ArtifactHash]:
        """Name the artifacts of which block digests are kept."""
        try:
            with directory(self._root, BLOCKS, self.disk) as blocks:
                names = self.disk.listdir(blocks)
        except FileNotFoundError:
            return set()
        return {ArtifactHash.parse(name) for name in names if ARTIFACT_NAME.fullmatch(name)}

    def discard_block_digests(self, artifact: ArtifactHash) -> None:
        """Remove an artifact's block digests, if there are any."""
        self.discard(_blocks_of(artifact))

    def write_block_digests(self, artifact: ArtifactHash, content: bytes) -> None:
        """Keep an artifact's block digests. Not synced: they are derived, and checked when read."""
        make_directory(self._root, BLOCKS, self.disk)
        fd, staged = self.stage()
        try:
            try:
                small_files.write_all(fd, memoryview(content), self.disk)
            finally:
                os.close(fd)
            self.disk.rename(staged, _blocks_of(artifact), dir_fd=self._root)
        except OSError:
            self.discard(staged)
            raise

    def read_document(self, name: str) -> bytes | None:
        """Read a small file; None when there is none.

        Raises:
            OSError: it is not a regular file, too large, or the device fails.
        """
        return small_files.read_document(self._root, name, self.disk)

    def write_document(self, name: str, content: bytes, turn: int = 0) -> None:
        """Replace a small file atomically and durably; draws on the reserve when the disk is full.

        `turn` orders the writes of one document (`Turns`).

        Raises:
            OSError: nothing was changed, unless only the last sync failed.
        """
        with self._turns.taken(name, turn, self._root, self._lock) as root:
            self._replace_document(root, name, content)

    def _replace_document(self, root: int, name: str, content: bytes) -> None:
        self.check_identity()
        try:
            self._write_document(root, name, content)
        except OSError as error:
            if not full_disk(error):
                raise
            give_up_reserve(root, self.disk)
            self._write_document(root, name, content)
            # At once: the document before it is gone, and nobody may take the room (Q2).
            self.refill_reserve()

    def ensure_document(self, name: str, content: bytes, turn: int = 0) -> None:
        """Have a small file hold `content`, durably.

        What can be read there is no proof of that: memory gives back what a failed sync, or a
        process that was killed before its sync, never brought to the device. So it is written
        unless this very content was written before and nothing failed since.
        """
        with self._turns.taken(name, turn, self._root, self._lock) as root:
            self.check_identity()
            if self.durability.has_written(name, content):
                with suppress(OSError):  # what cannot be read is replaced
                    if small_files.read_document(root, name, self.disk) == content:
                        return
            self._replace_document(root, name, content)

    def _write_document(self, root: int, name: str, content: bytes) -> None:
        with self.durability.syncing(names=True):
            small_files.write_document(root, name, content, self.disk)
        self.durability.wrote(name, content)

    def refill_reserve(self) -> None:
        """Take the room that metadata may need on a full disk; as much as there is, if need be."""
        refill_reserve(self._root, self.disk)

    def _clear_staging(self) -> None:
        # The lock is held, so whoever staged these is dead (Q3).
        try:
            make_directory(self._root, STAGING, self.disk)
            with directory(self._root, STAGING, self.disk) as staging:
                for name in self.disk.listdir(staging):
                    if not is_leaving(name):
                        self.disk.unlink(name, dir_fd=staging)
            self.bring_all_back()
        except OSError as error:
            if error.errno != errno.EROFS:
                raise


def _blocks_of(artifact: ArtifactHash) -> str:
    return f"{BLOCKS}/{artifact}"
