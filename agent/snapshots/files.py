"""An archive in a directory: `file:///dir`.

On disk, for a snapshot NAME:

    NAME            -> NAME.versions/current/data        the newest, for people and other programs
    NAME.meta.json  -> NAME.versions/current/meta.json   what is said of it
    NAME.versions/current -> <version>
    NAME.versions/<version>/{data,meta.json}
    NAME.versions/.incoming-*   of a publisher that is at it, or that died
    NAME.versions/lock          one publisher at a time

Rules kept here:
- `current` is what publishes a version: one rename swaps the bytes and what is said of them. All
  below it is synced before.
- A NAME that is a file, with or without its NAME.meta.json, was put there by something else. It is
  read as well; its version is made of what changes when the file does.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.snapshots.durable import make_directories, replace_link, sync_directory
from agent.snapshots.errors import Gone, Malformed, Refused, Truncated, Unreachable
from agent.snapshots.values import (
    SIDECAR_SUFFIX,
    VERSIONS_SUFFIX,
    Head,
    Listed,
    Metadata,
    Version,
)

BLOCK_BYTES: Final = 1 << 20
_CURRENT: Final = "current"
_DATA: Final = "data"
_META: Final = "meta.json"
_INCOMING: Final = ".incoming-"
_MAX_META_BYTES: Final = 1 << 16
_GONE: Final = (FileNotFoundError, NotADirectoryError)
_REFUSED: Final = (PermissionError, IsADirectoryError)


class FileArchive:
    """Snapshots in a directory."""

    def __init__(self, directory: Path) -> None:
        self.url = directory.as_uri()
        self._directory = directory

    @property
    def missing(self) -> Path | None:
        """The directory, where it is not there; publishing makes it."""
        return None if self._directory.is_dir() else self._directory

    def head(self, name: str) -> Head:
        """See Archive."""
        with self._errors(name):
            if not self._directory.is_dir():
                raise Unreachable(f"{self._directory} is not there: is it mounted?")
            version_id = self._current(name)
            with self._open(name, version_id) as fd:
                found = os.fstat(fd)
            items = self._items(self._meta_path(name, version_id))
            return Head(_version(name, version_id, found), found.st_size, Metadata.parse(items))

    def read(self, version: Version, start: int, stop: int) -> Iterator[bytes]:
        """See Archive."""
        with self._errors(version.name), self._open(version.name, version.id) as fd:
            if _version(version.name, version.id, os.fstat(fd)) != version:
                raise Gone(f"{version.name}: another version is in the place of {version}")
            while start < stop:
                block = os.pread(fd, min(BLOCK_BYTES, stop - start), start)
                if not block:
                    raise Truncated(
                        f"{version.name}, version {version}: expected {stop} bytes, found {start}"
                    )
                start += len(block)
                yield block

    def put(self, name: str, blocks: Iterable[bytes], metadata: Metadata) -> Version:
        """See Archive."""
        with self._errors(name), self._publishing(name) as place:
            version_id = metadata.version or secrets.token_hex(8)
            staged = place / f"{_INCOMING}{secrets.token_hex(8)}"
            staged.mkdir()
            try:
                _write(staged / _DATA, blocks)
                _write(staged / _META, [_json(metadata)])
                sync_directory(staged)
                (staged).rename(place / version_id)
            except BaseException:
                shutil.rmtree(staged, ignore_errors=True)
                raise
            sync_directory(place)
            replace_link(place / _CURRENT, version_id)
            self._lead_there(name, place.name)
            with self._open(name, version_id) as fd:
                return _version(name, version_id, os.fstat(fd))

    def versions(self, name: str) -> Sequence[Listed]:
        """See Archive."""
        with self._errors(name):
            newest = self._current_or_none(name)
            place = self._place(name)
            entries = place.iterdir() if place.is_dir() else ()
            kept = [
                each.name
                for each in entries
                if each.is_dir() and not each.is_symlink() and not each.name.startswith(".")
            ]
            listed = [self._listed(name, each) for each in kept]
            if newest is None and (self._directory / name).is_file():
                listed.append(self._listed(name, None))
            return sorted(
                listed, key=lambda each: (each.version.id == newest, each.stored_at), reverse=True
            )

    def delete(self, version: Version) -> None:
        """See Archive."""
        if version.id is None:
            raise Refused(f"{version.name}: was not put there by this program")
        with self._errors(version.name), self._publishing(version.name) as place:
            if self._current_or_none(version.name) == version.id:
                raise Refused(f"{version.name}: version {version} is the newest")
            # Out of the way first: a half-removed version must not look like a whole one.
            leaving = place / f"{_INCOMING}{secrets.token_hex(8)}"
            try:
                (place / version.id).rename(leaving)
            except FileNotFoundError:
                return
            sync_directory(place)
            shutil.rmtree(leaving, ignore_errors=True)

    def close(self) -> None:
        """See Archive."""

    def _place(self, name: str) -> Path:
        return self._directory / f"{name}{VERSIONS_SUFFIX}"

    def _current(self, name: str) -> str | None:
        """The newest version's id; None for a file that something else put there."""
        path = self._directory / name
        if not path.is_symlink():
            return None
        return (self._place(name) / _CURRENT).readlink().name

    def _current_or_none(self, name: str) -> str | None:
        try:
            return self._current(name)
        except FileNotFoundError:
            return None

    @contextmanager
    def _open(self, name: str, version_id: str | None) -> Iterator[int]:
        path = self._directory / name
        data = path if version_id is None else self._place(name) / version_id / _DATA
        fd = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def _meta_path(self, name: str, version_id: str | None) -> Path:
        if version_id is None:
            return self._directory / f"{name}{SIDECAR_SUFFIX}"
        return self._place(name) / version_id / _META

    def _items(self, path: Path) -> dict[str, str]:
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_META_BYTES)
        except FileNotFoundError:
            return {}
        try:
            found = json.loads(text)
        except ValueError:
            raise Malformed(f"{path}: expected JSON") from None
        if not isinstance(found, dict):
            raise Malformed(f"{path}: expected an object")
        return {key: str(value) for key, value in found.items() if value is not None}

    def _listed(self, name: str, version_id: str | None) -> Listed:
        with self._open(name, version_id) as fd:
            found = os.fstat(fd)
        at = datetime.fromtimestamp(found.st_mtime, UTC)
        return Listed(_version(name, version_id, found), found.st_size, at)

    @contextmanager
    def _publishing(self, name: str) -> Iterator[Path]:
        """Hold the lock of a snapshot; what dead publishers left goes."""
        place = self._place(name)
        make_directories(place)
        with (place / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for each in place.glob(f"{_INCOMING}*"):
                shutil.rmtree(each)
            yield place

    def _lead_there(self, name: str, place: str) -> None:
        """Have the names that people look at lead to the newest version."""
        path = self._directory / name
        for link, leaf in ((path, _DATA), (Path(f"{path}{SIDECAR_SUFFIX}"), _META)):
            target = f"{place}/{_CURRENT}/{leaf}"
            if not link.is_symlink() or str(link.readlink()) != target:
                replace_link(link, target)

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except _GONE as error:
            # Of what should be behind a name that is there, which part is missing.
            behind = error.filename not in (None, str(self._directory / name))
            missing = f": {error.filename} is not there" if behind else ""
            raise Gone(f"{self.url} has no {name}{missing}") from error
        except _REFUSED as error:
            raise Refused(f"{self.url}: {error}") from error
        except OSError as error:
            raise Unreachable(f"{self.url}: {error}") from error


def _version(name: str, version_id: str | None, found: os.stat_result) -> Version:
    if version_id is not None:
        return Version(name, version_id, version_id)
    tag = f"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_size:x}"
    return Version(name, None, tag)


def _json(metadata: Metadata) -> bytes:
    items: dict[str, object] = {**metadata.items()}
    if metadata.size_bytes is not None:
        items["size"] = metadata.size_bytes
    return json.dumps(items, indent=2).encode() + b"\n"


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    with path.open("xb", buffering=0) as file:
        for block in blocks:
            left = memoryview(block)
            while left:
                left = left[file.write(left) :]
        os.fsync(file.fileno())
